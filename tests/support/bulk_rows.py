"""What the tests of bulk jobs share: rows, files of them, and what has to come out."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from pyarrow import Table, parquet

from onelogit import Reranker

Row = dict[str, Any]


def query_rows(queries: int, documents: int, words: int = 3) -> list[Row]:
    """Rows with lists of documents, all of them different."""
    return [
        {
            "query_id": f"q{query}",
            "query": f"what is {query}?",
            "documents": [f"{query} {'word ' * (words + document % 3)}{document}" for document in range(documents)],
        }
        for query in range(queries)
    ]


def pair_rows(rows: Iterable[Row]) -> list[Row]:
    """The same, a row for each pair; a query's pairs stand far apart."""
    pairs = [
        {"query_id": row["query_id"], "document_id": str(place), "query": row["query"], "document": document}
        for row in rows
        for place, document in enumerate(row["documents"])
    ]
    return [*pairs[::2], *pairs[1::2]]


def write_jsonl(path: Path, rows: Iterable[object]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_parquet(path: Path, rows: Iterable[Row], **options: Any) -> Path:
    parquet.write_table(Table.from_pylist(list(rows)), path, **options)
    return path


def results(folder: Path) -> list[Row]:
    return parquet.read_table(folder).to_pylist()


def expected_results(reranker: Reranker, rows: Iterable[Mapping[str, Any]]) -> list[tuple[Any, ...]]:
    """Query, document, rank and logit as the reranker itself ranks them."""
    return [
        (row["query_id"], str(ranked.index), rank, pytest.approx(ranked.logit, abs=1e-5))
        for row in rows
        for rank, ranked in enumerate(reranker.rank(row["query"], row["documents"]), start=1)
    ]


def ranking(rows: Iterable[Row]) -> list[tuple[Any, ...]]:
    return [(row["query_id"], row["document_id"], row["rank"], row["logit"]) for row in rows]
