"""A JSONL file or a table -> pairs of a query and a document to score."""

import os
from pathlib import Path
from typing import NamedTuple

from onelogit.errors import InputError
from onelogit.io.file_forms import read_rows
from onelogit.io.lines import TextLine, located
from onelogit.io.table_rows import TableRow
from onelogit.io.text_fields import TEXT_NAMES, UnreadFields, document_of, listed_documents, query_of, text_of
from onelogit.validation import with_whole_characters

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
    """The pairs of a file, in its order.

    Args:
        path: JSON objects, one per line or in an array, or a CSV, TSV or Parquet file, with "query", "document" and,
            optionally, "language"; or with a list "documents". Other names are those of `onelogit.io.text_fields`. "-"
            for stdin. Blank lines are ignored.

    Raises:
        InputError: the file cannot be read or contains no pairs, or a line is not a pair; the message has its number.
    """
    unread = UnreadFields()
    pairs = [pair for row in read_rows(path) for pair in _pairs(row, unread)]
    unread.report(path)
    if not pairs:
        raise InputError(f'{path} contains no pairs; write one {{"query": ..., "document": ...}} per line')
    documents = with_whole_characters([pair.document for pair in pairs])
    return [pair._replace(document=document) for pair, document in zip(pairs, documents, strict=True)]


def _pairs(row: TextLine | TableRow, unread: UnreadFields) -> list[SamplePair]:
    with located(row.place):
        fields = row.fields()
        query = text_of({"query": query_of(fields).text} if "query" in fields else {}, "query", is_blank_allowed=False)
        language = None if fields.get("language") is None else text_of(fields, "language")
        listed = listed_documents(fields)
        if listed is not None and not isinstance(listed, list):
            raise InputError(f'"documents" must be a list, not {type(listed).__name__}')
        documents = [{**fields, "language": None}] if listed is None else listed
        return [SamplePair(query, _document(each, unread), language) for each in documents]


def _document(document: object, unread: UnreadFields) -> str:
    fields = document if isinstance(document, dict) else {"document": document}
    unread.count(fields)
    return document_of(fields) if any(name in fields for name in TEXT_NAMES) else text_of(fields, "document")
