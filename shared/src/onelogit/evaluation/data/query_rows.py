"""A file of queries, each with its documents and their labels, in one row or in several -> Dataset."""

from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Any

from onelogit.errors import InputError
from onelogit.evaluation.data.dataset import Dataset, LabelledQuery
from onelogit.evaluation.data.labelled_rows import LabelledRows, is_labelled_row
from onelogit.io.bad_lines import BadLines, checked_id, checked_label
from onelogit.io.file_forms import read_rows
from onelogit.io.lines import TextLine
from onelogit.io.table_rows import TableRow
from onelogit.io.text_fields import (
    NEGATIVE_NAMES,
    POSITIVE_NAMES,
    QUERY_ID_NAMES,
    ROW_NAMES,
    UnreadFields,
    document_id_of,
    document_of,
    labels_of,
    listed_documents,
    query_of,
    text_of,
)
from onelogit.validation import check_string, with_whole_characters

_KNOWN_FIELDS = {"query", "_id", "id", *QUERY_ID_NAMES, *POSITIVE_NAMES, *NEGATIVE_NAMES}  # of those that may be texts
NO_RELEVANT_DOCUMENT = "no document is relevant to it"


def read_query_rows(path: Path, bad_lines: BadLines) -> Dataset:
    """A dataset of queries, each with its documents as candidates, in their order.

    Args:
        path: JSON objects, one per line or in an array, or a CSV, TSV or Parquet file. A row has `query`, `documents`
            (texts, or objects as in `document_of`) and `labels`, an integer for each document; or `query`, `positive`
            and `negative`; or `query`, the text of one document, and its `label`: all rows with the same query id, or
            without ids with the same query, are one query. Optional: `changed_labels`, the labels under another
            instruction, and `query_id`, by default the number of the row. Other fields that are text or numbers
            describe the query. Names of ids are those of `text_fields`.
        bad_lines: collects rows that are not like that.

    Raises:
        InputError: the file cannot be read, or no query has a relevant document.
    """
    read = _QueryReader()
    bad_lines.read_each("queries", read_rows(path), read.add)
    queries = read.finished()
    read.unread.report(path)
    if not queries and not bad_lines.skipped:
        raise InputError(f"{path} contains no queries")
    kept = [query for query in queries if query.relevant]
    if not kept:
        raise InputError(f"{path} contains no query with a relevant document, which has a label of 1 or more")
    excluded = frozenset(query.id for query in queries).difference(query.id for query in kept)
    texts = with_whole_characters([*read.documents.values()])
    return Dataset(
        name=path.name,
        documents=dict(zip(read.documents, texts, strict=True)),
        queries=kept,
        first_stage="the given order",
        excluded={NO_RELEVANT_DOCUMENT: len(excluded)} if excluded else {},
        excluded_ids=excluded,
    )


class _QueryReader:
    """The queries and documents of the rows that were read, by id, and the fields that were not read."""

    def __init__(self) -> None:
        self.documents: dict[str, str] = {}
        self.unread = UnreadFields()
        self._queries: dict[str, LabelledQuery | LabelledRows] = {}
        self._ids: dict[str, str] = {}  # of queries without ids, by their texts
        self._numbers = count(1)

    def add(self, row: TextLine | TableRow) -> None:
        """Read a row; raises InputError if it is not a query with documents and labels."""
        fields, number = row.fields(), str(next(self._numbers))
        text, given = query_of(fields)
        text = text_of({"query": text} if "query" in fields else {}, "query", is_blank_allowed=False)
        is_labelled = is_labelled_row(fields)
        default = self._ids.setdefault(text, number) if is_labelled and given is None else number
        id = checked_id(default if given is None else given, '"query_id"')
        if is_labelled:
            self._add_document(id, text, fields)
            return
        query, texts = _query(id, text, fields, self.unread)
        if id in self._queries:
            raise InputError(f"the query id {id!r} occurs twice")
        self._add_documents(texts)
        self._queries[id] = query

    def finished(self) -> list[LabelledQuery]:
        """All queries, in the order of their first rows."""
        for rows in self._queries.values():
            if isinstance(rows, LabelledRows):
                self.unread.update(dict.fromkeys(rows.unread, len(rows.documents)))
        return [rows.query() if isinstance(rows, LabelledRows) else rows for rows in self._queries.values()]

    def _add_document(self, id: str, text: str, fields: Mapping[str, Any]) -> None:
        rows = self._queries.get(id, LabelledRows(id, text))
        if not isinstance(rows, LabelledRows):
            raise InputError(f"the query id {id!r} occurs twice, once with a list of documents")
        before = len(rows.documents)
        rows.add(text, fields, other_fields(fields, _KNOWN_FIELDS | ROW_NAMES), self.unread)
        self._add_documents(dict([*rows.documents.items()][before:]))
        self._queries[id] = rows

    def _add_documents(self, texts: Mapping[str, str]) -> None:
        for id, text in texts.items():
            if self.documents.get(id, text) != text:
                raise InputError(f"the document id {id!r} has two different texts")
        self.documents.update(texts)


def other_fields(fields: Mapping[str, Any], known: set[str]) -> dict[str, str]:
    """The fields, including those in the object `metadata`, that are text or numbers and not in `known`."""
    metadata = fields.get("metadata")
    found = {**(metadata if isinstance(metadata, dict) else {}), **fields}
    return {
        name: str(value)
        for name, value in found.items()
        if name not in known and isinstance(value, str | int | float) and str(value).strip()
    }


def _query(id: str, text: str, fields: Mapping[str, Any], unread: UnreadFields) -> tuple[LabelledQuery, dict[str, str]]:
    documents = _documents(listed_documents(fields), id, unread)
    unread.count_lists(fields, len(documents))
    changed = fields.get("changed_labels")
    query = LabelledQuery(
        id=id,
        text=text,
        labels=_labels(labels_of(fields), documents, "labels"),
        changed_labels=None if changed is None else _labels(changed, documents, "changed_labels"),
        candidates=tuple(documents),
        fields=other_fields(fields, _KNOWN_FIELDS),
    )
    return query, documents


def _documents(given: object, query_id: str, unread: UnreadFields) -> dict[str, str]:
    """Texts by id, in the given order."""
    if not isinstance(given, list) or not given:
        raise InputError('"documents" must be a list of at least one document')
    documents: dict[str, str] = {}
    for number, each in enumerate(given, start=1):
        if isinstance(each, dict):
            unread.count(each)
            id = document_id_of(each)
            id = f"{query_id}/{number}" if id is None else checked_id(id, "the document id")
            documents[id] = document_of(each)
        else:
            check_string(each, "a document")
            documents[f"{query_id}/{number}"] = each
    if len(documents) < len(given):
        raise InputError("two documents have the same id")
    return documents


def _labels(given: object, documents: dict[str, str], name: str) -> dict[str, int]:
    if not isinstance(given, list) or len(given) != len(documents):
        found = f"{len(given)} labels" if isinstance(given, list) else type(given).__name__
        raise InputError(
            f'"{name}" must be a list of one label for each of the {len(documents)} documents, not {found}'
        )
    return {id: checked_label(label) for id, label in zip(documents, given, strict=True)}
