"""Evaluation -> examples: the queries whose metric changed most, with the best documents before and after."""

from typing import NamedTuple, cast

from onelogit.evaluation.data.dataset import LabelledQuery
from onelogit.evaluation.evaluation import Evaluation, SystemResult
from onelogit.evaluation.metrics import Ranking
from onelogit.evaluation.scoring import SystemRun
from onelogit.io.lines import shortened

_QUERIES = 3
_DOCUMENTS = 5
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
    """

    query: str
    before: float
    after: float
    documents_before: list[RankedDocument]
    documents_after: list[RankedDocument]


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
    return Example(
        query=shortened(query.text, _QUERY_CHARACTERS),
        before=evaluation.results[0].values[evaluation.main_metric][index],
        after=result.values[evaluation.main_metric][index],
        documents_before=_documents(evaluation, query, before, after),
        documents_after=_documents(evaluation, query, after, before),
    )


def _documents(evaluation: Evaluation, query: LabelledQuery, order: Ranking, other: Ranking) -> list[RankedDocument]:
    other_ranks = {id: rank for rank, id in enumerate(other, start=1)}
    texts = evaluation.dataset.documents
    return [
        RankedDocument(rank, other_ranks[id], query.labels.get(id, 0), shortened(texts[id], _DOCUMENT_CHARACTERS))
        for rank, id in enumerate(order[:_DOCUMENTS], start=1)
    ]
