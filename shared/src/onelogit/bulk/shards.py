"""Input files -> shards: numbered ranges of rows, planned once, then read one by one."""

import codecs
import logging
import zlib
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, islice
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow
from pyarrow import parquet, types

from onelogit.bulk.beir_rows import BeirRows, Candidates, file_checksum
from onelogit.bulk.input_rows import REQUIRED_COLUMNS
from onelogit.errors import InputError, counted, first_line
from onelogit.io.file_forms import TABLE_SUFFIXES, opened, read_rows, suffix_of
from onelogit.io.lines import line_content, lines_of
from onelogit.io.text_fields import ROW_NAMES, UnreadFields, document_id_of, listed_documents, query_of, text_name_of
from onelogit.io.text_files import find_beir_file
from onelogit.validation import checked_path

logger = logging.getLogger(__name__)

_LINE_SUFFIXES = (".jsonl", ".ndjson")
_FOLDER_SUFFIXES = (".parquet", *_LINE_SUFFIXES, *TABLE_SUFFIXES)
_SUFFIXES = (*_FOLDER_SUFFIXES, ".json")  # in a folder, .json files usually describe the others
_READ_ERRORS = (OSError, EOFError, zlib.error, pyarrow.ArrowException)
_MAX_SHARD_BYTES = 4 * 2**20  # of text: about 8,000 documents


class Shard(NamedTuple):
    """Consecutive rows of a file, which are scored together and written as one part file.

    Attributes:
        number: position among all shards of the input, from 0.
        file: path of the file.
        start: index of the first row, from 0; blank lines of a JSONL file are not counted.
        rows: number of rows.
        offset: of the first row in the unzipped file, in bytes; 0 for a Parquet file or a folder in BEIR format.
        run, split: as in `Candidates`, for a folder in BEIR format; "" for None.
        is_read_whole: the file is read into memory, because its rows have no offsets: a CSV or TSV file, an array, or
            objects in several lines.
    """

    number: int
    file: str
    start: int
    rows: int
    offset: int = 0
    run: str = ""
    split: str = ""
    is_read_whole: bool = False

    @property
    def candidates(self) -> Candidates:
        """Where the documents of a folder in BEIR format come from."""
        return Candidates(Path(self.run) if self.run else None, self.split or None)


class ShardPlan(NamedTuple):
    """All shards of an input with this name; `digest` identifies the names and contents of its files."""

    shards: list[Shard]
    digest: str
    name: str = "the input"

    @property
    def row_count(self) -> int:
        """The number of rows in all shards."""
        return sum(shard.rows for shard in self.shards)


def plan_shards(path: Path, slice_rows: int, candidates: Candidates | None = None) -> ShardPlan:
    """The shards of a file, or of all files in a folder in the order of their names.

    Args:
        path: a Parquet, JSONL, CSV or TSV file, or a folder of them; names that begin with "." or "_" are ignored. A
            JSON file is read, too, but not in a folder. Or a folder in BEIR format, which has corpus.jsonl.
        slice_rows: the maximum number of rows in a shard; shards of long rows are smaller.
        candidates: only for a folder in BEIR format.

    Raises:
        InputError: the input does not exist, cannot be read, or contains no rows.
    """
    if path.is_dir() and find_beir_file(path, "corpus.jsonl") is not None:
        return _plan_beir(path.absolute(), slice_rows, candidates or Candidates())
    if candidates is not None:
        raise InputError(f"--run and --split need a folder in BEIR format, which has corpus.jsonl; {path} is none")
    shards: list[Shard] = []
    digest = 0
    for file in _input_files(path):
        try:
            found, checksum = _plan_file(file, slice_rows)
        except _READ_ERRORS as error:
            raise InputError(f"{file} cannot be read: {first_line(error)}") from error
        shards += [shard._replace(number=number) for number, shard in enumerate(found, start=len(shards))]
        digest = zlib.crc32(f"{file.name} {checksum}".encode(), digest)
    if not shards:
        raise InputError(f"{path} contains no rows")
    return ShardPlan(shards, f"{digest:08x}", path.name)


def _plan_beir(folder: Path, slice_rows: int, candidates: Candidates) -> ShardPlan:
    run = None if candidates.run is None else checked_path(candidates.run).absolute()
    beir = BeirRows(folder, Candidates(run, candidates.split), is_logging=True)
    sizes = beir.shard_sizes(slice_rows, _MAX_SHARD_BYTES)
    starts = accumulate(sizes, initial=0)
    shards = [
        Shard(number, str(folder), start, rows, run=str(run or ""), split=candidates.split or "")
        for number, (start, rows) in enumerate(zip(starts, sizes, strict=False))
    ]
    return ShardPlan(shards, f"{beir.checksum():08x}", folder.name)


