"""The input -> slices: numbered stretches of rows, planned once, and read one by one."""

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow
from pyarrow import parquet

from onelogit.bulk.input_rows import COLUMNS, NEEDED
from onelogit.errors import InputError, first_line
from onelogit.io.text_files import TextLine, opened

KINDS = (".parquet", ".jsonl", ".jsonl.gz")
_UNREADABLE = (OSError, EOFError, zlib.error, pyarrow.ArrowException)
_SHARD_BYTES = 4 * 2**20  # of text, some 8,000 passages


class Shard(NamedTuple):
    """Some rows of a file that follow each other: what is scored in one sitting and written as one part.

    Attributes:
        number: of the slice, in the order of the input.
        file: its path.
        start: the first row, from 0; blank lines of a JSONL file are none.
        rows: how many.
        offset: of the first row in bytes, unzipped; 0 for a Parquet file.
    """

    number: int
    file: str
    start: int
    rows: int
    offset: int = 0


class Plan(NamedTuple):
    """All slices of an input; `digest` tells inputs apart by name, size and content."""

    shards: list[Shard]
    digest: str

    @property
    def row_count(self) -> int:
        """The rows of all slices."""
        return sum(each.rows for each in self.shards)


class _Stretch(NamedTuple):
    start: int
    rows: int
    offset: int = 0


def plan_shards(path: Path, slice_rows: int) -> Plan:
    """The slices of a file, or of all files in a folder in the order of their names.

    Args:
        path: of a .parquet, .jsonl or .jsonl.gz file, or a folder of them; names that begin with "." or "_" are passed
            over.
        slice_rows: the most rows in a slice; fewer where they are long.

    Raises:
        InputError: there is no such input, it cannot be read, or it holds no rows.
    """
    shards: list[Shard] = []
    digest = 0
    for file in _files(path):
        try:
            stretches, check = (_parquet_stretches if _is_parquet(file) else _jsonl_stretches)(file, slice_rows)
        except _UNREADABLE as error:
            raise InputError(f"{file} cannot be read: {first_line(error)}") from error
        shards += [Shard(number, str(file), *each) for number, each in enumerate(stretches, start=len(shards))]
        digest = zlib.crc32(f"{file.name} {check}".encode(), digest)
    if not shards:
        raise InputError(f"{path} holds no rows")
    return Plan(shards, f"{digest:08x}")


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        if not path.is_file():
            raise InputError(f"there is no file or folder {str(path)!r}")
        if not path.name.endswith(KINDS):
            raise InputError(f"{path} is neither {' nor '.join(KINDS)}")
        return [path.absolute()]
    found = [file for kind in KINDS for file in path.absolute().rglob(f"*{kind}")]
    is_hidden = {file: any(part[0] in "._" for part in file.relative_to(path.absolute()).parts) for file in found}
    return sorted(file for file in found if file.is_file() and not is_hidden[file])


def _is_parquet(file: Path) -> bool:
    return file.suffix == ".parquet"


def _parquet_stretches(file: Path, slice_rows: int) -> tuple[list[_Stretch], int]:
    facts = parquet.read_metadata(file)
    _check_columns(file, {*facts.schema.to_arrow_schema().names})
    total_bytes = sum(facts.row_group(group).total_byte_size for group in range(facts.num_row_groups))
    rows = max(1, min(slice_rows, _SHARD_BYTES * facts.num_rows // max(total_bytes, 1)))
    stretches = [_Stretch(start, min(rows, facts.num_rows - start)) for start in range(0, facts.num_rows, rows)]
    check = 0
    with file.open("rb") as stream:
        while block := stream.read(2**20):
            check = zlib.crc32(block, check)
    return stretches, check


def _check_columns(file: Path, names: set[str]) -> None:
    if not (names >= {"query_id", "query"} and ("documents" in names or names >= {"document_id", "document"})):
        raise InputError(f"{file} has the columns {', '.join(sorted(names))}; it needs {NEEDED}")


def _jsonl_stretches(file: Path, slice_rows: int) -> tuple[list[_Stretch], int]:
    stretches: list[_Stretch] = []
    check = end = offset = start = rows = 0
    with opened(file) as stream:
        for line in stream:
            if rows == slice_rows or (rows and end + len(line) - offset > _SHARD_BYTES):
                stretches.append(_Stretch(start, rows, offset))
                start, rows, offset = start + rows, 0, end
            end += len(line)
            rows += bool(line.strip())
            check = zlib.crc32(line, check)
    return [*stretches, *([_Stretch(start, rows, offset)] if rows else [])], check


class ShardReader:
    """Reads slices of any files; slices of one file in ascending order take one pass over it. For one thread."""

    def __init__(self) -> None:
        self._table: _Table | None = None

    def rows(self, part: Shard) -> list[object]:
        """The rows of a slice, as `pairs_of` takes them; a line that is not JSON is an InputError in their list.

        Raises:
            InputError: the file is not what it was when the slices were planned.
        """
        try:
            rows = self._table_of(part).rows(part) if _is_parquet(Path(part.file)) else list(_lines(part))
        except _UNREADABLE as error:
            raise InputError(f"{part.file} cannot be read: {first_line(error)}") from error
        if len(rows) != part.rows:
            raise InputError(f"{part.file} has changed: {len(rows)} rows where {part.rows} were planned")
        return rows

    def _table_of(self, part: Shard) -> "_Table":
        if self._table is None or not self._table.is_ahead(part):
            self._table = _Table(part)
        return self._table


def _lines(part: Shard) -> Iterator[object]:
    with opened(part.file) as stream:
        stream.seek(part.offset)  # of a gzipped file, all that stands before it is unzipped again
        count = 0
        while count < part.rows and (line := stream.readline()):
            if line.strip():
                count += 1
                yield _row(TextLine("", line.removeprefix(b"\xef\xbb\xbf")))


def _row(line: TextLine) -> object:
    try:
        return line.fields()
    except InputError as error:
        return error


class _Table:
    """A Parquet file that is read forwards, from the row group of a slice on: no more of it in memory than a slice."""

    def __init__(self, part: Shard) -> None:
        file = parquet.ParquetFile(part.file, pre_buffer=False)
        ends, end = [], 0
        for group in range(file.num_row_groups):
            end += file.metadata.row_group(group).num_rows
            ends.append(end)
        first = next((group for group, end in enumerate(ends) if part.start < end), len(ends))
        self._path = part.file
        self._place = ends[first - 1] if first else 0  # of the first row that is not read yet
        columns = [name for name in COLUMNS if name in file.schema_arrow.names]
        self._batches: Iterator[Any] = file.iter_batches(part.rows, range(first, len(ends)), columns)
        self._left: Any = None  # what is read, but not asked for yet

    def is_ahead(self, part: Shard) -> bool:
        """Whether the slice is still to come."""
        return part.file == self._path and part.start >= self._place

    def rows(self, part: Shard) -> list[object]:
        """The rows of a slice; what stands before it is passed over."""
        rows: list[object] = []
        while len(rows) < part.rows:
            if self._left is None or not self._left.num_rows:
                self._left = next(self._batches, None)
            if self._left is None:
                break
            skipped = min(part.start + len(rows) - self._place, self._left.num_rows)
            taken = self._left.slice(skipped, part.rows - len(rows))
            rows += taken.to_pylist()
            self._left = self._left.slice(skipped + taken.num_rows)
            self._place += skipped + taken.num_rows
        return rows
