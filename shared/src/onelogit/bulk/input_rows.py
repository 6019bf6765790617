"""An input row -> its pairs, each with an error if it cannot be scored. Plain Python."""

from collections.abc import Mapping
from typing import NamedTuple

from onelogit.errors import InputError
from onelogit.io.text_fields import (
    TEXT_NAMES,
    UnreadFields,
    document_id_of,
    document_of,
    listed_documents,
    query_of,
)
from onelogit.validation import check_string, check_text

REQUIRED_COLUMNS = "query_id, query and documents, or query_id, document_id, query and document"


class ScoringPair(NamedTuple):
    """A document to score for a query.

    Attributes:
        query_id, document_id: as text; None if the row has none or an invalid one.
        query, document: "" if there is an error. A document may contain halves of characters.
        error: the reason why the pair cannot be scored, or None.
    """

    query_id: str | None
    document_id: str | None
    query: str = ""
    document: str = ""
    error: str | None = None

    def with_location(self, location: str) -> "ScoringPair":
        """The pair; if it has an error but no query_id, its location is put before the error."""
        if self.error is None or self.query_id is not None:
            return self
        return self._replace(error=f"{location}: {self.error}")


class _Row(NamedTuple):
    query: object
    query_id: object
    names: list[str]
    unread: UnreadFields


def pairs_of(row: object, unread: UnreadFields | None = None) -> list[ScoringPair]:
    """The pairs of a row, in the order of its documents; one pair with an error if the row cannot be used.

    Args:
        row: a mapping with query_id, document_id, query and document; or with query_id, query and documents, which are
            texts, or mappings with a text and an optional title and id, by default the document's index. Other names
            of these fields are those of `onelogit.io.text_fields`. Ids are texts or integers. An InputError becomes
            the pair's error.
        unread: counts the fields of documents that are not used.
    """
    if isinstance(row, InputError):
        return [ScoringPair(None, None, error=str(row))]
    if not isinstance(row, Mapping):
        error = f"a row must have {REQUIRED_COLUMNS}; this is a {type(row).__name__}"
        return [ScoringPair(None, None, error=error)]
    documents = listed_documents(row)
    known = _Row(*query_of(row), [*row], UnreadFields() if unread is None else unread)
    if documents is None and any(name in row for name in TEXT_NAMES):
        return [_object_pair(known, row, document_id_of(row), "the document")]
    if not isinstance(documents, list):
        names = f", only {', '.join(map(repr, row))}" if row else ""
        actual = f"has none{names}" if documents is None else f"has a {type(documents).__name__}"
        error = f"documents must be a list, but this row {actual}"
        return [ScoringPair(_id(known.query_id), None, error=error)]
    known.unread.count_lists(row, len(documents))
    return [_listed_pair(known, index, document) for index, document in enumerate(documents)]


def _listed_pair(row: _Row, index: int, document: object) -> ScoringPair:
    if not isinstance(document, Mapping):
        return _pair(row, index, document, f"document {index}")
    id = document_id_of(document)
    return _object_pair(row, document, index if id is None else id, f"the text of document {index}")


def _object_pair(row: _Row, document: Mapping[str, object], document_id: object, name: str) -> ScoringPair:
    row.unread.count(document)
    try:
        text = document_of(document)
    except InputError as error:
        message = _query_error(row) or _id_error(document_id, "document_id") or f"{name} must be a string: {error}"
        return ScoringPair(_id(row.query_id), _id(document_id), error=message)
    return _pair(row, document_id, text, name)


def _pair(row: _Row, document_id: object, document: object, document_name: str) -> ScoringPair:
    error = _query_error(row) or _id_error(document_id, "document_id") or _document_error(document, document_name)
    texts = {} if error else {"query": str(row.query), "document": str(document)}
    return ScoringPair(_id(row.query_id), _id(document_id), error=error, **texts)


def _query_error(row: _Row) -> str | None:
    if row.query is None and "query" not in row.names:
        return f"this row has no query, only {', '.join(map(repr, row.names))}; a row must have {REQUIRED_COLUMNS}"
    return _id_error(row.query_id, "query_id") or _text_error(row.query, "the query", is_blank_allowed=False)


def _id(value: object) -> str | None:
    return None if _id_error(value, "") else str(value)


def _id_error(value: object, name: str) -> str | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return None
    if value is None:
        return f"this row has no {name}; a row must have {REQUIRED_COLUMNS}"
    return _text_error(value, name, is_blank_allowed=False)


def _document_error(value: object, name: str) -> str | None:
    try:
        check_string(value, name)
    except InputError as error:
        return str(error)
    return None


def _text_error(value: object, name: str, *, is_blank_allowed: bool = True) -> str | None:
    try:
        check_text(value, name, is_blank_allowed)
    except InputError as error:
        return str(error)
    return None
