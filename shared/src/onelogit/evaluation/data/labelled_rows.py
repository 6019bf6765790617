"""Rows with one labelled document each -> LabelledQuery: the documents of all rows with the same query."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from onelogit.errors import InputError
from onelogit.evaluation.data.dataset import LabelledQuery
from onelogit.io.bad_lines import checked_id, checked_label
from onelogit.io.text_fields import (
    CHANGED_LABEL_NAMES,
    LABEL_NAMES,
    ROW_NAMES,
    UnreadFields,
    document_id_of,
    document_of,
    first_of,
    listed_documents,
    text_name_of,
)


def is_labelled_row(fields: Mapping[str, Any]) -> bool:
    """Whether a row has one document of its own in place of a list."""
    return listed_documents(fields) is None and text_name_of(fields) is not None


@dataclass(slots=True)
class LabelledRows:
    """The rows of one query that were read so far.

    Attributes:
        id, text: of the query.
        documents: texts by id.
        labels, changed_labels: by document id.
        fields: the other fields that are equal in all rows, which describe the query.
        unread: the names of the other fields, which differ.
    """

    id: str
    text: str
    documents: dict[str, str] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)
    changed_labels: dict[str, int] = field(default_factory=dict)
    fields: dict[str, str] = field(default_factory=dict)
    unread: set[str] = field(default_factory=set)

    def add(self, text: str, row: Mapping[str, Any], other_fields: Mapping[str, str], unread: UnreadFields) -> None:
        """Add the document of a row, whose query has this text.

        Raises:
            InputError: the row has no label or document, or contradicts an earlier one.
        """
        if text != self.text:
            raise InputError(f"the query id {self.id!r} has two different queries")
        label, changed = first_of(row, LABEL_NAMES), first_of(row, CHANGED_LABEL_NAMES)
        if label is None:
            raise InputError('"label" is missing; a row with one document has its label, and other rows "documents"')
        label, changed = checked_label(label), None if changed is None else checked_label(changed)
        given = document_id_of(row)
        id = f"{self.id}/{len(self.documents) + 1}" if given is None else checked_id(given, "the document id")
        if id in self.documents:
            raise InputError(f"the document id {id!r} occurs twice for the query {self.id!r}")
        document = document_of(row)
        unread.count({name: value for name, value in row.items() if name in ROW_NAMES})
        self._keep_common(other_fields)
        self.documents[id], self.labels[id] = document, label
        if changed is not None:
            self.changed_labels[id] = changed

    def _keep_common(self, other_fields: Mapping[str, str]) -> None:
        if not self.documents:
            self.fields = dict(other_fields)
        equal = {name for name, value in self.fields.items() if other_fields.get(name) == value}
        self.unread |= (self.fields.keys() | other_fields.keys()) - equal
        self.fields = {name: self.fields[name] for name in self.fields if name in equal}

    def query(self) -> LabelledQuery:
        """The query with its documents as candidates, in the order of their rows."""
        return LabelledQuery(
            id=self.id,
            text=self.text,
            labels=self.labels,
            changed_labels=self.changed_labels or None,
            candidates=tuple(self.documents),
            fields=self.fields,
        )
