"""Two orders of the same candidates -> how far one has moved from the other: pairs flipped, Kendall's tau, p-MRR."""

from collections.abc import Sequence
from typing import NamedTuple

from onelogit.evaluation.data.dataset import JudgedQuery
from onelogit.evaluation.metrics import by_logit
from onelogit.ranking import kendall_tau

_ROWS_AT_ONCE = 256


class Move(NamedTuple):
    """How one query's candidates moved.

    Attributes:
        flipped: the share of all pairs of candidates that stand the other way round, 0 to 1.
        kendall_tau: of the logits, tau-b, -1 to 1; None where one side gave all candidates the same.
        p_mrr: see `p_mrr`; None where no label of the query changed.
    """

    flipped: float
    kendall_tau: float | None
    p_mrr: float | None


def move(query: JudgedQuery, before: Sequence[float], after: Sequence[float]) -> Move | None:
    """From the logits under one instruction to those under another; None for fewer than two candidates.

    Args:
        query: with candidates.
        before: logits of its candidates, under the instruction that `labels` are for.
        after: the same, under the instruction that `changed_labels` are for, where there are any.
    """
    if len(before) < 2:
        return None
    orders = [by_logit(query, logits) for logits in (before, after)]
    return Move(_flipped(before, after), kendall_tau(before, after), p_mrr(query, *orders))


def p_mrr(query: JudgedQuery, before: Sequence[str], after: Sequence[str]) -> float | None:
    """How well the ranks of documents that an instruction made irrelevant follow it: -1 to 1, 0 for not at all.

    For a document of rank r before and s after: 1 - r / s where it fell (s > r), as it should; else s / r - 1, which is
    negative where it rose. The query's value is the mean over the documents that were relevant and are said to be no
    longer; one that is not among the candidates stands behind the last, before and after.

    Args:
        query: its `changed_labels` say what is relevant under the second instruction.
        before: ids, best first, under the first instruction.
        after: ids, best first, under the second one.

    Returns:
        None where no document became irrelevant.

    Source: Weller et al., FollowIR: Evaluating and Teaching Information Retrieval Models to Follow Instructions, 2024,
        https://arxiv.org/abs/2403.15246, where it is written in reciprocal ranks.
    """
    changed = query.changed_labels
    if changed is None:
        return None
    lost = [id for id in query.relevant if changed.get(id, 1) <= 0]
    if not lost:
        return None
    old, new = ({id: rank for rank, id in enumerate(order, start=1)} for order in (before, after))
    last = len(before) + 1
    return sum(_of_ranks(old.get(id, last), new.get(id, last)) for id in lost) / len(lost)


def _of_ranks(before: int, after: int) -> float:
    return after / before - 1 if before >= after else 1 - before / after


def _flipped(before: Sequence[float], after: Sequence[float]) -> float:
    """The share of pairs in which the logits say the opposite."""
    import numpy as np  # noqa: PLC0415  comes with the extra

    old, new = (np.asarray(logits, dtype=np.float64) for logits in (before, after))
    count = len(old)
    flipped = 0
    for start in range(0, count, _ROWS_AT_ONCE):  # all at once would take the square of the candidates
        rows = slice(start, start + _ROWS_AT_ONCE)
        signs = np.sign(old[rows, None] - old) * np.sign(new[rows, None] - new)
        flipped += int((signs < 0).sum())
    return flipped / (count * (count - 1))  # each pair was seen from both of its sides
