"""Runs of one model with several instructions or templates -> measures of the difference between their rankings."""

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

from onelogit.errors import InputError
from onelogit.evaluation.bootstrap import MeanEstimate, estimate_means
from onelogit.evaluation.data.dataset import LabelledQuery
from onelogit.evaluation.metrics import Ranking, sort_by_logit
from onelogit.evaluation.scoring import SystemRun
from onelogit.evaluation.systems import System
from onelogit.ranking import kendall_tau

_ROWS_AT_ONCE = 256


class RankingChange(NamedTuple):
    """How the ranking of one query's candidates changed.

    Attributes:
        flipped: the share of pairs of candidates whose order is reversed, 0 to 1.
        kendall_tau: tau-b of the logits, -1 to 1; None if all logits are equal before or after.
        p_mrr: see `p_mrr`; None if no relevant document of the query became irrelevant.
    """

    flipped: float
    kendall_tau: float | None
    p_mrr: float | None


class PairwiseComparison(NamedTuple):
    """How much the rankings of two systems differ: means over the queries.

    Attributes:
        before, after: names of the two systems.
        flipped: see `RankingChange`.
        kendall_tau: see `RankingChange`; None if no query has one.
        p_mrr: see `RankingChange`; None if no label changed between the two systems: the labels are for the first
            instruction, and the changed labels for any other.
        query_count: how many queries have at least two candidates.
        changed_count: how many queries have a p-MRR.
    """

    before: str
    after: str
    flipped: MeanEstimate
    kendall_tau: MeanEstimate | None
    p_mrr: MeanEstimate | None
    query_count: int
    changed_count: int


def check_pairs(systems: Sequence[System], queries: Sequence[LabelledQuery]) -> None:
    """Check that systems can be compared.

    Raises:
        InputError: no two systems share a model, or no query has two candidates.
    """
    if all(before.spec.name != after.spec.name for before, after in combinations(systems, 2)):
        raise InputError(
            "--pairwise compares instructions, templates or quantisations of one model; name at least two of them"
        )
    if all(len(query.candidates or ()) < 2 for query in queries):
        raise InputError("--pairwise needs a query with at least two candidates")


def compare_pairs(queries: Sequence[LabelledQuery], runs: Sequence[SystemRun], seed: int) -> list[PairwiseComparison]:
    """Compare all pairs of systems that share a model. `before` is the earlier system of a pair.

    Raises:
        InputError: as `check_pairs`.
    """
    check_pairs([run.system for run in runs], queries)
    return [
        _comparison(queries, before, after, seed, runs[0].system.instruction)
        for before, after in combinations(runs, 2)
        if before.system.spec.name == after.system.spec.name
    ]


def _comparison(
    queries: Sequence[LabelledQuery], before: SystemRun, after: SystemRun, seed: int, first_instruction: str | None
) -> PairwiseComparison:
    is_changed = before.system.instruction == first_instruction != after.system.instruction
    found = (compare_rankings(query, before.logits(query), after.logits(query)) for query in queries)
    changes = [change for change in found if change is not None]
    taus = [change.kendall_tau for change in changes if change.kendall_tau is not None]
    p_mrrs = [change.p_mrr for change in changes if change.p_mrr is not None and is_changed]
    return PairwiseComparison(
        before=before.system.name,
        after=after.system.name,
        flipped=estimate_means([[change.flipped for change in changes]], seed)[0],
        kendall_tau=estimate_means([taus], seed)[0] if taus else None,
        p_mrr=estimate_means([p_mrrs], seed)[0] if p_mrrs else None,
        query_count=len(changes),
        changed_count=len(p_mrrs),
    )


def compare_rankings(query: LabelledQuery, before: Sequence[float], after: Sequence[float]) -> RankingChange | None:
    """How the ranking of a query's candidates changed; None for fewer than two candidates.

    Args:
        query: with candidates.
        before: logits of its candidates, under the instruction of `labels`.
        after: logits of its candidates, under the instruction of `changed_labels` if there are any.
    """
    if len(before) < 2:
        return None
    rankings = [sort_by_logit(query, logits) for logits in (before, after)]
    return RankingChange(_flipped(before, after), kendall_tau(before, after), p_mrr(query, *rankings))


def p_mrr(query: LabelledQuery, before: Ranking, after: Ranking) -> float | None:
    """How well the ranks of documents that became irrelevant follow the instruction: -1 to 1, 0 if they do not change.

    A document with rank r before and s after counts 1 - r / s if it fell (s > r), as it should, and s / r - 1, which is
    negative, if it rose. The result is the mean over the documents that were relevant and no longer are. A document
    that is not among the candidates has the rank after the last one, before and after.

    Args:
        query: its `changed_labels` are the labels under the second instruction.
        before: ids, best first, under the first instruction.
        after: ids, best first, under the second instruction.

    Returns:
        None if no document became irrelevant.

    Source: Weller et al., FollowIR: Evaluating and Teaching Information Retrieval Models to Follow Instructions, 2024,
        https://arxiv.org/abs/2403.15246, which uses reciprocal ranks.
    """
    changed = query.changed_labels
    if changed is None:
        return None
    lost = [id for id in query.relevant if changed.get(id, 1) <= 0]
    if not lost:
        return None
    last = len(before) + 1
    old, new = ({id: rank for rank, id in enumerate(order, start=1)} for order in (before, after))
    ranks = [(old.get(id, last), new.get(id, last)) for id in lost]
    return sum(s / r - 1 if r >= s else 1 - r / s for r, s in ranks) / len(ranks)


def _flipped(before: Sequence[float], after: Sequence[float]) -> float:
    """The share of pairs that the logits order one way before and the other way after."""
    import numpy as np  # noqa: PLC0415  comes with the extra

    old, new = (np.asarray(logits, dtype=np.float64) for logits in (before, after))
    count = len(old)
    flipped = 0
    for start in range(0, count, _ROWS_AT_ONCE):  # all rows at once would need memory quadratic in the candidates
        rows = slice(start, start + _ROWS_AT_ONCE)
        signs = np.sign(old[rows, None] - old) * np.sign(new[rows, None] - new)
        flipped += int((signs < 0).sum())
    return flipped / (count * (count - 1))  # each pair was counted twice
