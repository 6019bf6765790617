"""Shared code of the three before-and-after examples: data, a stand-in for an embedding model, measures and a table.

The examples need their framework, its adapter, and the extra `evaluate` (LangChain also langchain-classic).
"""

import argparse
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from zlib import crc32

from rich.console import Console
from rich.table import Table

from onelogit import DEMO_MODEL

DATA = Path(__file__).parent / "data"
MEASURES = {"nDCG@5": "nDCG@5", "MRR@5": "RR@5", "answer on top": "P@1"}  # by the names of ir_measures
WIDTH = 512
DEMO_NOTE = "This is the demo model: its ranking means nothing, nor do these results. Use a real model with --model."

Search = Callable[[str], list[str]]  # a question -> passage ids, best first


def parse(description: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--model", default=DEMO_MODEL, help="hub id or folder of a reranker (default: the demo model)")
    return parser.parse_args()


def read_passages() -> dict[str, str]:
    """The passages' texts by id."""
    return {line["id"]: line["text"] for line in _read_lines("passages.jsonl")}


def embed(text: str) -> list[float]:
    """A stand-in for an embedding model: a unit vector of hashed counts of letter trigrams."""
    text = f" {' '.join(text.lower().split())} "
    vector = [0.0] * WIDTH
    for start in range(len(text) - 2):
        vector[crc32(text[start : start + 3].encode()) % WIDTH] += 1
    norm = math.hypot(*vector) or 1.0
    return [value / norm for value in vector]


def compare(framework: str, model: str, before: Search, after: Search) -> None:
    """Run all questions through both searches, and print their measures."""
    results = {"retriever alone": evaluate(before), "and onelogit": evaluate(after)}
    console = Console()
    console.print(table(framework, results))
    if model == DEMO_MODEL:
        console.print(DEMO_NOTE, highlight=False)


def evaluate(search: Search) -> dict[str, float]:
    """The mean of each measure over all questions."""
    import ir_measures  # noqa: PLC0415  the notebooks do not need it

    questions = _read_lines("questions.jsonl")
    answers = {line["question"]: {line["answer"]: 1} for line in questions}
    run = {question: _descending(search(question)) for question in answers}
    measures = {name: ir_measures.parse_measure(measure) for name, measure in MEASURES.items()}
    found = ir_measures.calc_aggregate([*measures.values()], answers, run)
    return {name: found[measure] for name, measure in measures.items()}


def table(framework: str, results: Mapping[str, Mapping[str, float]]) -> Table:
    rows = Table(title=f"{framework}: six questions, twelve passages", title_justify="left")
    rows.add_column("")
    for name in MEASURES:
        rows.add_column(name, justify="right")
    for name, measured in results.items():
        rows.add_row(name, *(f"{value:.3f}" for value in measured.values()))
    return rows


def _descending(ids: list[str]) -> dict[str, float]:
    """A score for each id that gives ir_measures this order: the first is the greatest."""
    return {id: -float(place) for place, id in enumerate(ids)}


def _read_lines(name: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (DATA / name).read_text(encoding="utf-8").splitlines()]


if __name__ == "__main__":
    raise SystemExit("Run langchain_before_after.py, llama_index_before_after.py or haystack_before_after.py instead.")
