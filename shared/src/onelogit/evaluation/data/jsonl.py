"""A JSONL file of queries, each with its documents and their labels -> Dataset."""

from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Any

from onelogit.errors import InputError
from onelogit.evaluation.data.dataset import Dataset, LabelledQuery
from onelogit.io.bad_lines import BadLines, checked_id, checked_label
from onelogit.io.lines import TextLine
from onelogit.io.text_fields import (
    NEGATIVE_NAMES,
    POSITIVE_NAMES,
    QUERY_ID_NAMES,
    UnreadFields,
    document_id_of,
    document_of,
    labels_of,
    listed_documents,
    query_of,
    text_of,
)
from onelogit.io.text_files import read_object_lines
from onelogit.validation import check_string, with_whole_characters

_KNOWN_FIELDS = {"query", "_id", "id", *QUERY_ID_NAMES, *POSITIVE_NAMES, *NEGATIVE_NAMES}  # of those that may be texts
NO_RELEVANT_DOCUMENT = "no document is relevant to it"


def read_jsonl(path: Path, bad_lines: BadLines) -> Dataset:
    """A dataset of queries, each with its documents as candidates, in their order.

    Args:
        path: one JSON object per line, or an array of them, with `query`, `documents` (texts, or objects as in
            `document_of`) and `labels`, an integer for each document; or with `query`, `positive` and `negative`.
            Optional: `changed_labels`, the labels under another instruction, and `query_id`, by default the number of
            the line, not counting blank lines. Other fields that are text or numbers describe the query. Names of ids
            are those of `text_fields`.
        bad_lines: collects lines that are not such an object.

    Raises:
        InputError: no query has a relevant document.
    """
    documents: dict[str, str] = {}
    queries: dict[str, LabelledQuery] = {}
    numbers, unread = count(1), UnreadFields()

    def read(line: TextLine) -> None:
        query, texts = _query(line, str(next(numbers)), unread)
        if query.id in queries:
            raise InputError(f"the query id {query.id!r} occurs twice")
        for id, text in texts.items():
            if documents.get(id, text) != text:
                raise InputError(f"the document id {id!r} has two different texts")
        documents.update(texts)
        queries[query.id] = query

    bad_lines.read_each("queries", read_object_lines(path), read)
    unread.report(path)
    if not queries and not bad_lines.skipped:
        raise InputError(f"{path} contains no queries")
    kept = [query for query in queries.values() if query.relevant]
    if not kept:
        raise InputError(f"{path} contains no query with a relevant document, which has a label of 1 or more")
    excluded = frozenset(queries).difference(query.id for query in kept)
    return Dataset(
        name=path.name,
        documents=dict(zip(documents, with_whole_characters([*documents.values()]), strict=True)),
        queries=kept,
        first_stage="the given order",
        excluded={NO_RELEVANT_DOCUMENT: len(excluded)} if excluded else {},
        excluded_ids=excluded,
    )


def other_fields(fields: Mapping[str, Any], known: set[str]) -> dict[str, str]:
    """The fields, including those in the object `metadata`, that are text or numbers and not in `known`."""
    metadata = fields.get("metadata")
    found = {**(metadata if isinstance(metadata, dict) else {}), **fields}
    return {
        name: str(value)
        for name, value in found.items()
        if name not in known and isinstance(value, str | int | float) and str(value).strip()
    }


def _query(line: TextLine, default_id: str, unread: UnreadFields) -> tuple[LabelledQuery, dict[str, str]]:
    fields = line.fields()
    text, given_id = query_of(fields)
    id = checked_id(default_id if given_id is None else given_id, '"query_id"')
    documents = _documents(listed_documents(fields), id, unread)
    unread.count_lists(fields, len(documents))
    changed = fields.get("changed_labels")
    query = LabelledQuery(
        id=id,
        text=text_of({"query": text} if "query" in fields else {}, "query", is_blank_allowed=False),
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
