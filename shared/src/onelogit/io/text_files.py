"""A file of any form, a folder in BEIR format, or stdin -> its documents and queries."""

import json
import logging
import os
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, cast

from onelogit.errors import InputError, counted
from onelogit.io.file_forms import LINES_SUFFIXES, open_content, table_of
from onelogit.io.lines import TextLine, json_values, lines_of, located, shortened
from onelogit.io.table_rows import TextTable
from onelogit.io.text_fields import UnreadFields, document_id_of, document_of, listed_documents, query_of, title_of
from onelogit.validation import check_string, check_text, checked_path, with_whole_characters

logger = logging.getLogger(__name__)


class TextCollection(NamedTuple):
    """The documents and queries of a file or a folder, in their order; there may be no queries."""

    documents: list[str]
    queries: list[str]


class TextDocument(NamedTuple):
    """A document of a file.

    Attributes:
        text: with the title before it.
        query: of its row; None if there is none.
        id: as in the file, unchecked; None if there is none.
        title: as in the file; None if there is none.
    """

    text: str
    query: str | None = None
    id: Any = None
    title: str | None = None


class _Reading(NamedTuple):
    """How documents are read: the field with the text, or None; and the fields that are not read, or None."""

    text_name: str | None = None
    unread: UnreadFields | None = None


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
        queries = [query.text for query in islice(_parse_documents(query_file, is_corpus=False), max_texts)]
    documents = with_whole_characters([document.text for document in read if document.text.strip()])
    return TextCollection(documents, list(dict.fromkeys(filter(str.strip, queries))))


def read_documents(path: str | os.PathLike[str], text_name: str | None = None) -> list[TextDocument]:
    """The documents of a file, or of corpus.jsonl in a folder in BEIR format, in their order.

    What is read from a table, and which fields of documents are not read, is logged once.

    Args:
        path: "-" for stdin. The form follows from the name's ending, or without one of these, from the first line:
            .jsonl, .ndjson and .json have texts, objects as in `document_of`, objects with a list of documents, or
            arrays of these, in one or more lines; .csv, .tsv and .parquet are tables with a column of texts. Any other
            file has one document per line; blank lines are ignored.
        text_name: the field or column with the texts; by default, the first of `text_fields.TEXT_NAMES`.

    Raises:
        InputError: the file cannot be read, or contains no texts; the message has the number of the line.
    """
    read = list(_parse_documents(path, text_name))
    texts = with_whole_characters([document.text for document in read])
    return [document._replace(text=text) for document, text in zip(read, texts, strict=True)]


def _parse_documents(
    path: str | os.PathLike[str], text_name: str | None = None, *, is_corpus: bool = True
) -> Iterator[TextDocument]:
    content = open_content(_corpus_file(path), text_name)
    name = content.name
    if content.form == "table":
        yield from _table_documents(table_of(content, text_name), name)
    elif content.form == "JSON":
        reading = _Reading(text_name, UnreadFields() if is_corpus else None)
        yield from _json_documents(lines_of(content.lines, name), reading)
        if reading.unread is not None:
            reading.unread.report(name)
    else:
        yield from _plain_documents(lines_of(content.lines, name), name, is_named=content.suffix not in LINES_SUFFIXES)


def _plain_documents(lines: Iterator[TextLine], name: str, *, is_named: bool) -> Iterator[TextDocument]:
    number = 0
    for line in lines:
        number += 1
        with located(line.place):
            text = line.text()
            if "\0" in text:
                raise InputError("not text, because it contains the character NUL; save the file as UTF-8")
        yield TextDocument(text)
    if is_named:
        each = "its line" if number == 1 else f"each of its {number} lines"
        logger.warning("%s is read as plain text: %s is a document", name, each)


def _table_documents(table: TextTable, name: str) -> Iterator[TextDocument]:
    number = 0
    for row in table.rows:
        with located(row.place):
            found = _documents_of(row.fields(), _Reading(table.text_name))
        number += len(found)
        yield from found
    unread = f"; not read: {', '.join(map(repr, table.unread))}" if table.unread else ""
    logger.warning("%s is read as %s: %s, %s%s", name, table.form, table.columns, counted(number, "document"), unread)


def _json_documents(lines: Iterator[TextLine], reading: _Reading) -> Iterator[TextDocument]:
    for place, value in json_values(lines):
        with located(place):
            documents = _documents_in(value, reading)
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


def _documents_in(value: object, reading: _Reading) -> list[TextDocument]:
    if isinstance(value, Mapping):
        return _documents_of(value, reading)
    listed = value if isinstance(value, list) else [value]
    documents: list[TextDocument] = []
    for number, each in enumerate(listed, start=1):
        if not isinstance(each, str | Mapping):
            where = f"document {number} of the array" if isinstance(value, list) else "a document"
            raise InputError(f"{where} must be a string or an object, not {shortened(json.dumps(each))}")
        documents += [TextDocument(_checked(each))] if isinstance(each, str) else _documents_of(each, reading)
    return documents


def _documents_of(fields: Mapping[str, Any], reading: _Reading) -> list[TextDocument]:
    query, listed = query_of(fields).text, listed_documents(fields)
    if query is not None:
        check_text(query, '"query"')
    if listed is None:
        return [_document(fields, reading, query)]
    if not isinstance(listed, list):
        raise InputError(f'"documents" must be a list, not {type(listed).__name__}')
    objects = [document if isinstance(document, Mapping) else {"document": document} for document in listed]
    return [_document(each, reading, query) for each in objects]


def _document(fields: Mapping[str, Any], reading: _Reading, query: object) -> TextDocument:
    if reading.unread is not None:
        reading.unread.count(fields, reading.text_name)
    text, title = document_of(fields, reading.text_name), title_of(fields, reading.text_name)
    return TextDocument(text, cast("str | None", query), document_id_of(fields), title)


def _checked(text: str) -> str:
    check_string(text, "a document")
    return text
