"""A plain or gzipped file, or stdin -> its form and its lines: JSON, the rows of a table, or plain text."""

import gzip
import os
import re
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Literal, NamedTuple, cast

from onelogit.errors import InputError
from onelogit.io.encodings import as_utf8, decoded, with_first
from onelogit.io.lines import TextLine, lines_of, object_lines
from onelogit.io.table_rows import TableRow, TextTable, is_header, parquet_table, separated_table
from onelogit.validation import checked_path

STDIN = "-"
JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")
TSV_SUFFIXES = (".tsv", ".tab")
TABLE_SUFFIXES = (".csv", *TSV_SUFFIXES)
LINES_SUFFIXES = ("", ".txt", ".text")
_GZIP = b"\x1f\x8b"
_MARKUP_SUFFIXES = (".html", ".htm", ".xhtml", ".xml", ".rtf")
_JSON_START = re.compile(r'\s*(\{\s*["}]|\{\s*$|\[\s*([{\]]|".*[",\]]\s*$|$))')  # also matches invalid JSON


class FileContent(NamedTuple):
    """The content of a file or of stdin.

    Attributes:
        path, name: of the file; the name is for messages.
        suffix: of the name, in lower case, without ".gz".
        form: of the content.
        lines: in UTF-8, with their endings; none of a Parquet file.
    """

    path: str | os.PathLike[str]
    name: str
    suffix: str
    form: Literal["JSON", "table", "text"]
    lines: Iterator[bytes]


@contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """The content of a file, unzipped if it is gzipped."""
    with Path(path).open("rb") as raw:
        if raw.peek(2)[:2] != _GZIP:  # not `read`, because bytes of a pipe cannot be read twice
            yield raw
            return
        with gzip.open(raw) as unzipped:
            yield cast("IO[bytes]", unzipped)


def suffix_of(name: str) -> str:
    """The ending of a file's name that tells its form, in lower case: ".jsonl" for "A.JSONL.gz"."""
    return Path(name.lower().removesuffix(".gz")).suffix


def open_content(path: str | os.PathLike[str], text_name: str | None = None) -> FileContent:
    """The content of a file; "-" is stdin. Its form follows from the name's ending, or else from the first line.

    With a `text_name`, the column of the texts, a file that is not JSON is a table.

    Raises:
        InputError: the file has markup or is not text; or, as the lines are read, it cannot be read.
    """
    name = _name_of(path)
    suffix = suffix_of(name)
    if suffix in _MARKUP_SUFFIXES:
        raise InputError(f"{name} is a {suffix} file, which has markup; save its texts as .txt, .csv or .jsonl")
    if suffix == ".parquet":
        return FileContent(path, name, suffix, "table", iter(()))
    first, lines = with_first(as_utf8(_read_bytes(path), name))
    if suffix in JSON_SUFFIXES or (suffix not in TABLE_SUFFIXES and _JSON_START.match(first)):
        return FileContent(path, name, suffix, "JSON", lines)
    is_table = suffix in TABLE_SUFFIXES or text_name is not None or is_header(first)
    return FileContent(path, name, suffix, "table" if is_table else "text", lines)


def table_of(content: FileContent, text_name: str | None = None, *, is_whole: bool = False) -> TextTable:
    """The table in a file, as in `parquet_table` and `separated_table`; if `is_whole`, with all columns.

    Raises:
        InputError: it has no texts, or cannot be read.
    """
    if content.suffix == ".parquet":
        return parquet_table(checked_path(content.path), text_name, is_whole=is_whole)
    text = decoded(b"".join(content.lines), content.name)
    return separated_table(text, content.name, text_name, is_tsv=content.suffix in TSV_SUFFIXES)


def read_rows(path: str | os.PathLike[str]) -> Iterator[TextLine | TableRow]:
    """The rows of a table; or JSON objects: one per line, in several lines, or in an array. "-" reads stdin.

    The `fields` of a row that is not an object, or has another number of cells than its table, raise InputError.

    Raises:
        InputError: the file cannot be read, or is a table without texts.
    """
    content = open_content(path)
    if content.form == "table":
        yield from table_of(content, is_whole=True).rows
    else:
        yield from object_lines(lines_of(content.lines, content.name))


def read_lines(path: str | os.PathLike[str]) -> Iterator[TextLine]:
    """The lines of a file that are not blank, without byte order marks; "-" reads stdin.

    Raises:
        InputError: the file cannot be read.
    """
    yield from lines_of(_read_bytes(path), _name_of(path))


def _read_bytes(path: str | os.PathLike[str]) -> Iterator[bytes]:
    """The lines of a file or of stdin, with their line endings."""
    if os.fspath(path) == STDIN:
        yield from sys.stdin.buffer
        return
    try:
        with opened(checked_path(path)) as stream:
            yield from stream
    except (OSError, EOFError, zlib.error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise InputError(f"{path} cannot be read: {reason}") from error


def _name_of(path: str | os.PathLike[str]) -> str:
    return "stdin" if os.fspath(path) == STDIN else os.fspath(path)
