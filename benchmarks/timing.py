"""Calls in this process -> their durations by the device's events and by the wall clock, within a time limit."""

import math
import signal
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch

from onelogit.benchmarking.runner import rotated

Compute = Callable[[], list[float]]


class OutOfTime(BaseException):
    """The time of the run is over. Not an `Exception`, so that `except Exception` does not catch it."""


class TimeLimit:
    """The time of a run, which starts now and must have ended after some seconds."""

    def __init__(self, seconds: float) -> None:
        self._start = time.monotonic()
        self._seconds = seconds

    @property
    def spent_s(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._start

    @property
    def left_s(self) -> float:
        """Seconds left for measurements, with a reserve for the one in progress to finish and for the report."""
        return self._seconds - max(self._seconds / 20, min(15, self._seconds / 4)) - self.spent_s

    @contextmanager
    def enforced(self) -> Iterator[None]:
        """Raise OutOfTime in the block when the time is over, even if it is compiling or waiting for a device."""
        previous = signal.signal(signal.SIGALRM, _raise_out_of_time)
        signal.setitimer(signal.ITIMER_REAL, max(self._seconds * 0.98 - self.spent_s, 1e-3))
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, previous)


def _raise_out_of_time(*_: object) -> None:
    raise OutOfTime


class DeviceCall(NamedTuple):
    """The duration and the logits of one call.

    Attributes:
        device_s: between an event on the device before the call's work and one after it; on a CPU, equal to `wall_s`.
        wall_s: until the call returned its logits.
        logits: one per document.
    """

    device_s: float
    wall_s: float
    logits: list[float]


def time_call(device: torch.device, compute: Compute) -> DeviceCall:
    """Time one call."""
    if device.type != "cuda":
        start = time.perf_counter()
        logits = compute()
        wall_s = time.perf_counter() - start
        return DeviceCall(wall_s, wall_s, logits)
    before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize(device)
    start = time.perf_counter()
    before.record()
    logits = compute()
    wall_s = time.perf_counter() - start
    after.record()
    after.synchronize()
    return DeviceCall(before.elapsed_time(after) / 1000, wall_s, logits)


def take_turns(
    device: torch.device, limit: TimeLimit, calls: Mapping[str, Sequence[Compute]], max_s: float = math.inf
) -> dict[str, list[DeviceCall]]:
    """Make each target's first call untimed, then time the others alternately; each round starts with another target.

    Args:
        device: that computes.
        limit: of the run; after it, no round starts except the first timed one.
        calls: the same number for each target.
        max_s: a limit for these calls alone, in seconds.
    """
    names, end_s = list(calls), limit.spent_s + max_s
    for name in names:
        calls[name][0]()
    timed: dict[str, list[DeviceCall]] = {name: [] for name in names}
    for number in range(1, len(calls[names[0]])):
        if number > 1 and (limit.left_s <= 0 or limit.spent_s > end_s):
            break
        for name in rotated(names, number):
            timed[name].append(time_call(device, calls[name][number]))
    return timed


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, minimum and maximum."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def ratios(numerators: Sequence[float], denominators: Sequence[float]) -> dict[str, float]:
    """The spread of the ratios, call by call."""
    return spread([one / other for one, other in zip(numerators, denominators, strict=True)])


def largest_difference(some: Sequence[Sequence[float]], others: Sequence[Sequence[float]]) -> float:
    """Between the logits of the same calls."""
    pairs = [pair for one, other in zip(some, others, strict=True) for pair in zip(one, other, strict=True)]
    return max(abs(a - b) for a, b in pairs)
