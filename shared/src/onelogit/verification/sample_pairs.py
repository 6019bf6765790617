"""A JSONL file -> pairs of a query and a document to score."""

import os
from pathlib import Path
from typing import NamedTuple

from onelogit.errors import InputError
from onelogit.io.lines import TextLine
from onelogit.io.text_fields import text_of
from onelogit.io.text_files import read_lines

_BUNDLED = Path(__file__).parent / "sample_pairs.jsonl"


class SamplePair(NamedTuple):
    """A query and a document to score together; `language`, such as "en" or "en-zh", is for readers only."""

    query: str
    document: str
    language: str | None = None


def bundled_pairs() -> list[SamplePair]:
    """The 48 pairs of the package: 8 queries in Korean, English and Chinese, some with documents in another language.

    PAIRS-LICENCE.md beside the file names their sources and licences.
    """
    return read_pairs(_BUNDLED)


def read_pairs(path: str | os.PathLike[str]) -> list[SamplePair]:
    """The pairs of a JSONL file, in its order.

    Args:
        path: UTF-8, one object per line with "query", "document" and, optionally, "language"; "-" for stdin. Other keys
            and blank lines are ignored.

    Raises:
        InputError: the file cannot be read or contains no pairs, or a line is not a pair; the message has its number.
    """
    pairs = [_pair(line) for line in read_lines(path)]
    if not pairs:
        raise InputError(f'{path} contains no pairs; write one {{"query": ..., "document": ...}} per line')
    return pairs


def _pair(line: TextLine) -> SamplePair:
    try:
        fields = line.fields()
        query, document = text_of(fields, "query", is_blank_allowed=False), text_of(fields, "document")
        language = None if fields.get("language") is None else text_of(fields, "language")
    except InputError as error:
        raise InputError(f"{line.place}: {error}") from error
    return SamplePair(query, document, language)
