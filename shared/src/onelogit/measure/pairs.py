"""A JSONL file -> pairs of a query and a document to measure with."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from onelogit.errors import InputError
from onelogit.inputs import check_text

_BUNDLED = Path(__file__).parent / "pairs.jsonl"


class Pair(NamedTuple):
    """A query and a document to score together.

    Attributes:
        language: of both, or of the query and the document ("en-zh"), for people to read; None where not given.
    """

    query: str
    document: str
    language: str | None = None


def bundled_pairs() -> list[Pair]:
    """The pairs that come with the package: 48, of 8 queries, Korean, English, Chinese, and mixed.

    PAIRS-LICENCE.md beside the file names their sources and licences.
    """
    return read_pairs(_BUNDLED)


def read_pairs(path: str | os.PathLike[str]) -> list[Pair]:
    """The pairs of a JSONL file, in its order.

    Args:
        path: UTF-8, one object a line with "query" and "document", and "language" where known. Other keys and blank
            lines are passed over.

    Raises:
        InputError: the file cannot be read, holds no pair, or has a line that is none, named by its number.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    pairs = list(_pairs(content, os.fspath(path)))
    if not pairs:
        raise InputError(f'{path} holds no pairs: write one {{"query": ..., "document": ...}} a line')
    return pairs


def _pairs(content: bytes, name: str) -> Iterator[Pair]:
    # Split as bytes: str.splitlines() would also break at separators that JSON strings may hold.
    for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if line.strip():
            yield _pair(line, f"{name}, line {number}")


def _pair(line: bytes, place: str) -> Pair:
    try:
        fields = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise InputError(f"{place}: not UTF-8: {error.reason} at byte {error.start + 1}") from error
    except json.JSONDecodeError as error:
        raise InputError(f"{place}: not JSON: {error.msg} at character {error.colno}") from error
    if not isinstance(fields, dict) or not fields.keys() >= {"query", "document"}:
        raise InputError(f'{place}: not an object with "query" and "document", but {_shortened(line)}')
    language = fields.get("language")
    check_text(fields["query"], f"{place}: the query", is_blank_allowed=False)
    check_text(fields["document"], f"{place}: the document")
    if language is not None:
        check_text(language, f"{place}: the language")
    return Pair(fields["query"], fields["document"], language)


def _shortened(line: bytes) -> str:
    text = line.decode("utf-8").strip()
    return text if len(text) <= 80 else f"{text[:77]}..."
