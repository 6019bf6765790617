"""A file, a folder or a stream -> its documents and queries: JSONL, a folder in BEIR form, or plain lines."""

import json
import os
import re
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from onelogit.errors import InputError
from onelogit.inputs import check_text

_JSONL_ENDINGS = (".jsonl", ".ndjson", ".json")
_OBJECT = re.compile(r'\s*\{\s*["}]')  # how an object begins, though it may be broken later on
_DOCUMENT_FIELDS = ("text", "document")


class Texts(NamedTuple):
    """What a file or a folder holds, each list in its order; queries may be none."""

    documents: list[str]
    queries: list[str]


def read_texts(path: str | os.PathLike[str], most: int | None = None) -> Texts:
    """The documents of a file or of a folder in BEIR form, and the queries that stand with them.

    Args:
        path: a folder with corpus.jsonl, and queries.jsonl where there are queries; or a file, as in `documents_of`,
            whose objects may name a "query", too.
        most: documents and queries that are read; None for all.

    Raises:
        InputError: nothing is there, it cannot be read, or it holds no document; a line is named by its number.
    """
    path = Path(path).expanduser()
    if not path.is_dir():
        read = list(_of_file(path, most))
        queries = dict.fromkeys(each.query for each in read if each.query and each.query.strip())
        return Texts([each.document for each in read if each.document.strip()], [*queries])
    if not (path / "corpus.jsonl").is_file():
        raise InputError(f"{path} has no corpus.jsonl: name a file of texts, or a folder in BEIR form")
    queries_file = path / "queries.jsonl"
    asked = list(_of_file(queries_file, most)) if queries_file.is_file() else []
    documents = (each.document for each in _of_file(path / "corpus.jsonl", most))
    return Texts(
        [text for text in documents if text.strip()], [each.document for each in asked if each.document.strip()]
    )


def documents_of(stream: Iterable[bytes], name: str) -> Iterator[str]:
    """The documents of a file's lines, in their order.

    Args:
        stream: the lines, UTF-8. JSONL where the name ends in .jsonl or .json, or the first line that is not blank
            begins as a JSON object does: objects with "text", and perhaps "title", or with "document". Plain texts
            otherwise, one a line. Blank lines are passed over.
        name: for messages.

    Raises:
        InputError: a line is not UTF-8, or no such object, with its number.
    """
    return (each.document for each in _read_lines(stream, name))


def read_documents(path: str | os.PathLike[str]) -> list[str]:
    """The documents of a file, as in `documents_of`.

    Raises:
        InputError: it cannot be read, or as `documents_of`.
    """
    return [each.document for each in _of_file(Path(path).expanduser(), None)]


class _Line(NamedTuple):
    document: str
    query: str | None = None


def _of_file(path: Path, most: int | None) -> Iterator[_Line]:
    try:
        with path.open("rb") as stream:
            for count, line in enumerate(_read_lines(stream, str(path))):
                if count == most:
                    return
                yield line
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error


def _read_lines(stream: Iterable[bytes], name: str) -> Iterator[_Line]:
    # Bytes break at line feeds alone; text would break at separators that JSON strings may hold.
    decoded = ((number, _decoded(line, f"{name}, line {number}")) for number, line in enumerate(stream, start=1))
    lines = ((number, line) for number, line in decoded if line.strip("\ufeff \t"))
    first = next(lines, None)
    if first is None:
        return
    is_jsonl = Path(name).suffix.lower() in _JSONL_ENDINGS or bool(_OBJECT.match(first[1]))
    for number, line in chain([first], lines):
        yield _line_of(line, f"{name}, line {number}") if is_jsonl else _Line(line)


def _decoded(line: bytes, place: str) -> str:
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{place}: not UTF-8: {error.reason} at byte {error.start + 1}") from error
    return text.removeprefix("\ufeff").rstrip("\r\n")


def _line_of(line: str, place: str) -> _Line:
    try:
        fields = json.loads(line)
    except json.JSONDecodeError as error:
        raise InputError(f"{place}: not JSON: {error.msg} at character {error.colno}") from error
    except RecursionError as error:
        raise InputError(f"{place}: JSON that is nested too deep") from error
    if not isinstance(fields, dict):
        raise InputError(f'{place}: not an object with "text" or "document", but a {type(fields).__name__}')
    query = fields.get("query")
    if query is not None:
        check_text(query, f'{place}: "query"')
    return _Line(_document(fields, place), query)


def _document(fields: dict[str, Any], place: str) -> str:
    name = next((name for name in _DOCUMENT_FIELDS if name in fields), None)
    if name is None:
        raise InputError(f'{place}: no "text" or "document" among {", ".join(map(repr, fields)) or "no fields"}')
    check_text(fields[name], f'{place}: "{name}"')
    title = fields.get("title") or ""
    check_text(title, f'{place}: "title"')
    return f"{title} {fields[name]}".strip() if title else str(fields[name])
