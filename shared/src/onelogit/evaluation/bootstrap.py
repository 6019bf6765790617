"""Per-query values in several columns -> the mean of each column with a confidence interval, by a paired bootstrap."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

RESAMPLES = 2000
_CELLS_AT_ONCE = 2_000_000


class ConfidenceInterval(NamedTuple):
    """A 95 % confidence interval."""

    low: float
    high: float


class MeanEstimate(NamedTuple):
    """A mean over queries with its 95 % confidence interval, which is None for fewer than two queries."""

    value: float
    interval: ConfidenceInterval | None

    @property
    def verdict(self) -> Literal["gain", "loss", "same"]:
        """For a mean difference: whether its interval is above 0, below 0, or contains 0."""
        if self.interval is None or self.interval.low <= 0 <= self.interval.high:
            return "same"
        return "gain" if self.value > 0 else "loss"


def estimate_means(columns: Sequence[Sequence[float]], seed: int) -> list[MeanEstimate]:
    """The mean of each column with its 95 % confidence interval, by the percentile bootstrap over queries.

    Each resample draws the same queries for all columns, so that differences are compared query by query.

    Args:
        columns: values for the same queries in the same order, such as differences from a baseline; none is empty.
        seed: the same seed gives the same intervals.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13; Sakai, Evaluating Evaluation
        Metrics based on the Bootstrap, SIGIR 2006, https://doi.org/10.1145/1148170.1148261.
    """
    import numpy as np  # noqa: PLC0415  comes with the extra
    from scipy.stats import bootstrap  # type: ignore[import-untyped]  # noqa: PLC0415  comes with the extra

    values = [sum(column) / len(column) for column in columns]
    count = len(columns[0]) if columns else 0
    if count < 2:
        return [MeanEstimate(value, None) for value in values]
    table = np.asarray(columns, dtype=np.float64)

    def means(drawn: Any, axis: int) -> Any:  # noqa: ARG001  scipy names the axis of the queries, always the last one
        # The table times the count of each query: several times as fast as gathering the values of each resample.
        weights = np.stack([np.bincount(resample, minlength=count) for resample in drawn]) / count
        return table @ weights.T  # (columns, resamples)

    interval = bootstrap(
        (np.arange(count),),
        means,
        n_resamples=RESAMPLES,
        batch=max(1, _CELLS_AT_ONCE // count),
        vectorized=True,
        method="percentile",
        random_state=np.random.default_rng(seed),
    ).confidence_interval
    intervals = [ConfidenceInterval(float(low), float(high)) for low, high in zip(*interval, strict=True)]
    return [MeanEstimate(value, each) for value, each in zip(values, intervals, strict=True)]
