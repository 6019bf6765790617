"""Scored pairs in any order -> the documents of each query from best to worst, as `onelogit.ranking` sorts them."""

import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow
from pyarrow import compute, parquet

from onelogit.bulk.part_files import RANKED, SCORED, read_part
from onelogit.ranking import rank_logits

_PAIRS_PER_TABLE = 500_000  # ranked in memory at once; more if a single query has more
_MAX_TABLES = 500  # each is an open file


def rank_table(table: Any, model: str) -> Any:
    """Rank the pairs of whole queries.

    Args:
        table: with the schema `SCORED`, in any order.
        model: value of the column `model`.

    Returns:
        A table with the schema `RANKED`: queries in the order of their first pairs, each with its documents from best
        to worst, then its pairs with errors. A repeated document_id in a query, or a query_id whose query differs from
        its first one, is an error, too.
    """
    table = table.sort_by([("place", "ascending"), ("document_id", "ascending")])
    rows_by_query: dict[str | None, list[int]] = {}
    for row, query_id in enumerate(table["query_id"].to_pylist()):
        rows_by_query.setdefault(query_id, []).append(row)
    errors = _errors(table, rows_by_query.values())
    logits = table["logit"].to_pylist()
    order: list[int] = []
    ranks: list[int | None] = []
    for rows in rows_by_query.values():
        valid = [row for row in rows if errors[row] is None]
        order += [valid[ranked.index] for ranked in rank_logits([logits[row] for row in valid], "identity")]
        order += [row for row in rows if errors[row] is not None]
        ranks += [*range(1, len(valid) + 1), *[None] * (len(rows) - len(valid))]
    sorted_table = table.take(pyarrow.array(order, pyarrow.int64()))
    error_column = pyarrow.array([errors[row] for row in order], pyarrow.string())
    columns = {
        "query_id": sorted_table["query_id"],
        "document_id": sorted_table["document_id"],
        **{
            name: compute.if_else(compute.is_null(error_column), sorted_table[name], None)
            for name in ("logit", "score")
        },
        "rank": pyarrow.array(ranks, pyarrow.int32()),
        "error": error_column,
        "model": pyarrow.array([model] * len(order), pyarrow.string()),
    }
    return pyarrow.table(columns, RANKED)


def _errors(table: Any, queries: Iterable[Sequence[int]]) -> list[str | None]:
    """The error of each row, including contradictions to an earlier row of the same query."""
    errors: list[str | None] = table["error"].to_pylist()
    document_ids, query_checks = table["document_id"].to_pylist(), table["query_check"].to_pylist()
    for rows in queries:
        valid = [row for row in rows if errors[row] is None]
        seen: set[str | None] = set()
        for row in valid:
            if query_checks[row] != query_checks[valid[0]]:
                errors[row] = "this query_id has another query in an earlier row"
            elif document_ids[row] in seen:
                errors[row] = "this document_id is in an earlier row of the query, too"
            else:
                seen.add(document_ids[row])
    return errors


def grouped_tables(parts: Sequence[Path], folder: Path, pair_count: int) -> Iterator[Any]:
    """The rows of all parts, in tables that contain whole queries; the same parts give the same tables.

    The parts have the schema `SCORED`, and `pair_count` rows. If these do not fit in memory, temporary files are
    written to the folder, which is empty.
    """
    count = min(_MAX_TABLES, max(1, -(-pair_count // _PAIRS_PER_TABLE)))
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
    """Append each row to the file of its query."""
    groups = pyarrow.array([zlib.crc32((id or "").encode()) % len(writers) for id in table["query_id"].to_pylist()])
    for group in compute.unique(groups).to_pylist():
        writers[group].write_table(table.filter(compute.equal(groups, group)))
