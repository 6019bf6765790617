"""Scored pairs <-> Parquet files, each of which stands whole under its name or not at all."""

import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow
from pyarrow import parquet

from onelogit.bulk.input_rows import ScoringPair
from onelogit.bulk.scoring import Scored
from onelogit.errors import OnelogitError, first_line

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
    """Write a table. Who is killed meanwhile leaves nothing under the name, and who writes it again, the same.

    Raises:
        OnelogitError: it cannot be written.
    """
    with draft_of(path) as draft:
        parquet.write_table(table, draft, compression="zstd")
        _keep(draft)


@contextmanager
def draft_of(path: Path) -> Iterator[Path]:
    """Another name to write a file under, which it loses for its own once the block has ended.

    Raises:
        OnelogitError: it cannot be written.
    """
    draft = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        yield draft
        draft.replace(path)
    except (OSError, pyarrow.ArrowException) as error:
        said = error.strerror if isinstance(error, OSError) and error.strerror else first_line(error)
        raise OnelogitError(f"{path} cannot be written ({said}); once it can, run the same command again") from error
    finally:
        draft.unlink(missing_ok=True)


def _keep(path: Path) -> None:
    """Have the disk hold what is written: else a machine that goes down may keep the name and lose what it names."""
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
