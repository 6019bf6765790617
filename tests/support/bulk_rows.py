"""Rows, files of rows, engines and expected results for the tests of bulk runs."""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from pyarrow import Table, parquet

from onelogit import Reranker
from onelogit.bulk.job import BulkEngine, ShardResult, WorkerSpec, score_in_process
from onelogit.bulk.part_files import SCORED
from onelogit.bulk.shards import Shard
from onelogit.cli.main import main

Row = dict[str, Any]


def query_rows(queries: int, documents: int, words: int = 3) -> list[Row]:
    """Rows with lists of different documents."""
    return [
        {
            "query_id": f"q{query}",
            "query": f"what is {query}?",
            "documents": [f"{query} {'word ' * (words + document % 3)}{document}" for document in range(documents)],
        }
        for query in range(queries)
    ]


ROWS = query_rows(5, 4)


def pair_rows(rows: Iterable[Row]) -> list[Row]:
    """The same pairs, one in each row; the pairs of a query are far apart."""
    pairs = [
        {"query_id": row["query_id"], "document_id": str(index), "query": row["query"], "document": document}
        for row in rows
        for index, document in enumerate(row["documents"])
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
    """Query, document, rank and logit, as the reranker itself ranks them."""
    return [
        (row["query_id"], str(ranked.index), rank, pytest.approx(ranked.logit, abs=1e-5))
        for row in rows
        for rank, ranked in enumerate(reranker.rank(row["query"], row["documents"]), start=1)
    ]


def ranking(rows: Iterable[Row]) -> list[tuple[Any, ...]]:
    return [(row["query_id"], row["document_id"], row["rank"], row["logit"]) for row in rows]


def scored_table_of(rows: Sequence[tuple[Any, ...]]) -> Table:
    """A table with the schema SCORED; rows without a place get theirs in the sequence."""
    names = [field.name for field in SCORED]
    whole = [(place, *row) if len(row) == 6 else row for place, row in enumerate(rows)]
    return Table.from_pylist([dict(zip(names, row, strict=True)) for row in whole], SCORED)


def recording_engine(numbers: list[int]) -> BulkEngine:
    """The engine without Ray, which records the numbers of the shards that it is asked to score."""

    def engine(spec: WorkerSpec, shards: Sequence[Shard]) -> Iterator[ShardResult]:
        numbers.extend(shard.number for shard in shards)
        return score_in_process(spec, shards)

    return engine


def bulk_command(*arguments: object) -> int:
    """The exit code of `onelogit bulk`."""
    return main(["bulk", *map(str, arguments)])


def wait_until(condition: Callable[[], object], timeout_s: float = 60) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)
