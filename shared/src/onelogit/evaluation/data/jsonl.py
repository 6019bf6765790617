"""A JSONL file of queries, each with its documents and their labels -> DataSet."""

from pathlib import Path
from typing import Any, NamedTuple

from onelogit.errors import InputError
from onelogit.evaluation.data.bad_lines import Faults, id_of, label_of
from onelogit.evaluation.data.dataset import DataSet, JudgedQuery
from onelogit.io.text_files import document_of, read_lines, text_of
from onelogit.validation import check_text

_KNOWN = {"query", "query_id", "documents", "labels", "changed_labels"}
NOTHING_RELEVANT = "no document is relevant to it"


class _Document(NamedTuple):
    id: str
    text: str


def read_lists(path: Path, faults: Faults) -> DataSet:
    """Queries with the documents that are to be ranked, in the order of the first stage.

    Args:
        path: one object a line, with `query`, `documents` (texts, or objects with `id` and `text`) and `labels`, a
            whole number for each document. Where there are `changed_labels`, they are those under another instruction.
            `query_id` is the line's place among all where it is left out. Other fields that are text describe the
            query.
        faults: takes lines that are none.

    Raises:
        InputError: no query has a relevant document.
    """
    documents: dict[str, str] = {}
    queries: dict[str, JudgedQuery] = {}
    ids: set[str] = set()
    for number, line in enumerate(read_lines(path), start=1):
        try:
            query, mine = _query(line.fields(), str(number))
            _check_new(query, mine, ids, documents)
        except InputError as fault:
            faults.add("queries", line.place, fault)
            continue
        ids.add(query.id)
        documents.update(mine)
        if query.relevant:
            queries[query.id] = query
    if not ids and not faults.skipped:
        raise InputError(f"{path} is empty: it holds no queries")
    if not queries:
        raise InputError(f"{path} holds no query with a relevant document: a label must be 1 or more")
    left_out = ids.difference(queries)
    return DataSet(
        name=path.name,
        documents=documents,
        queries=[*queries.values()],
        first_stage="the given order",
        left_out={NOTHING_RELEVANT: len(left_out)} if left_out else {},
        left_out_ids=frozenset(left_out),
    )


def fields_of(fields: dict[str, Any], known: set[str]) -> dict[str, str]:
    """What else is said of a query, as far as it is text or a number, also one step down in `metadata`."""
    metadata = fields.get("metadata")
    found = {**(metadata if isinstance(metadata, dict) else {}), **fields}
    return {
        name: str(value)
        for name, value in found.items()
        if name not in known and isinstance(value, str | int | float) and str(value).strip()
    }


def _query(fields: dict[str, Any], place: str) -> tuple[JudgedQuery, list[_Document]]:
    id = id_of(fields.get("query_id", place), '"query_id"')
    documents = _documents(fields.get("documents"), id)
    changed = fields.get("changed_labels")
    query = JudgedQuery(
        id=id,
        text=text_of(fields, "query", is_blank_allowed=False),
        labels=_labels(fields.get("labels"), documents, "labels"),
        changed_labels=None if changed is None else _labels(changed, documents, "changed_labels"),
        found=tuple(document.id for document in documents),
        fields=fields_of(fields, _KNOWN),
    )
    return query, documents


def _documents(given: object, query_id: str) -> list[_Document]:
    if not isinstance(given, list) or not given:
        raise InputError('"documents" must be a list of texts, with at least one')
    documents = [_document(each, f"{query_id}/{number}") for number, each in enumerate(given, start=1)]
    if len({document.id for document in documents}) < len(documents):
        raise InputError("two documents have the same id")
    return documents


def _document(given: object, place: str) -> _Document:
    if isinstance(given, dict):
        return _Document(id_of(given.get("id"), "a document's id"), document_of(given))
    check_text(given, "a document")
    return _Document(place, str(given))


def _labels(given: object, documents: list[_Document], name: str) -> dict[str, int]:
    if not isinstance(given, list) or len(given) != len(documents):
        count = f"{len(given)} labels" if isinstance(given, list) else "no list"
        raise InputError(f'"{name}" must be a list with one for each of {len(documents)} documents, not {count}')
    return {document.id: label_of(label) for document, label in zip(documents, given, strict=True)}


def _check_new(query: JudgedQuery, mine: list[_Document], ids: set[str], documents: dict[str, str]) -> None:
    if query.id in ids:
        raise InputError(f"the query's id {query.id!r} stands twice")
    for document in mine:
        if documents.get(document.id, document.text) != document.text:
            raise InputError(f"the document's id {document.id!r} stands for two texts")
