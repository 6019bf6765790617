"""Figures of the same queries in several columns -> intervals of their means, by one paired bootstrap."""

from collections.abc import Sequence
from typing import NamedTuple

RESAMPLES = 2000
_CELLS_AT_ONCE = 2_000_000


class Interval(NamedTuple):
    """Where 95 of 100 resampled means lie."""

    low: float
    high: float


class Mean(NamedTuple):
    """A mean over queries, and where 95 of 100 resampled ones lie; None for fewer than two queries."""

    value: float
    interval: Interval | None


def means_of(columns: Sequence[Sequence[float]], seed: int) -> list[Mean]:
    """The mean of each column, none of them empty, with its interval."""
    found = intervals(columns, seed)
    return [Mean(sum(column) / len(column), each) for column, each in zip(columns, found, strict=True)]


def intervals(columns: Sequence[Sequence[float]], seed: int) -> list[Interval | None]:
    """The 95 % interval of each column's mean, by the percentile bootstrap over queries.

    Every resample draws the same queries for all columns: columns of differences of one query are so compared in pairs.

    Args:
        columns: figures of the same queries in the same order, such as differences from a baseline.
        seed: the same one gives the same intervals.

    Returns:
        One for each column; None for fewer than two queries, which say nothing of others.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13; Sakai, Evaluating Evaluation
        Metrics based on the Bootstrap, SIGIR 2006, https://doi.org/10.1145/1148170.1148261.
    """
    import numpy as np  # noqa: PLC0415  comes with the extra

    count = len(columns[0]) if columns else 0
    if count < 2:
        return [None] * len(columns)
    table = np.asarray(columns, dtype=np.float64).T  # (queries, columns)
    chance = np.random.default_rng(seed)
    means = np.empty((RESAMPLES, len(columns)))
    step = max(1, _CELLS_AT_ONCE // count)
    for start in range(0, RESAMPLES, step):
        drawn = chance.integers(count, size=(min(step, RESAMPLES - start), count))
        weights = np.stack([np.bincount(row, minlength=count) for row in drawn]) / count
        means[start : start + len(drawn)] = weights @ table
    low, high = np.quantile(means, (0.025, 0.975), axis=0)
    return [Interval(float(a), float(b)) for a, b in zip(low, high, strict=True)]
