"""Scored pairs <-> Parquet files, each of which stands whole under its name or not at all."""

import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow
from pyarrow import parquet

from onelogit.bulk.input_rows import ScoringPair
from onelogit.bulk.scoring import Scored
from onelogit.errors import OnelogitError, first_line
from onelogit.io.atomic_write import atomic_file

WRITE_ADVICE = "; once it can, run the same command again"

# What is known of a pair once it is scored, and all that ranking needs.
SCORED = pyarrow.schema(
    [
        ("place", pyarrow.int64()),  # of the pair among all: ties are ranked by it
        ("query_id", pyarrow.string()),
        ("document_id", pyarrow.string()),
        ("query_check", pyarrow.uint32()),  # tells apart two queries of one id
        ("logit", pyarrow.float32()),
        ("score", pyarrow.float64()),
        ("error", pyarrow.string()),
    ]
)

RANKED = pyarrow.schema(
    [
        ("query_id", pyarrow.string()),
        ("document_id", pyarrow.string()),
        ("logit", pyarrow.float32()),
        ("score", pyarrow.float64()),
        ("rank", pyarrow.int32()),
        ("error", pyarrow.string()),
        ("model", pyarrow.string()),
    ]
)


def scored_table(pairs: Sequence[ScoringPair], scored: Sequence[Scored], places: Iterable[int]) -> Any:
    """Pairs with what became of them, as a table of the schema `SCORED`.

    Args:
        pairs: in any order.
        scored: for each pair.
        places: for each pair; in the tables of all whole queries, those of equal logits say which comes first.
    """
    rows = [
        (place, pair.query_id, pair.document_id, query_check(pair.query), *each)
        for pair, each, place in zip(pairs, scored, places, strict=True)
    ]
    columns = [[row[index] for row in rows] for index in range(len(SCORED))]
    arrays = [pyarrow.array(column, field.type) for column, field in zip(columns, SCORED, strict=True)]
    return pyarrow.table(arrays, SCORED)


def query_check(query: str) -> int:
    """A number that two different queries seldom share; 0 for none."""
    return zlib.crc32(query.encode())


def is_whole(path: Path) -> bool:
    """Whether a part can be read; a disk that filled up or a machine that went down may leave one that cannot."""
    try:
        parquet.read_metadata(path)
    except (OSError, pyarrow.ArrowException):
        return False
    return True


def row_count(path: Path, *, remove: Path | None = None) -> int:
    """The rows of a part.

    Args:
        path: of the part.
        remove: what is to be removed where it cannot be read; the part itself where left out.

    Raises:
        OnelogitError: it cannot be read.
    """
    with _told(path, path if remove is None else remove):
        return int(parquet.read_metadata(path).num_rows)


def read_part(path: Path, **options: Any) -> Any:
    """A part as a table, as pyarrow reads it with these options.

    Raises:
        OnelogitError: it cannot be read.
    """
    with _told(path, path):
        return parquet.read_table(path, **options)


@contextmanager
def _told(path: Path, remove: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, pyarrow.ArrowException) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the system's: the part may be whole
        raise OnelogitError(
            f"{path} is damaged ({first_line(error)}); remove {remove}, and run the same command again"
        ) from error


def write_part(table: Any, path: Path) -> None:
    """Write a table to a file that appears under its name only once it is complete; the same table gives the same file.

    Raises:
        OnelogitError: it cannot be written.
    """
    with atomic_file(path, OnelogitError, pyarrow.ArrowException, advice=WRITE_ADVICE) as temporary:
        parquet.write_table(table, temporary, compression="zstd")
