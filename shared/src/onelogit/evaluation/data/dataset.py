"""LabelledQuery and Dataset: queries, documents, and labels for the relevance of documents to queries."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledQuery:
    """A query with relevance labels.

    Attributes:
        id: unique among the queries.
        text: not blank.
        labels: the relevance of documents by id; 1 or more means relevant. At least one document is relevant.
        changed_labels: the labels under another instruction, as in FollowIR; None if there are none.
        candidates: ids of the documents that the first stage found, best first; None before BM25 has searched.
        fields: other facts about the query, such as its language.
    """

    id: str
    text: str
    labels: Mapping[str, int]
    changed_labels: Mapping[str, int] | None = None
    candidates: tuple[str, ...] | None = None
    fields: Mapping[str, str] = field(default_factory=dict)

    @property
    def relevant(self) -> list[str]:
        """Ids of the relevant documents."""
        return [id for id, label in self.labels.items() if label > 0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """The data that models are evaluated on.

    Attributes:
        name: shown in reports.
        documents: text by id.
        queries: the queries that have a relevant document.
        first_stage: the origin of the candidates; shown in reports.
        excluded: the number of excluded queries, by reason.
        excluded_ids: ids of the excluded queries, which a run file may still contain.
    """

    name: str
    documents: Mapping[str, str]
    queries: Sequence[LabelledQuery]
    first_stage: str
    excluded: Mapping[str, int] = field(default_factory=dict)
    excluded_ids: frozenset[str] = frozenset()

    def digest(self) -> str:
        """Sixteen hexadecimal digits that depend on the ids, texts, labels, fields and candidates."""
        digest = sha256()
        candidates = {id for query in self.queries for id in query.candidates or ()}
        for id in sorted(candidates):
            digest.update(json.dumps([id, self.documents[id]]).encode())
        for query in self.queries:
            labels = [None if each is None else sorted(each.items()) for each in (query.labels, query.changed_labels)]
            digest.update(json.dumps([query.id, query.text, *labels, dict(query.fields), query.candidates]).encode())
        return digest.hexdigest()[:16]
