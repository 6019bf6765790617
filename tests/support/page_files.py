"""A folder -> the files that pages for users take for granted, as their readers have them."""

import json
from pathlib import Path

import pyarrow
from pyarrow import parquet

from support.pages import ROOT
from support.tiny import causal_checkpoint

_DATA = ROOT / "examples" / "data"


def write_files(folder: Path) -> None:
    """Write a decoder, passages, labelled questions, queries with documents, and pairs; link the examples."""
    causal_checkpoint(folder / "my-model")
    (folder / "examples").symlink_to(ROOT / "examples")
    (folder / "passages.jsonl").write_bytes((_DATA / "passages.jsonl").read_bytes())
    (folder / "questions.jsonl").write_bytes((_DATA / "ko-en" / "questions.jsonl").read_bytes())
    questions = [json.loads(line) for line in (_DATA / "ko-en" / "questions.jsonl").read_text("utf-8").splitlines()]
    rows = [{name: each[name] for name in ("query_id", "query", "documents")} for each in questions]
    pairs = [{"query": each["query"], "document": text} for each in questions for text in each["documents"][:2]]
    parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "queries.parquet")
    for name, lines in {"queries.jsonl": rows, "pairs.jsonl": pairs}.items():
        (folder / name).write_text("".join(json.dumps(each) + "\n" for each in lines), encoding="utf-8")
