"""A file, plain or gzipped, a folder or stdin -> its lines, each with its place; and the documents and queries in them.

JSON Lines, folders in BEIR form, and plain lines, for every command that reads texts.
"""

import gzip
import json
import os
import re
import sys
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

from onelogit.errors import InputError
from onelogit.validation import check_text, checked_path

STDIN = "-"
_GZIP = b"\x1f\x8b"
_JSONL_ENDINGS = (".jsonl", ".ndjson", ".json")
_OBJECT = re.compile(r'\s*\{\s*["}]')  # how an object begins, though it may be broken later on
_DOCUMENT_FIELDS = ("text", "document")
_SHOWN = 80


class TextLine(NamedTuple):
    """One line that is not blank.

    Attributes:
        place: file and line number, for people.
        content: without the line's end.
    """

    place: str
    content: bytes

    def text(self) -> str:
        """The line, decoded.

        Raises:
            InputError: it is not UTF-8; without the place, like whatever else is said of a line.
        """
        try:
            return self.content.decode("utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"not UTF-8: {error.reason} at byte {error.start + 1}") from error

    def fields(self) -> dict[str, Any]:
        """The JSON object that the line is.

        Raises:
            InputError: it is none.
        """
        text = self.text()
        try:
            found = json.loads(text)
        except json.JSONDecodeError as error:
            raise InputError(f"not JSON: {error.msg} at character {error.colno}") from error
        except (ValueError, RecursionError) as error:
            raise InputError(f"not JSON that can be read: {error}") from error
        if not isinstance(found, dict):
            raise InputError(f"not a JSON object, but {shortened(text)}")
        return cast("dict[str, Any]", found)


class Texts(NamedTuple):
    """What a file or a folder holds, each list in its order; queries may be none."""

    documents: list[str]
    queries: list[str]


class _Entry(NamedTuple):
    document: str
    query: str | None = None


@contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """The bytes of a file; of a gzipped one, what was zipped."""
    with Path(path).open("rb") as raw:
        if raw.peek(2)[:2] != _GZIP:  # only looked at: of a pipe, what is read is gone
            yield raw
            return
        with gzip.open(raw) as unzipped:
            yield cast("IO[bytes]", unzipped)


def read_lines(path: str | os.PathLike[str]) -> Iterator[TextLine]:
    """The lines of a file that are not blank; of stdin where the path is "-".

    A mark of byte order in front and Windows' line ends are no part of them.

    Raises:
        InputError: the file cannot be read.
    """
    if os.fspath(path) == STDIN:
        yield from lines_of(sys.stdin.buffer, "stdin")
        return
    try:
        with opened(checked_path(path)) as stream:
            yield from lines_of(stream, os.fspath(path))
    except (OSError, EOFError, zlib.error) as error:
        said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise InputError(f"{path} cannot be read: {said}") from error


def lines_of(stream: Iterable[bytes], name: str) -> Iterator[TextLine]:
    """The lines of a stream, as in `read_lines`, by the name that people know it by."""
    # Bytes break at line feeds alone; text would break at separators that JSON strings may hold.
    for number, content in enumerate(stream, start=1):
        line = (content.removeprefix(b"\xef\xbb\xbf") if number == 1 else content).rstrip(b"\r\n")
        if line.strip():
            yield TextLine(f"{name}, line {number}", line)


def find_beir_file(folder: Path, name: str) -> Path | None:
    """A file of a folder in BEIR form, plain or gzipped; None where it is not there."""
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def document_of(fields: dict[str, Any]) -> str:
    """The document that a JSON object is: its "text" or "document", behind its "title" where it has one.

    Raises:
        InputError: it has none, or something else than text.
    """
    name = next((name for name in _DOCUMENT_FIELDS if name in fields), None)
    if name is None:
        raise InputError(f'no "text" or "document" among {", ".join(map(repr, fields)) or "no fields"}')
    text, title = text_of(fields, name), fields.get("title") or ""
    check_text(title, '"title"')
    return f"{title} {text}".strip() if title else text


def text_of(fields: dict[str, Any], name: str, *, is_blank_allowed: bool = True) -> str:
    """A field that must be text.

    Raises:
        InputError: it is not there, or is something else.
    """
    if name not in fields:
        raise InputError(f'"{name}" is missing')
    check_text(fields[name], f'"{name}"', is_blank_allowed)
    return str(fields[name])


def read_texts(path: str | os.PathLike[str], most: int | None = None) -> Texts:
    """The documents of a file or a folder, and the queries that stand with them; blank ones are passed over.

    Args:
        path: as of `read_documents`. The queries are those of queries.jsonl in a folder, where there is one, or what
            the objects of a file name as their "query".
        most: documents and queries that are read; None for all.

    Raises:
        InputError: as `read_documents`.
    """
    read = list(islice(_entries(path), most))
    documents, queries = [each.document for each in read], [each.query or "" for each in read]
    if (asked := find_beir_file(checked_path(path), "queries.jsonl")) is not None:
        queries = [each.document for each in islice(_entries(asked), most)]
    return Texts(list(filter(str.strip, documents)), list(dict.fromkeys(filter(str.strip, queries))))


def read_documents(path: str | os.PathLike[str]) -> list[str]:
    """The documents of a file, in their order; of a folder in BEIR form, those of its corpus.jsonl.

    Args:
        path: "-" for stdin. JSONL where its name ends in .jsonl or .json, or its first line begins as a JSON object
            does: objects as in `document_of`, or with a list of "documents", each of which is one of these or a text.
            Plain texts otherwise, one a line. Blank lines are passed over.

    Raises:
        InputError: it cannot be read; a line is not UTF-8, or no such object, with its number.
    """
    return [each.document for each in _entries(path)]


def _entries(path: str | os.PathLike[str]) -> Iterator[_Entry]:
    file = _file_of(path)
    lines = read_lines(file)
    first = next(lines, None)
    if first is None:
        return
    name = os.fspath(file).lower().removesuffix(".gz")
    is_jsonl = name.endswith(_JSONL_ENDINGS) or bool(_OBJECT.match(first.content.decode("utf-8", "replace")))
    for line in chain([first], lines):
        try:
            found = _entries_of(line.fields()) if is_jsonl else [_Entry(line.text())]
        except InputError as error:
            raise InputError(f"{line.place}: {error}") from error
        yield from found


def _file_of(path: str | os.PathLike[str]) -> str | os.PathLike[str]:
    """The path, or the corpus of a folder."""
    folder = checked_path(path)
    if not folder.is_dir():
        return path
    corpus = find_beir_file(folder, "corpus.jsonl")
    if corpus is None:
        raise InputError(f"{folder} has no corpus.jsonl: name a file of texts, or a folder in BEIR form")
    return corpus


def _entries_of(fields: dict[str, Any]) -> list[_Entry]:
    query, several = fields.get("query"), fields.get("documents")
    if query is not None:
        check_text(query, '"query"')
    if several is None:
        return [_Entry(document_of(fields), query)]
    if not isinstance(several, list):
        raise InputError(f'"documents" must be a list, not {type(several).__name__}')
    return [_Entry(document_of(each if isinstance(each, dict) else {"document": each}), query) for each in several]


def shortened(text: str, most: int = _SHOWN) -> str:
    """The text on one line, cut at its end."""
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 1]}…"