def _input_files(path: Path) -> list[Path]:
    if path.is_dir():
        folder = path.absolute()
        files = sorted(file for file in folder.rglob("*") if file.is_file())
        visible = [file for file in files if all(part[0] not in "._" for part in file.relative_to(folder).parts)]
        found = [file for file in visible if suffix_of(file.name) in _FOLDER_SUFFIXES]
        if beir := next((file.parent for file in found if find_beir_file(file.parent, "corpus.jsonl")), None):
            raise InputError(f"{path} contains a folder in BEIR format, {beir}; name this folder as the input")
        if others := [file.name for file in visible if file not in found]:
            unread = "file with another ending is" if len(others) == 1 else "files with other endings are"
            logger.warning("%s: %d %s not read, such as %s", path, len(others), unread, others[0])
        return found
    if not path.is_file():
        raise InputError(f"there is no file or folder {str(path)!r}")
    if suffix_of(path.name) not in _SUFFIXES:
        raise InputError(f"{path} has none of the endings {', '.join(_SUFFIXES)}, which tell how to read its rows")
    return [path.absolute()]


def _plan_file(file: Path, slice_rows: int) -> tuple[list[Shard], int]:
    if suffix_of(file.name) == ".parquet":
        return _plan_parquet(file, slice_rows)
    if suffix_of(file.name) not in _LINE_SUFFIXES or _spans_lines(file):
        return _plan_whole(file, slice_rows)
    return _plan_jsonl(file, slice_rows)


def _plan_parquet(file: Path, slice_rows: int) -> tuple[list[Shard], int]:
    metadata = parquet.read_metadata(file)
    schema = metadata.schema.to_arrow_schema()
    has_lists = _check_columns(file, schema.names)
    row_count = metadata.num_rows
    other = {each.name for each in schema if each.name not in ROW_NAMES and (not has_lists or _is_list(each.type))}
    UnreadFields(dict.fromkeys(other - {"labels", "changed_labels"}, row_count)).report(file)
    total_bytes = sum(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))
    rows = max(1, min(slice_rows, _MAX_SHARD_BYTES * row_count // max(total_bytes, 1)))
    shards = [Shard(0, str(file), start, min(rows, row_count - start)) for start in range(0, row_count, rows)]
    return shards, file_checksum(file)


def _is_list(kind: Any) -> bool:
    return any(is_kind(kind) for is_kind in (types.is_list, types.is_large_list, types.is_fixed_size_list))


def _plan_jsonl(file: Path, slice_rows: int) -> tuple[list[Shard], int]:
    shards: list[Shard] = []
    checksum = end = offset = start = rows = 0
    with opened(file) as stream:
        for line in stream:
            if rows == slice_rows or (rows and end + len(line) - offset > _MAX_SHARD_BYTES):
                shards.append(Shard(0, str(file), start, rows, offset))
                start, rows, offset = start + rows, 0, end
            end += len(line)
            rows += bool(line_content(line).strip())
            checksum = zlib.crc32(line, checksum)
    if rows:
        shards.append(Shard(0, str(file), start, rows, offset))
    return shards, checksum


def _spans_lines(file: Path) -> bool:
    """Whether a file is not JSONL, but an array, begins with an object in several lines, or is UTF-16."""
    with opened(file) as stream:
        first = next((line for line in stream if line_content(line).strip()), b"")
    content = line_content(first).strip()
    return content == b"{" or content.startswith(b"[") or first.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))


