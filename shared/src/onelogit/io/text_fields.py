"""A JSON object or a row of a table -> its document, its query and their ids. The only place that knows their names.

The names are those of BEIR and MTEB (`_id`, `title`, `text`), Pyserini (`id`, `contents`), MS MARCO (`docid`, `pid`,
`passage`, `segment`, `body`), ir_datasets (`doc_id`), Tevatron (`positive_passages`) and the frameworks (`content`,
`page_content`). Of several, the first that is not null is used.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from onelogit.errors import InputError
from onelogit.validation import check_string, checked_text

logger = logging.getLogger(__name__)

TEXT_NAMES = ("text", "document", "contents", "content", "passage", "segment", "body", "page_content", "doc")
DOCUMENT_ID_NAMES = (
    *("document_id", "_id", "id", "docid", "doc_id", "pid", "passage_id", "corpus_id", "corpus-id", "id_"),
)
QUERY_ID_NAMES = ("query_id", "qid", "query-id")
LIST_NAMES = ("documents", "candidates", "passages", "docs")
POSITIVE_NAMES = ("positive", "positives", "pos", "positive_passages")
NEGATIVE_NAMES = ("negative", "negatives", "neg", "negative_passages")
LABEL_NAMES = ("label", "labels", "relevance", "rel")  # of a row with one document
CHANGED_LABEL_NAMES = ("changed_label", "changed_labels")

_QUERY_OBJECT_NAMES = ("text", "query", "contents", "content")
# Not named as unread: BEIR has `metadata`, and the others are read by some commands.
_QUIET_NAMES = {"title", "metadata", "query", *LABEL_NAMES, *CHANGED_LABEL_NAMES, *QUERY_ID_NAMES}
ROW_NAMES = frozenset({"query", "title", *QUERY_ID_NAMES, *LIST_NAMES, *POSITIVE_NAMES, *NEGATIVE_NAMES})
ROW_NAMES |= {*TEXT_NAMES, *DOCUMENT_ID_NAMES, *LABEL_NAMES, *CHANGED_LABEL_NAMES}


class QueryFields(NamedTuple):
    """The query of a row, unchecked: None if it has none. `id` may be of any type."""

    text: object
    id: object


def first_of(fields: Mapping[str, Any], names: Iterable[str]) -> Any:
    """The value of the first of the names that is not null, or None."""
    return next((fields[name] for name in names if fields.get(name) is not None), None)


def text_name_of(fields: Mapping[str, Any]) -> str | None:
    """The name of the field with the document's text, or None."""
    return next((name for name in TEXT_NAMES if fields.get(name) is not None), None)


def document_of(fields: Mapping[str, Any], text_name: str | None = None) -> str:
    """The document in an object: its text, after its "title" and a space if it has one, as in BEIR.

    It may contain halves of characters; see `validation.with_whole_characters`.

    The text may be in an object of its own, as in `{"docid": "d1", "doc": {"contents": ...}}`.

    Args:
        fields: of the object.
        text_name: the field with the text; by default, the first of `TEXT_NAMES`.

    Raises:
        InputError: it has no text, or its text or title is not a string.
    """
    name = text_name or text_name_of(fields)
    if name is None or name not in fields:
        if name is None and (null := next((each for each in TEXT_NAMES if each in fields), None)):
            check_string(None, f'"{null}"')
        known = f'no "{name}"' if name else 'no "text" or "document"'
        raise InputError(f"{known} among {', '.join(map(repr, fields)) or 'no fields'}")
    text, title = fields[name], None if name == "title" else fields.get("title")
    if isinstance(text, Mapping):
        title = None if text.get("title") else title
        text = document_of(text)
    check_string(text, f'"{name}"')
    if title is None:
        return str(text)
    check_string(title, '"title"')
    return f"{title} {text}".strip() if title else str(text)


def title_of(fields: Mapping[str, Any], text_name: str | None = None) -> str | None:
    """The title that `document_of` puts before the text; None if there is none. For an object that it accepts."""
    name = text_name or text_name_of(fields)
    nested = fields.get(name or "")
    own = None if name == "title" else fields.get("title")
    return (title_of(nested) if isinstance(nested, Mapping) else None) or own or None


