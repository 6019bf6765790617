"""An input row -> its pairs, each with an error if it cannot be scored. Plain Python."""

from collections.abc import Mapping
from typing import NamedTuple

from onelogit.errors import InputError
from onelogit.validation import check_text

COLUMNS = ("query_id", "document_id", "query", "document", "documents")
REQUIRED_COLUMNS = "query_id, query and documents, or query_id, document_id, query and document"


class ScoringPair(NamedTuple):
    """A document to score for a query.

    Attributes:
        query_id, document_id: as text; None if the row has none or an invalid one.
        query, document: "" if there is an error.
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


def pairs_of(row: object) -> list[ScoringPair]:
    """The pairs of a row, in the order of its documents; one pair with an error if the row cannot be used.

    Args:
        row: a mapping with query_id, document_id, query and document; or with query_id, query and documents, which are
            texts, or mappings with a text and an optional document_id or id, by default the document's index. Ids are
            texts or integers. An InputError becomes the pair's error.
    """
    if isinstance(row, InputError):
        return [ScoringPair(None, None, error=str(row))]
    if not isinstance(row, Mapping):
        error = f"a row must have {REQUIRED_COLUMNS}; this is a {type(row).__name__}"
        return [ScoringPair(None, None, error=error)]
    documents = row.get("documents")
    if documents is None and "document" in row:
        return [_pair(row, row.get("document_id"), row["document"], "document")]
    if not isinstance(documents, list):
        actual = "has none" if documents is None else f"has a {type(documents).__name__}"
        error = f"documents must be a list, but this row {actual}"
        return [ScoringPair(_id(row.get("query_id")), None, error=error)]
    return [_listed_pair(row, index, document) for index, document in enumerate(documents)]


def _listed_pair(row: Mapping[str, object], index: int, document: object) -> ScoringPair:
    if not isinstance(document, Mapping):
        return _pair(row, index, document, f"document {index}")
    ids = (document.get(name) for name in ("document_id", "id"))
    document_id = next((id for id in ids if id is not None), index)
    return _pair(row, document_id, document.get("text"), f"the text of document {index}")


def _pair(row: Mapping[str, object], document_id: object, document: object, document_name: str) -> ScoringPair:
    query, query_id = row.get("query"), row.get("query_id")
    error = (
        _id_error(query_id, "query_id")
        or _id_error(document_id, "document_id")
        or _text_error(query, "the query", is_blank_allowed=False)
        or _text_error(document, document_name)
    )
    texts = {} if error else {"query": str(query), "document": str(document)}
    return ScoringPair(_id(query_id), _id(document_id), error=error, **texts)


def _id(value: object) -> str | None:
    return None if _id_error(value, "") else str(value)


def _id_error(value: object, name: str) -> str | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return None
    if value is None:
        return f"this row has no {name}; a row must have {REQUIRED_COLUMNS}"
    return _text_error(value, name)


def _text_error(value: object, name: str, *, is_blank_allowed: bool = True) -> str | None:
    try:
        check_text(value, name, is_blank_allowed)
    except InputError as error:
        return str(error)
    return None
