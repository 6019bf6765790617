"""Runs of one model under several instructions or templates -> how its orders differ, over all queries."""

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple, cast

from onelogit.errors import InputError
from onelogit.evaluation.bootstrap import Mean, means_of
from onelogit.evaluation.data.dataset import JudgedQuery
from onelogit.evaluation.moves import move
from onelogit.evaluation.scoring import SystemRun
from onelogit.evaluation.systems import System


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
