"""The logits of two models for the same pairs -> measures of their difference. Plain Python floats."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from onelogit.ranking import kendall_tau


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The logits of one model, compared with the original's for the same pairs.

    Attributes:
        name: of the model, and of the library that computed its logits, if several did.
        logits: float32, in the pairs' order.
        largest_difference: the largest absolute difference of a logit from the original's.
        mean_difference: the mean absolute difference.
        kendall_tau: tau-b of the two orders of all pairs: 1 for the same order, -1 for the reverse; None if one model
            gave all pairs the same logit.
        top_5_overlap: see `top_overlap`.
        top_10_overlap: see `top_overlap`.
        ties_in_float32: the number of pairs that share their logit with another pair.
        ties_in_bfloat16: as ties_in_float32, for logits rounded to bfloat16, which many servers return.
    """

    name: str
    logits: tuple[float, ...]
    largest_difference: float
    mean_difference: float
    kendall_tau: float | None
    top_5_overlap: float | None
    top_10_overlap: float | None
    ties_in_float32: int
    ties_in_bfloat16: int


def compare(name: str, original: Sequence[float], logits: Sequence[float], queries: Sequence[str]) -> Comparison:
    """Compare logits with the original's.

    Args:
        name: of the model that gave `logits`.
        original: the original's logits, at least one.
        logits: for the same pairs, in the same order.
        queries: the query of each pair.

    Raises:
        InputError: scipy is not installed.
    """
    differences = [abs(ours - theirs) for ours, theirs in zip(logits, original, strict=True)]
    differences = [each if math.isfinite(each) else math.inf for each in differences]  # max() would lose a NaN
    return Comparison(
        name=name,
        logits=tuple(logits),
        largest_difference=max(differences),
        mean_difference=sum(differences) / len(differences),
        kendall_tau=kendall_tau(original, logits),
        top_5_overlap=top_overlap(original, logits, queries, 5),
        top_10_overlap=top_overlap(original, logits, queries, 10),
        ties_in_float32=_tied_count(logits),
        ties_in_bfloat16=_tied_count(torch.tensor(logits).bfloat16().tolist()),
    )


def top_overlap(original: Sequence[float], logits: Sequence[float], queries: Sequence[str], top_n: int) -> float | None:
    """The share of a query's best `top_n` documents that both models have in common, as the mean over the queries.

    Returns:
        0 to 1; None if no query has more than `top_n` documents. Queries with fewer are left out: any order would give
        1.
    """
    pairs_of: dict[str, list[int]] = {}
    for index, query in enumerate(queries):
        pairs_of.setdefault(query, []).append(index)
    shares = [
        len(_best(original, pairs, top_n) & _best(logits, pairs, top_n)) / top_n
        for pairs in pairs_of.values()
        if len(pairs) > top_n
    ]
    return sum(shares) / len(shares) if shares else None


def _best(logits: Sequence[float], pairs: Sequence[int], top_n: int) -> set[int]:
    return set(sorted(pairs, key=lambda index: -logits[index])[:top_n])


def _tied_count(logits: Sequence[float]) -> int:
    return sum(count for count in Counter(logits).values() if count > 1)
