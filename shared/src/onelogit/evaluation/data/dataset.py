"""JudgedQuery and DataSet: queries, documents, and which document is how relevant to which query. Data alone."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedQuery:
    """A query and what is known of it.

    Attributes:
        id: among all queries.
        text: not blank.
        labels: how relevant documents are, by their ids; from 1 up they are relevant. At least one is.
        changed_labels: the same under another instruction, as in FollowIR; None where there are none.
        found: the documents that a first stage found, best first; None where BM25 is to find them.
        fields: whatever else the data say of it, such as its language.
    """

    id: str
    text: str
    labels: Mapping[str, int]
    changed_labels: Mapping[str, int] | None = None
    found: tuple[str, ...] | None = None
    fields: Mapping[str, str] = field(default_factory=dict)

    @property
    def relevant(self) -> list[str]:
        """Ids of the documents that are relevant."""
        return [id for id, label in self.labels.items() if label > 0]


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSet:
    """What models are measured on.

    Attributes:
        name: for people.
        documents: text by id.
        queries: those that have a relevant document.
        first_stage: what found the candidates, for people.
        left_out: how many queries were left out, by the reason.
        left_out_ids: theirs, which a run may name all the same.
    """

    name: str
    documents: Mapping[str, str]
    queries: Sequence[JudgedQuery]
    first_stage: str
    left_out: Mapping[str, int] = field(default_factory=dict)
    left_out_ids: frozenset[str] = frozenset()

    def digest(self) -> str:
        """Sixteen hexadecimal digits of all that a result depends on: ids, texts, labels and candidates."""
        digest = sha256()
        candidates = {id for query in self.queries for id in query.found or ()}
        for id in sorted(candidates):
            digest.update(json.dumps([id, self.documents[id]]).encode())
        for query in self.queries:
            labels = (_plain(query.labels), _plain(query.changed_labels))
            digest.update(json.dumps([query.id, query.text, *labels, dict(query.fields), query.found]).encode())
        return digest.hexdigest()[:16]


def _plain(labels: Mapping[str, int] | None) -> list[tuple[str, int]] | None:
    return None if labels is None else sorted(labels.items())
