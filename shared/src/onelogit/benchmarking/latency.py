"""Times of calls -> percentiles, throughput, ratios, and whether the machine was quiet. Plain Python numbers."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

NOISY_SPREAD = 0.3  # of its median; beyond it, something else ran


class Times(NamedTuple):
    """The calls of one contestant.

    Attributes:
        name: for people.
        seconds: of each call, in order.
    """

    name: str
    seconds: tuple[float, ...]


class Ratio(NamedTuple):
    """How many times as fast, call by call: 2.0 is half the time."""

    median: float
    least: float
    greatest: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencySummary:
    """What the times of one contestant say.

    Attributes:
        name: for people.
        calls: how many were timed.
        p50_s, p95_s, p99_s: seconds of a call; None where too few calls were timed: see `percentile`.
        least_s, greatest_s: the fastest call, and the slowest.
        pairs_per_s: query-document pairs, the median over the calls.
        tokens_per_s: of whole prompts, each counted by itself however much it shares, the median over the calls; None
            where nobody here knows the tokenizer.
        times_as_fast: how many times as fast the first contestant is; None for the first itself.
        is_noisy: whether what a token costs, or else a pair, differs much between calls; or, for all but the first
            contestant, the ratio to it. None for a single call.
    """

    name: str
    calls: int
    p50_s: float | None
    p95_s: float | None
    p99_s: float | None
    least_s: float
    greatest_s: float
    pairs_per_s: float
    tokens_per_s: float | None
    times_as_fast: Ratio | None
    is_noisy: bool | None


def summarize(times: Times, first: Times, candidates: int, tokens: Sequence[int | None]) -> LatencySummary:
    """The figures of one contestant.

    Args:
        times: its own.
        first: those of the contestant that all are compared with; it may be the same.
        candidates: documents in each call.
        tokens: of each call's prompts.
    """
    seconds = times.seconds
    known = [count for count in tokens if count is not None]
    amounts = known if len(known) == len(seconds) else [candidates] * len(seconds)
    is_first = times.name == first.name
    ratios = None if is_first else [theirs / ours for theirs, ours in zip(seconds, first.seconds, strict=True)]
    costs = [taken / amount for taken, amount in zip(seconds, amounts, strict=True)]
    return LatencySummary(
        name=times.name,
        calls=len(seconds),
        p50_s=percentile(seconds, 50),
        p95_s=percentile(seconds, 95),
        p99_s=percentile(seconds, 99),
        least_s=min(seconds),
        greatest_s=max(seconds),
        pairs_per_s=statistics.median(candidates / taken for taken in seconds),
        tokens_per_s=1 / statistics.median(costs) if amounts is known else None,
        times_as_fast=None if ratios is None else Ratio(statistics.median(ratios), min(ratios), max(ratios)),
        is_noisy=is_noisy(costs if ratios is None else ratios),
    )


def percentile(seconds: Sequence[float], percent: int) -> float | None:
    """The time that so many per cent of the calls stay under, interpolated between the two nearest.

    Returns:
        None for fewer calls than it takes for one of them to lie beyond: 2 for the median, 20 for p95, 100 for p99.
    """
    if len(seconds) < calls_for(percent):
        return None
    return statistics.quantiles(seconds, n=100, method="inclusive")[percent - 1]


def calls_for(percent: int) -> int:
    """How many calls a percentile needs."""
    return -(-100 // (100 - percent))


def is_noisy(values: Sequence[float]) -> bool | None:
    """Whether values that should be equal are not; None for one alone.

    With eight or more, their middle half counts, for one slow call in many is what p99 is there to show; with fewer,
    all of them.
    """
    if len(values) < 2:
        return None
    least, greatest = min(values), max(values)
    if len(values) >= 8:
        least, _, greatest = statistics.quantiles(values, n=4, method="inclusive")
    return greatest - least > NOISY_SPREAD * statistics.median(values)
