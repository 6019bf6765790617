"""Small labelled datasets, as files."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

CORPUS = {
    "d1": "The capital of China is Beijing.",
    "d2": "Paris is the capital of France.",
    "d3": "Bananas are yellow, and rich in potassium.",
    "d4": "서울은 대한민국의 수도이다.",
    "d5": "Beijing was the host of the games.",
    "d6": "Rome is the capital of Italy.",
}
QUERIES = {"q1": "What is the capital of China?", "q2": "Which fruit is yellow?", "q3": "Capital of Italy?"}
LABELS = {"q1": {"d1": 2, "d5": 1, "d2": 0}, "q2": {"d3": 1}, "q3": {"d6": 1}}


def write_lines(path: Path, rows: Sequence[object]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def write_beir(
    folder: Path,
    corpus: Mapping[str, str] = CORPUS,
    queries: Mapping[str, str] = QUERIES,
    labels: Mapping[str, Mapping[str, int]] = LABELS,
    fields: Mapping[str, Mapping[str, object]] | None = None,
) -> Path:
    """A folder in BEIR format; `fields` are further fields of each query."""
    write_lines(folder / "corpus.jsonl", [{"_id": id, "title": "", "text": text} for id, text in corpus.items()])
    more = {} if fields is None else fields
    rows = [{"_id": id, "text": text, **more.get(id, {})} for id, text in queries.items()]
    write_lines(folder / "queries.jsonl", rows)
    rows_of_labels = [f"{query}\t{id}\t{label}" for query, found in labels.items() for id, label in found.items()]
    (folder / "qrels").mkdir(exist_ok=True)
    text = "\n".join(["query-id\tcorpus-id\tscore", *rows_of_labels]) + "\n"
    (folder / "qrels" / "test.tsv").write_text(text, encoding="utf-8")
    return folder


def write_run(path: Path, found: Mapping[str, Sequence[str]]) -> Path:
    """A run in TREC format, best first."""
    lines = [f"{q} Q0 {id} {rank} {10 - rank} mine" for q, ids in found.items() for rank, id in enumerate(ids, 1)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def list_row(number: int = 0, **fields: object) -> dict[str, object]:
    """A JSONL row: a query with three documents, of which the second is relevant."""
    documents = ["Bananas are yellow.", "The capital of China is Beijing.", "Rome is old."]
    return {"query": f"Capital of China, {number}?", "documents": documents, "labels": [0, 1, 0], **fields}
