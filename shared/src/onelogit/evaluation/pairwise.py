"""Runs of one model under several instructions or templates -> how its orders differ, over all queries."""

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple, cast

from onelogit.errors import InputError
from onelogit.evaluation.bootstrap import Mean, means_of
from onelogit.evaluation.data.dataset import JudgedQuery
from onelogit.evaluation.metrics import by_logit
from onelogit.evaluation.scoring import SystemRun
from onelogit.evaluation.systems import System
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


class Pairing(NamedTuple):
    """How the candidates moved from one contestant's order to another's: means over the queries.

    Attributes:
        before: the name of one.
        after: the name of the other.
        flipped: see `Move`.
        kendall_tau: see `Move`; None where no query has one.
        p_mrr: see `Move`; None where no label changed, or not between these two: labels are those of the first
            instruction, and change with another one.
        query_count: how many queries have two candidates or more.
        changed_count: how many have labels that changed between these two.
    """

    before: str
    after: str
    flipped: Mean
    kendall_tau: Mean | None
    p_mrr: Mean | None
    query_count: int
    changed_count: int


def logits_of(run: SystemRun, query: JudgedQuery) -> Sequence[float]:
    """The logits of a query's candidates, which are there."""
    return cast("Sequence[float]", run.scored[query.id].logits)


def check_pairs(systems: Sequence[System], queries: Sequence[JudgedQuery]) -> None:
    """Refuse to pair where there is nothing to pair.

    Raises:
        InputError: no two contestants have the model in common, or no query has two candidates.
    """
    if all(before.model != after.model for before, after in combinations(systems, 2)):
        raise InputError("--pairwise compares two instructions or templates of a model; name two of them")
    if all(len(query.found or ()) < 2 for query in queries):
        raise InputError("--pairwise needs a query with two candidates or more")


def pair(queries: Sequence[JudgedQuery], runs: Sequence[SystemRun], seed: int) -> list[Pairing]:
    """All pairs of contestants that have the model in common, the earlier one as what was before.

    Raises:
        InputError: as `check_pairs`.
    """
    check_pairs([run.system for run in runs], queries)
    first = runs[0].system.instruction
    return [
        _pairing(
            queries,
            before,
            after,
            seed,
            is_changed=before.system.instruction == first != after.system.instruction,
        )
        for before, after in combinations(runs, 2)
        if before.system.model == after.system.model
    ]


def _pairing(
    queries: Sequence[JudgedQuery], before: SystemRun, after: SystemRun, seed: int, *, is_changed: bool
) -> Pairing:
    all_moves = [move(query, logits_of(before, query), logits_of(after, query)) for query in queries]
    moves = [each for each in all_moves if each is not None]
    p_mrr = [each.p_mrr for each in moves if each.p_mrr is not None and is_changed]
    return Pairing(
        before=before.system.name,
        after=after.system.name,
        flipped=means_of([[each.flipped for each in moves]], seed)[0],
        kendall_tau=_mean([each.kendall_tau for each in moves if each.kendall_tau is not None], seed),
        p_mrr=_mean(p_mrr, seed),
        query_count=len(moves),
        changed_count=len(p_mrr),
    )


def _mean(values: Sequence[float], seed: int) -> Mean | None:
    return means_of([values], seed)[0] if values else None


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
