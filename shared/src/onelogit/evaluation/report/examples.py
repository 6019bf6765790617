"""Evaluation -> examples: the queries whose metric changed most, with the best documents before and after."""

from typing import NamedTuple, cast

from onelogit.evaluation.data.dataset import LabelledQuery
from onelogit.evaluation.evaluation import Evaluation, SystemResult
from onelogit.evaluation.metrics import Ranking
from onelogit.evaluation.scoring import SystemRun
from onelogit.io.lines import shortened

_QUERIES = 3
_DOCUMENTS = 5
_NOT_FOUND = 10
_QUERY_CHARACTERS = 160
_DOCUMENT_CHARACTERS = 240


class RankedDocument(NamedTuple):
    """A document in one of two rankings.

    Attributes:
        rank: from 1.
        other_rank: in the other ranking.
        label: 1 or more means relevant; 0 if the document has no label.
        text: its beginning.
    """

    rank: int
    other_rank: int
    label: int
    text: str


class Example(NamedTuple):
    """One query, as ranked by the first stage and by a system.

    Attributes:
        query: its text.
        before, after: the main metric of the first stage and of the system.
        documents_before, documents_after: the best documents of the first stage and of the system, best first.
        below_before, below_after: the relevant documents below these, best first.
        not_found: the beginnings of relevant documents that are not among the candidates; the first ten of them.
        not_found_count: how many there are.
    """

    query: str
    before: float
    after: float
    documents_before: list[RankedDocument]
    documents_after: list[RankedDocument]
    below_before: list[RankedDocument]
    below_after: list[RankedDocument]
    not_found: list[str]
    not_found_count: int


class Examples(NamedTuple):
    """The queries of a system for which the main metric fell most, worst first, and rose most, best first."""

    lost: list[Example]
    gained: list[Example]


def metric_changes(evaluation: Evaluation, result: SystemResult) -> list[float]:
    """The change of the main metric for each query, from the first stage to the system."""
    before, after = (each.values[evaluation.main_metric] for each in (evaluation.results[0], result))
    return [b - a for a, b in zip(before, after, strict=True)]


def find_examples(evaluation: Evaluation, result: SystemResult) -> Examples:
    """The examples of a system."""
    changes = metric_changes(evaluation, result)
    order = sorted(range(len(changes)), key=lambda index: changes[index])
    return Examples(
        lost=[_example(evaluation, result, index) for index in order[:_QUERIES] if changes[index] < 0],
        gained=[_example(evaluation, result, index) for index in order[::-1][:_QUERIES] if changes[index] > 0],
    )


def _example(evaluation: Evaluation, result: SystemResult, index: int) -> Example:
    query = evaluation.queries[index]
    before = query.candidates or ()
    after = cast("SystemRun", result.run).ranking(query)
    documents_before, below_before = _documents(evaluation, query, before, after)
    documents_after, below_after = _documents(evaluation, query, after, before)
    texts = evaluation.dataset.documents
    not_found = [id for id in query.relevant if id not in before]
    return Example(
        query=shortened(query.text, _QUERY_CHARACTERS),
        before=evaluation.results[0].values[evaluation.main_metric][index],
        after=result.values[evaluation.main_metric][index],
        documents_before=documents_before,
        documents_after=documents_after,
        below_before=below_before,
        below_after=below_after,
        not_found=[shortened(texts[id], _DOCUMENT_CHARACTERS) for id in not_found[:_NOT_FOUND]],
        not_found_count=len(not_found),
    )


def _documents(
    evaluation: Evaluation, query: LabelledQuery, order: Ranking, other: Ranking
) -> tuple[list[RankedDocument], list[RankedDocument]]:
    """The best documents of an order, and the relevant ones below them."""
    other_ranks = {id: rank for rank, id in enumerate(other, start=1)}
    texts = evaluation.dataset.documents
    ranked = [
        RankedDocument(rank, other_ranks[id], query.labels.get(id, 0), shortened(texts[id], _DOCUMENT_CHARACTERS))
        for rank, id in enumerate(order, start=1)
        if rank <= _DOCUMENTS or query.labels.get(id, 0) > 0
    ]
    return ranked[:_DOCUMENTS], ranked[_DOCUMENTS:]
