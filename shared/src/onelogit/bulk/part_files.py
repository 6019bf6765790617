"""Tables of scored or ranked pairs <-> Parquet files."""

import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow
from pyarrow import parquet

from onelogit.bulk.input_rows import ScoringPair
from onelogit.bulk.scoring import PairResult
from onelogit.errors import OnelogitError, first_line
from onelogit.io.atomic_write import atomic_file

WRITE_ADVICE = "; once it can, run the same command again"

# A scored pair, with all columns that ranking needs.
SCORED = pyarrow.schema({
    "place": "int64",  # position among all pairs; the order of equal logits
    "query_id": "string",
    "document_id": "string",
    "query_check": "uint32",  # detects two queries with one id
    "logit": "float32",
    "score": "float64",
    "error": "string",
})  # fmt: skip
RANKED = pyarrow.schema({
    "query_id": "string", "document_id": "string", "logit": "float32", "score": "float64", "rank": "int32",
    "error": "string", "model": "string",
})  # fmt: skip


def scored_table(pairs: Sequence[ScoringPair], results: Sequence[PairResult], positions: Iterable[int]) -> Any:
    """A table with the schema `SCORED`: pairs in any order, each with its result and its position.

    Of equal logits in a query, the one with the lower position ranks first.
    """
    rows = [
        (position, pair.query_id, pair.document_id, zlib.crc32(pair.query.encode()), *result)
        for pair, result, position in zip(pairs, results, positions, strict=True)
    ]
    columns = zip(*rows, strict=True) if rows else [[]] * len(SCORED)
    arrays = [pyarrow.array(column, field.type) for column, field in zip(columns, SCORED, strict=True)]
    return pyarrow.table(arrays, SCORED)


def is_scored(path: Path) -> bool:
    """Whether a file has scored pairs and is complete; a full disk or a power failure may leave an incomplete one."""
    try:
        return bool(parquet.read_schema(path).equals(SCORED))
    except (OSError, pyarrow.ArrowException):
        return False


def row_count(path: Path, *, remove: Path | None = None) -> int:
    """The number of rows of a part file.

    Raises:
        OnelogitError: it cannot be read; the message advises to remove `remove`, by default the file itself.
    """
    with _damage_reported(path, remove or path):
        return int(parquet.read_metadata(path).num_rows)


def read_part(path: Path, **options: Any) -> Any:
    """A part file as a table, read by pyarrow with the given options.

    Raises:
        OnelogitError: it cannot be read.
    """
    with _damage_reported(path, path):
        return parquet.read_table(path, **options)


@contextmanager
def _damage_reported(path: Path, remove: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, pyarrow.ArrowException) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # a system error, so the file may be complete
        raise OnelogitError(
            f"{path} is damaged ({first_line(error)}); remove {remove}, and run the same command again"
        ) from error


def write_part(table: Any, path: Path) -> None:
    """Write a table to a file that appears only once it is complete. Equal tables give equal files.

    Raises:
        OnelogitError: it cannot be written.
    """
    with atomic_file(path, OnelogitError, pyarrow.ArrowException, advice=WRITE_ADVICE) as temporary:
        parquet.write_table(table, temporary, compression="zstd")