def document_id_of(fields: Mapping[str, Any]) -> Any:
    """The id of a document, unchecked; None if it has none."""
    found = first_of(fields, DOCUMENT_ID_NAMES)
    nested = fields.get(text_name_of(fields) or "")
    return document_id_of(nested) if found is None and isinstance(nested, Mapping) else found


def query_of(fields: Mapping[str, Any]) -> QueryFields:
    """The query of a row, which is a text, or an object with a text and an id; the row's own query id takes precedence.

    If the row has a list of documents, its `_id` or `id` is the query's, too.
    """
    query, id = fields.get("query"), first_of(fields, QUERY_ID_NAMES)
    if id is None and listed_documents(fields) is not None:
        id = first_of(fields, ("_id", "id"))
    if isinstance(query, Mapping):
        id = first_of(query, (*QUERY_ID_NAMES, "_id", "id")) if id is None else id
        query = first_of(query, _QUERY_OBJECT_NAMES)
    return QueryFields(query, id)


def listed_documents(fields: Mapping[str, Any]) -> Any:
    """The documents of a row, usually a list of texts and objects; None if it has none.

    Without such a list, they are the row's positive documents and then its negative ones, as in training data. A row
    with a text of its own is a document, in which only "documents" is a list of others.
    """
    if fields.get("documents") is not None or text_name_of(fields) is not None:
        return fields.get("documents")
    listed = first_of(fields, LIST_NAMES)
    parts = [part for part in _training_documents(fields) if part is not None]
    return [document for part in parts for document in part] if listed is None and parts else listed


def _training_documents(fields: Mapping[str, Any]) -> list[list[Any] | None]:
    """The positive and the negative documents of a row."""
    parts = [first_of(fields, names) for names in (POSITIVE_NAMES, NEGATIVE_NAMES)]
    return [part if isinstance(part, list | None) else [part] for part in parts]


def labels_of(fields: Mapping[str, Any]) -> Any:
    """The `labels` of a row's documents; without them, 1 for each positive document and 0 for each negative one.

    None if the row has neither.
    """
    if fields.get("labels") is not None or first_of(fields, LIST_NAMES) is not None:
        return fields.get("labels")
    return [label for label, part in zip((1, 0), _training_documents(fields), strict=True) for _ in part or ()] or None


def text_of(fields: Mapping[str, Any], name: str, *, is_blank_allowed: bool = True) -> str:
    """The text in a field of a JSON object.

    Raises:
        InputError: the field is missing or not a string.
    """
    if name not in fields:
        raise InputError(f'"{name}" is missing')
    return checked_text(fields[name], f'"{name}"', is_blank_allowed)


class UnreadFields(Counter[str]):
    """The number of documents by the name of a field that is neither text nor id, so that no text is lost unnoticed."""

    def count(self, document: Mapping[str, Any], text_name: str | None = None) -> None:
        """Count the fields of a document that `document_of` and `document_id_of` do not use."""
        id_name = next((name for name in DOCUMENT_ID_NAMES if document.get(name) is not None), None)
        used = {text_name or text_name_of(document), id_name} | _QUIET_NAMES
        self.update(name for name, value in document.items() if value is not None and name not in used)

    def count_lists(self, row: Mapping[str, Any], documents: int) -> None:
        """Count the lists beside a row's list of documents that have as many items, such as a list of their ids."""
        names = [name for name, value in row.items() if isinstance(value, list) and len(value) == documents]
        self.update(dict.fromkeys({*names} - ROW_NAMES - _QUIET_NAMES, documents))

    def report(self, source: object) -> None:
        """Log the fields, if there are any; `source` is the name of the file or folder."""
        if self:
            listed = ", ".join(f'"{name}" ({count:,})' for name, count in self.most_common(8))
            more = f" and {len(self) - 8} more" if len(self) > 8 else ""
            logger.warning("%s: these fields of documents are not part of their texts: %s%s", source, listed, more)
