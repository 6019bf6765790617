"""A row of the input -> its pairs, each fit to be scored or with the error that says why it is not. Plain Python."""

from collections.abc import Mapping
from typing import NamedTuple

from onelogit.errors import InputError
from onelogit.validation import check_text

COLUMNS = ("query_id", "document_id", "query", "document", "documents")
NEEDED = "query_id, query and documents, or query_id, document_id, query and document"


class ScoringPair(NamedTuple):
    """A document to be scored for a query.

    Attributes:
        query_id: of the query, as text; None where the row has none that can be used.
        document_id: of the document, as text; None likewise.
        query: "" where there is an error.
        document: "" where there is an error.
        error: what is wrong with the pair; None for one that can be scored.
    """

    query_id: str | None
    document_id: str | None
    query: str = ""
    document: str = ""
    error: str | None = None

    def found_at(self, place: str) -> "ScoringPair":
        """The pair; where its error is all there is to find it by, with the place in it."""
        return (
            self if self.error is None or self.query_id is not None else self._replace(error=f"{place}: {self.error}")
        )


def pairs_of(row: object) -> list[ScoringPair]:
    """The pairs of a row, in the order of its documents; a row that cannot be used is one pair with an error.

    Args:
        row: a mapping with query_id, query and documents, which are texts, or mappings with a text and, where they
            have one, a document_id or id; else they are called by their place. Or one with query_id, document_id,
            query and document. Ids are texts or whole numbers.
    """
    if isinstance(row, InputError):
        return [ScoringPair(None, None, error=str(row))]
    if not isinstance(row, Mapping):
        return [ScoringPair(None, None, error=f"a row must have {NEEDED}; this is a {type(row).__name__}")]
    if row.get("documents") is None and "document" in row:
        return [_pair(row, row.get("document_id"), row["document"], "document")]
    documents = row.get("documents")
    if not isinstance(documents, list):
        said = "has none" if documents is None else f"has a {type(documents).__name__}"
        return [ScoringPair(_id(row.get("query_id")), None, error=f"documents must be a list, but this row {said}")]
    return [_listed_pair(row, place, document) for place, document in enumerate(documents)]


def _listed_pair(row: Mapping[str, object], place: int, document: object) -> ScoringPair:
    if not isinstance(document, Mapping):
        return _pair(row, place, document, f"document {place}")
    given = (document.get(name) for name in ("document_id", "id"))
    document_id = next((id for id in given if id is not None), place)
    return _pair(row, document_id, document.get("text"), f"the text of document {place}")


def _pair(row: Mapping[str, object], document_id: object, document: object, name: str) -> ScoringPair:
    query, ids = row.get("query"), (_id(row.get("query_id")), _id(document_id))
    faults = [
        _fault_of_id(row.get("query_id"), "query_id"),
        _fault_of_id(document_id, "document_id"),
        _fault(query, "the query", is_blank_allowed=False),
        _fault(document, name),
    ]
    if error := next(filter(None, faults), None):
        return ScoringPair(*ids, error=error)
    return ScoringPair(*ids, query=str(query), document=str(document))


def _id(value: object) -> str | None:
    return None if _fault_of_id(value, "") else str(value)


def _fault_of_id(value: object, name: str) -> str | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return None
    if value is None:
        return f"this row has no {name}; a row must have {NEEDED}"
    return _fault(value, name)


def _fault(value: object, name: str, *, is_blank_allowed: bool = True) -> str | None:
    try:
        check_text(value, name, is_blank_allowed)
    except InputError as error:
        return str(error)
    return None
