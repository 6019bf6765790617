"""A model folder and a BEIR data set -> nDCG@10 of BM25's top 20 in BM25's order, random order and the model's order.

python tools/evaluate_demo.py --data ../shared/data/tydiqa-en-dev --model shared/src/onelogit/demo --write-card
"""

import argparse
import random
from collections.abc import Callable
from pathlib import Path

import ir_measures
from ir_measures import nDCG

from demo_data import DataSet, bm25_candidates, read_data_set
from onelogit import Reranker

CANDIDATES = 20
RANDOM_SEEDS = 20
BEGIN, END = "<!-- begin figures of {name} -->", "<!-- end figures of {name} -->"

Score = Callable[[str, list[str]], list[float]]
Run = dict[str, dict[str, float]]


def model_scorer(folder: Path) -> Score:
    """A function that scores one query's documents with the model."""
    return Reranker.load(folder, device="cpu", dtype="float32").logits


def rerank(data: DataSet, found: dict[str, list[str]], score: Score) -> Run:
    """The model's scores of each query's candidates."""
    run = {}
    for query_id, ids in found.items():
        scores = score(data.queries[query_id], [data.documents[key] for key in ids])
        run[query_id] = dict(zip(ids, scores, strict=True))
    return run


def shuffled(found: dict[str, list[str]], seed: int) -> Run:
    """Random scores of each query's candidates."""
    rng = random.Random(seed)
    return {query_id: {key: rng.random() for key in ids} for query_id, ids in found.items()}


def ndcg_at_10(data: DataSet, run: Run) -> float:
    """The mean over all queries; a query counts as zero if BM25 did not find its answer."""
    grades = {query_id: dict.fromkeys(ids, 1) for query_id, ids in data.answers.items()}
    return ir_measures.calc_aggregate([nDCG @ 10], grades, run)[nDCG @ 10]


def ndcg_by_order(data: DataSet, model: Path) -> dict[str, float]:
    """The nDCG@10 of three orders of the same candidates."""
    query_ids = list(data.queries)
    candidates = bm25_candidates([data.queries[key] for key in query_ids], data.documents, CANDIDATES)
    found = dict(zip(query_ids, candidates, strict=True))
    by_rank = {key: {other: -float(rank) for rank, other in enumerate(ids)} for key, ids in found.items()}
    random_order = [ndcg_at_10(data, shuffled(found, seed)) for seed in range(RANDOM_SEEDS)]
    return {
        "BM25": ndcg_at_10(data, by_rank),
        f"random order (mean of {RANDOM_SEEDS})": sum(random_order) / len(random_order),
        "this model": ndcg_at_10(data, rerank(data, found, model_scorer(model))),
    }


def table(name: str, count: int, results: dict[str, float]) -> str:
    """A Markdown table."""
    rows = [f"| order of BM25's top {CANDIDATES} | nDCG@10 on `{name}` ({count} queries) |", "|---|---|"]
    return "\n".join([*rows, *(f"| {system} | {value:.4f} |" for system, value in results.items())])


def write_card(card: Path, name: str, text: str) -> None:
    """Replace the text between this data set's two markers.

    Raises:
        ValueError: the card lacks one of them.
    """
    begin, end = (marker.format(name=name) for marker in (BEGIN, END))
    before, found_begin, rest = card.read_text(encoding="utf-8").partition(begin)
    _, found_end, after = rest.partition(end)
    if not (found_begin and found_end):
        raise ValueError(f"{card.name} lacks the lines {begin!r} and {end!r}; add them where the table belongs")
    card.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a data set in BEIR format")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--write-card", action="store_true", help="write the table to the model's README.md")
    arguments = parser.parse_args()
    data = read_data_set(arguments.data)
    text = table(arguments.data.name, len(data.queries), ndcg_by_order(data, arguments.model))
    print(text)
    if arguments.write_card:
        write_card(arguments.model / "README.md", arguments.data.name, text)


if __name__ == "__main__":
    main()
