"""Scored pairs, in any order -> each query's documents from best to worst. Sorted by the core's own ranking."""

import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow
from pyarrow import compute, parquet

from onelogit.bulk.part_files import RANKED, SCORED, read_part
from onelogit.ranking import rank_logits

_PAIRS_TOGETHER = 500_000  # ranked in memory at once, but a query's all
_MOST_GROUPS = 500  # files that a process may well have open


class _Row(NamedTuple):
    number: int
    document_id: str | None
    query_check: int
    logit: float | None
    error: str | None


class _Placed(NamedTuple):
    number: int
    rank: int | None
    error: str | None


def rank_table(table: Any, model: str) -> Any:
    """The pairs of whole queries, ranked.

    Args:
        table: of the schema `SCORED`, in any order.
        model: for the column of that name.

    Returns:
        Of the schema `RANKED`: queries in the order of their first pairs, each with its documents from best to worst,
        and then those with errors. A document that has been there before in its query, or comes with another text of
        the query, is an error, too.
    """
    table = table.sort_by([("place", "ascending"), ("document_id", "ascending")])
    names = ("document_id", "query_check", "logit", "error")
    columns = zip(*(table[name].to_pylist() for name in names), strict=True)
    queries: dict[str | None, list[_Row]] = {}
    for number, (query_id, values) in enumerate(zip(table["query_id"].to_pylist(), columns, strict=True)):
        queries.setdefault(query_id, []).append(_Row(number, *values))
    placed = [each for rows in queries.values() for each in _placed(rows)]
    return _in_order(table, placed, model)


def _placed(rows: Sequence[_Row]) -> list[_Placed]:
    checked = _checked(rows)
    fit = [row for row in checked if row.error is None]
    ranking = rank_logits([row.logit for row in fit if row.logit is not None], "identity")
    best = [_Placed(fit[ranked.index].number, rank, None) for rank, ranked in enumerate(ranking, start=1)]
    return [*best, *(_Placed(row.number, None, row.error) for row in checked if row.error is not None)]


def _checked(rows: Sequence[_Row]) -> list[_Row]:
    """The rows, with an error in those that contradict an earlier one."""
    seen: set[str | None] = set()
    checks = [row.query_check for row in rows if row.error is None]
    checked = []
    for row in rows:
        error = row.error
        if error is None and row.query_check != checks[0]:
            error = "this query_id stands for another query in an earlier row"
        if error is None and row.document_id in seen:
            error = "this document_id stands for another document of the query in an earlier row"
        if error is None:
            seen.add(row.document_id)
        checked.append(row._replace(error=error))
    return checked


def _in_order(table: Any, placed: Sequence[_Placed], model: str) -> Any:
    taken = table.take(pyarrow.array([each.number for each in placed], pyarrow.int64()))
    errors = pyarrow.array([each.error for each in placed], pyarrow.string())
    is_fine = compute.is_null(errors)
    columns = {
        "query_id": taken["query_id"],
        "document_id": taken["document_id"],
        "logit": compute.if_else(is_fine, taken["logit"], None),
        "score": compute.if_else(is_fine, taken["score"], None),
        "rank": pyarrow.array([each.rank for each in placed], pyarrow.int32()),
        "error": errors,
        "model": pyarrow.array([model] * len(placed), pyarrow.string()),
    }
    return pyarrow.table(columns, RANKED)


def grouped_tables(parts: Sequence[Path], folder: Path, pair_count: int) -> Iterator[Any]:
    """The rows of all parts in tables that hold queries whole; always the same ones for the same parts.

    Args:
        parts: of the schema `SCORED`.
        folder: for what does not fit in memory; empty.
        pair_count: the rows of all parts.
    """
    count = min(_MOST_GROUPS, max(1, -(-pair_count // _PAIRS_TOGETHER)))
    if count == 1:
        yield pyarrow.concat_tables(read_part(part, schema=SCORED) for part in parts)
        return
    files = [folder / f"{group:03}.parquet" for group in range(count)]
    with ExitStack() as stack:
        writers = [stack.enter_context(parquet.ParquetWriter(file, SCORED)) for file in files]
        for part in parts:
            _distribute(read_part(part, schema=SCORED), writers)
    for file in files:
        yield read_part(file, schema=SCORED)


def _distribute(table: Any, writers: Sequence[Any]) -> None:
    """Add each row to the group of its query."""
    groups = pyarrow.array([zlib.crc32((id or "").encode()) % len(writers) for id in table["query_id"].to_pylist()])
    for group in compute.unique(groups).to_pylist():
        writers[group].write_table(table.filter(compute.equal(groups, group)))
