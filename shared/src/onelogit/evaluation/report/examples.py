"""Evaluation -> single queries worth reading: where each contestant lost and gained most, before and after."""

from collections.abc import Sequence
from typing import NamedTuple, cast

from onelogit.evaluation.data.dataset import JudgedQuery
from onelogit.evaluation.evaluation import Evaluation, SystemResult
from onelogit.evaluation.metrics import by_logit
from onelogit.evaluation.pairwise import logits_of
from onelogit.evaluation.scoring import SystemRun
from onelogit.io.text_files import shortened

QUERIES = 3
DOCUMENTS = 5
_DOCUMENT_CHARACTERS = 240
_QUERY_CHARACTERS = 160


class Placed(NamedTuple):
    """A document at its place in one order.

    Attributes:
        rank: from 1.
        other_rank: in the other order.
        label: from 1 up it is relevant; None where it is not judged.
        id: of the document.
        text: its beginning.
    """

    rank: int
    other_rank: int
    label: int | None
    id: str
    text: str

    @property
    def is_relevant(self) -> bool:
        """Whether it should stand in front."""
        return self.label is not None and self.label > 0


class Example(NamedTuple):
    """One query, in the first stage's order and in a contestant's.

    Attributes:
        query: the text.
        id: of the query.
        before: the main measure of the first stage's order.
        after: of the contestant's.
        documents_before: the best documents, best first.
        documents_after: the same of the contestant's order.
    """

    query: str
    id: str
    before: float
    after: float
    documents_before: list[Placed]
    documents_after: list[Placed]


class Examples(NamedTuple):
    """The queries of one contestant.

    Attributes:
        lost: where the main measure fell most, the worst first; only where it fell.
        gained: where it rose most, the best first.
        better_count: of how many queries it rose.
        worse_count: of how many it fell.
        same_count: of how many neither.
    """

    lost: list[Example]
    gained: list[Example]
    better_count: int
    worse_count: int
    same_count: int


def changes(evaluation: Evaluation, entry: SystemResult) -> list[float]:
    """How much the main measure rose for each query, from the first stage's order to the contestant's."""
    before, after = (each.figures[evaluation.main] for each in (evaluation.entries[0], entry))
    return [b - a for a, b in zip(before, after, strict=True)]


def stories(evaluation: Evaluation, entry: SystemResult) -> Examples:
    """What to read of a contestant."""
    rises = changes(evaluation, entry)
    order = sorted(range(len(rises)), key=lambda place: rises[place])
    lost = [place for place in order[:QUERIES] if rises[place] < 0]
    gained = [place for place in order[::-1][:QUERIES] if rises[place] > 0]
    better, worse = sum(rise > 0 for rise in rises), sum(rise < 0 for rise in rises)
    return Examples(
        lost=[_story(evaluation, entry, place) for place in lost],
        gained=[_story(evaluation, entry, place) for place in gained],
        better_count=better,
        worse_count=worse,
        same_count=len(rises) - better - worse,
    )


def _story(evaluation: Evaluation, entry: SystemResult, place: int) -> Example:
    query = evaluation.queries[place]
    before, after = list(query.found or ()), by_logit(query, logits_of(cast("SystemRun", entry.run), query))
    first = evaluation.entries[0].figures[evaluation.main]
    return Example(
        query=shortened(query.text, _QUERY_CHARACTERS),
        id=query.id,
        before=first[place],
        after=entry.figures[evaluation.main][place],
        documents_before=_placed(evaluation, query, before, after),
        documents_after=_placed(evaluation, query, after, before),
    )


def _placed(evaluation: Evaluation, query: JudgedQuery, order: Sequence[str], other: Sequence[str]) -> list[Placed]:
    other_rank = {id: rank for rank, id in enumerate(other, start=1)}
    return [
        Placed(rank, other_rank[id], query.labels.get(id), id, _beginning(evaluation.data.documents[id]))
        for rank, id in enumerate(order[:DOCUMENTS], start=1)
    ]


def _beginning(text: str) -> str:
    return shortened(text, _DOCUMENT_CHARACTERS)