def _plan_whole(file: Path, slice_rows: int) -> tuple[list[Shard], int]:
    rows = _whole_rows(file)
    if suffix_of(file.name) in TABLE_SUFFIXES:
        _check_columns(file, next(([*row] for row in rows if isinstance(row, Mapping)), []))
    total_bytes = sum(len(str(row)) for row in rows)
    size = max(1, min(slice_rows, _MAX_SHARD_BYTES * len(rows) // max(total_bytes, 1)))
    starts = range(0, len(rows), size)
    shards = [Shard(0, str(file), start, min(size, len(rows) - start), is_read_whole=True) for start in starts]
    return shards, file_checksum(file)


def _whole_rows(file: Path) -> list[object]:
    """All rows of a file; an InputError instead of a row that cannot be read."""
    rows: list[object] = []
    for row in read_rows(file):
        try:
            rows.append(row.fields())
        except InputError as error:
            rows.append(error)
    return rows


def _check_columns(file: Path, names: Sequence[str]) -> bool:
    """Whether the rows of a table have lists of documents; raises InputError if a column is missing."""
    columns = dict.fromkeys(names, True)  # a row in which no column is null
    has_lists = listed_documents(columns) is not None
    has_pairs = text_name_of(columns) is not None and document_id_of(columns) is not None
    if query_of(columns).text is None or not (has_lists or has_pairs):
        raise InputError(f"{file} has the columns {', '.join(sorted(names))}; it needs {REQUIRED_COLUMNS}")
    return has_lists


class ShardReader:
    """Reads shards of any files; shards of a file in ascending order take one pass over it. Not thread-safe."""

    def __init__(self) -> None:
        self._parquet: _ParquetRows | None = None
        self._beir: tuple[tuple[str, Candidates], BeirRows] | None = None
        self._whole: tuple[str, list[object]] | None = None

    def rows(self, shard: Shard) -> list[object]:
        """The rows of a shard, for `pairs_of`; an InputError instead of a line that is not a JSON object.

        Raises:
            InputError: the file has changed since the shards were planned, or cannot be read.
        """
        try:
            if Path(shard.file).is_dir():
                rows = self._beir_rows(shard)
            elif shard.is_read_whole:
                rows = self._whole_file(shard.file)[shard.start :][: shard.rows]
            elif suffix_of(shard.file) != ".parquet":
                rows = list(_jsonl_rows(shard))
            else:
                if self._parquet is None or not self._parquet.is_before(shard):
                    self._parquet = _ParquetRows(shard)
                rows = self._parquet.read(shard)
        except _READ_ERRORS as error:
            raise InputError(f"{shard.file} cannot be read: {first_line(error)}") from error
        if len(rows) != shard.rows:
            raise InputError(f"{shard.file} has changed: {counted(len(rows), 'row')} instead of {shard.rows}")
        return rows

    def _whole_file(self, file: str) -> list[object]:
        if self._whole is None or self._whole[0] != file:
            self._whole = file, _whole_rows(Path(file))
        return self._whole[1]

    def _beir_rows(self, shard: Shard) -> list[object]:
        key = (shard.file, shard.candidates)
        if self._beir is None or self._beir[0] != key:
            self._beir = key, BeirRows(Path(shard.file), shard.candidates)
        return self._beir[1].rows(shard.start, shard.rows)


def _jsonl_rows(shard: Shard) -> Iterator[object]:
    with opened(shard.file) as stream:
        stream.seek(shard.offset)  # in a gzipped file, this unzips everything before it again
        for line in islice(lines_of(stream, shard.file), shard.rows):
            try:
                yield line.fields()
            except InputError as error:
                yield error


class _ParquetRows:
    """A Parquet file, read forwards from a shard's first row group, with the rows of one shard in memory."""

    def __init__(self, shard: Shard) -> None:
        file = parquet.ParquetFile(shard.file, pre_buffer=False)
        group_ends = [*accumulate(file.metadata.row_group(group).num_rows for group in range(file.num_row_groups))]
        group = bisect_right(group_ends, shard.start)
        self._path = shard.file
        self._next_row = group_ends[group - 1] if group else 0
        columns = [name for name in file.schema_arrow.names if name in ROW_NAMES]
        self._batches: Iterator[Any] = file.iter_batches(shard.rows, range(group, len(group_ends)), columns)
        self._remaining: Any = None  # read from the file, but not returned yet

    def is_before(self, shard: Shard) -> bool:
        """Whether the shard's rows have not been passed yet."""
        return shard.file == self._path and shard.start >= self._next_row

    def read(self, shard: Shard) -> list[object]:
        """The rows of a shard; the rows before it are skipped."""
        rows: list[object] = []
        while len(rows) < shard.rows:
            if self._remaining is None or not self._remaining.num_rows:
                self._remaining = next(self._batches, None)
            if self._remaining is None:
                break
            skipped = min(shard.start + len(rows) - self._next_row, self._remaining.num_rows)
            taken = self._remaining.slice(skipped, shard.rows - len(rows))
            rows += taken.to_pylist()
            self._remaining = self._remaining.slice(skipped + taken.num_rows)
            self._next_row += skipped + taken.num_rows
        return rows
