"""A plain or gzipped file, a folder in BEIR format, or stdin -> its lines, or its documents and queries."""

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
from onelogit.io.text_fields import document_of
from onelogit.validation import check_text, checked_path

STDIN = "-"
_GZIP = b"\x1f\x8b"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_JSONL_SUFFIXES = (".jsonl", ".ndjson", ".json")
_OBJECT_START = re.compile(r'\s*\{\s*["}]')  # also matches invalid objects


class TextLine(NamedTuple):
    """One line that is not blank: its `content` without the line ending, and its `place`, file name and line number."""

    place: str
    content: bytes

    def text(self) -> str:
        """The line, decoded.

        Raises:
            InputError: it is not UTF-8. Errors about the content of a line do not name the line.
        """
        try:
            return self.content.decode("utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"not UTF-8: {error.reason} at byte {error.start + 1}") from error

    def fields(self) -> dict[str, Any]:
        """The line, parsed as a JSON object.

        Raises:
            InputError: it is not a JSON object.
        """
        text = self.text()
        try:
            parsed = json.loads(text)
        except json.JSONDecodeError as error:
            raise InputError(f"not JSON: {error.msg} at character {error.colno}") from error
        except (ValueError, RecursionError) as error:
            raise InputError(f"JSON that cannot be read: {error}") from error
        if not isinstance(parsed, dict):
            raise InputError(f"not a JSON object, but {shortened(text)}")
        return cast("dict[str, Any]", parsed)


class TextCollection(NamedTuple):
    """The documents and queries of a file or a folder, in their order; there may be no queries."""

    documents: list[str]
    queries: list[str]


class _ParsedDocument(NamedTuple):
    text: str
    query: str | None = None


@contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """The content of a file, unzipped if it is gzipped."""
    with Path(path).open("rb") as raw:
        if raw.peek(2)[:2] != _GZIP:  # not `read`, because bytes of a pipe cannot be read twice
            yield raw
            return
        with gzip.open(raw) as unzipped:
            yield cast("IO[bytes]", unzipped)


def read_lines(path: str | os.PathLike[str]) -> Iterator[TextLine]:
    """The lines of a file that are not blank, without byte order marks; "-" reads stdin.

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
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise InputError(f"{path} cannot be read: {reason}") from error


def lines_of(stream: Iterable[bytes], name: str) -> Iterator[TextLine]:
    """The lines of a stream, as in `read_lines`; `name` names it in messages."""
    # Bytes are split only at line feeds; text would also be split at separators that JSON strings may contain.
    for number, line in enumerate(stream, start=1):
        content = line_content(line)
        if content.strip():
            yield TextLine(f"{name}, line {number}", content)


def line_content(line: bytes) -> bytes:
    """A line without its line ending and byte order mark, which concatenated files have in later lines, too."""
    return line.removeprefix(_BYTE_ORDER_MARK).rstrip(b"\r\n")


def find_beir_file(folder: Path, name: str) -> Path | None:
    """A file of a folder in BEIR format, plain or gzipped; None if it does not exist."""
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def read_text_collection(path: str | os.PathLike[str], max_texts: int | None = None) -> TextCollection:
    """The documents and queries of a file or a folder, without blank ones and without repeated queries.

    Args:
        path: as in `read_documents`. Queries are read from a folder's queries.jsonl if it exists, otherwise from the
            "query" fields of the objects.
        max_texts: the maximum number of documents, and of queries, to read; None for all.

    Raises:
        InputError: as `read_documents`.
    """
    read = list(islice(_parse_documents(path), max_texts))
    queries = [document.query or "" for document in read]
    if (query_file := find_beir_file(checked_path(path), "queries.jsonl")) is not None:
        queries = [query.text for query in islice(_parse_documents(query_file), max_texts)]
    documents = [document.text for document in read if document.text.strip()]
    return TextCollection(documents, list(dict.fromkeys(filter(str.strip, queries))))


def read_documents(path: str | os.PathLike[str]) -> list[str]:
    """The documents of a file, or of corpus.jsonl in a folder in BEIR format, in their order.

    Args:
        path: "-" for stdin. A file is JSONL if its name ends in .jsonl, .ndjson or .json, or its first line begins like
            a JSON object. Each object is as in `document_of`, or has a list "documents" of such objects or texts. Any
            other file has one document per line. Blank lines are ignored.

    Raises:
        InputError: the file cannot be read, or a line is not UTF-8 or not such an object; the message has its number.
    """
    return [document.text for document in _parse_documents(path)]


def _parse_documents(path: str | os.PathLike[str]) -> Iterator[_ParsedDocument]:
    file = _corpus_file(path)
    lines = read_lines(file)
    first = next(lines, None)
    if first is None:
        return
    name = os.fspath(file).lower().removesuffix(".gz")
    is_jsonl = name.endswith(_JSONL_SUFFIXES) or bool(_OBJECT_START.match(first.content.decode("utf-8", "replace")))
    for line in chain([first], lines):
        try:
            documents = _documents_of(line.fields()) if is_jsonl else [_ParsedDocument(line.text())]
        except InputError as error:
            raise InputError(f"{line.place}: {error}") from error
        yield from documents


def _corpus_file(path: str | os.PathLike[str]) -> str | os.PathLike[str]:
    """The path itself or, for a folder, the path of its corpus."""
    folder = checked_path(path)
    if not folder.is_dir():
        return path
    corpus = find_beir_file(folder, "corpus.jsonl")
    if corpus is None:
        raise InputError(f"{folder} has no corpus.jsonl; name a file of texts, or a folder in BEIR format")
    return corpus


def _documents_of(fields: dict[str, Any]) -> list[_ParsedDocument]:
    query, listed = fields.get("query"), fields.get("documents")
    if query is not None:
        check_text(query, '"query"')
    if listed is None:
        return [_ParsedDocument(document_of(fields), query)]
    if not isinstance(listed, list):
        raise InputError(f'"documents" must be a list, not {type(listed).__name__}')
    objects = [document if isinstance(document, dict) else {"document": document} for document in listed]
    return [_ParsedDocument(document_of(each), query) for each in objects]


def shortened(text: str, max_characters: int = 80) -> str:
    """The text on one line, with white space collapsed, truncated to `max_characters`."""
    line = " ".join(text.split())
    return line if len(line) <= max_characters else f"{line[: max_characters - 1]}…"
