"""Durations of calls -> percentiles, throughput, ratios, and whether the machine was idle. Plain Python numbers."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

NOISY_SPREAD = 0.3  # of the median; beyond it, something else was running


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times as fast one target is as another, call by call: 2.0 is half the time."""

    median: float
    least: float
    greatest: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencySummary:
    """The latency and throughput of one target in one case.

    Attributes:
        name: of the target.
        calls: number of timed calls.
        p50_s, p95_s, p99_s: percentiles of a call's seconds; None after too few calls, see `percentile`.
        least_s, greatest_s: seconds of the fastest and of the slowest call.
        pairs_per_s: query-document pairs per second, the median over the calls.
        tokens_per_s: tokens of whole prompts per second, the median over the calls; shared tokens count for each
            prompt. None if the tokenizer is unknown.
        times_as_fast: how many times as fast the first target is; None for the first target itself.
        is_noisy: whether the seconds per token (or per pair, if tokens are unknown) vary between calls; for targets
            other than the first, whether the ratio varies. None for a single call.
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


def summarize(
    name: str,
    seconds: Sequence[float],
    candidates: int,
    tokens: Sequence[int | None],
    first_seconds: Sequence[float] | None = None,
) -> LatencySummary:
    """Summarize the calls to one target.

    Args:
        name: of the target.
        seconds: of each call.
        candidates: documents in each call.
        tokens: in the prompts of each call.
        first_seconds: of the same calls to the first target; None for the first target itself.
    """
    known = [count for count in tokens if count is not None]
    amounts = known if len(known) == len(seconds) else [candidates] * len(seconds)
    costs = [taken / amount for taken, amount in zip(seconds, amounts, strict=True)]
    ratios = None if first_seconds is None else [a / b for a, b in zip(seconds, first_seconds, strict=True)]
    return LatencySummary(
        name=name,
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
    """The duration that `percent` per cent of the calls do not exceed, interpolated between the two nearest.

    Returns:
        None if there are too few calls: 2 are needed for the median, 20 for p95, 100 for p99.
    """
    if len(seconds) < calls_for(percent):
        return None
    return statistics.quantiles(seconds, n=100, method="inclusive")[percent - 1]


def calls_for(percent: int) -> int:
    """The number of calls that a percentile needs."""
    return -(-100 // (100 - percent))


def is_noisy(values: Sequence[float]) -> bool | None:
    """Whether values that should be equal vary by more than `NOISY_SPREAD` of their median; None for fewer than two.

    Of eight values or more, only the middle half counts: rare slow calls are shown by p99.
    """
    if len(values) < 2:
        return None
    least, greatest = min(values), max(values)
    if len(values) >= 8:
        least, _, greatest = statistics.quantiles(values, n=4, method="inclusive")
    return greatest - least > NOISY_SPREAD * statistics.median(values)
