"""Calls -> how long each took, by the device's own events and by the clock on the wall, within a budget of time."""

import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch

Call = Callable[[], list[float]]


class OutOfTime(BaseException):
    """The run's time is over. No `Exception`: nobody in between takes it for a failure of his own."""


class Budget:
    """The time of a run, from now on.

    Args:
        seconds: after which the run has ended.
    """

    def __init__(self, seconds: float) -> None:
        self._begin = time.monotonic()
        self._seconds = seconds

    @property
    def spent_s(self) -> float:
        """Since it began."""
        return time.monotonic() - self._begin

    @property
    def left_s(self) -> float:
        """For parts. What is begun may go on a little longer, and the report comes after it."""
        return self._seconds - max(self._seconds / 20, min(15, self._seconds / 4)) - self.spent_s

    @contextmanager
    def enforced(self) -> Iterator[None]:
        """Raise OutOfTime in the block where the time is over, whatever it does: compile, or wait for a device."""
        previous = signal.signal(signal.SIGALRM, _raise_out_of_time)
        signal.setitimer(signal.ITIMER_REAL, max(self._seconds * 0.98 - self.spent_s, 1e-3))
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, previous)


def _raise_out_of_time(*_: object) -> None:
    raise OutOfTime


class Taken(NamedTuple):
    """What a call took.

    Attributes:
        device_s: between two events on the device, one before all that the call gives it to do and one behind; on a
            CPU, the same as `wall_s`.
        wall_s: until the call came back with its logits.
        logits: that it came back with.
    """

    device_s: float
    wall_s: float
    logits: list[float]


def time_call(device: torch.device, call: Call) -> Taken:
    """Make a call, and nothing beside it."""
    if device.type != "cuda":
        start = time.perf_counter()
        logits = call()
        wall_s = time.perf_counter() - start
        return Taken(wall_s, wall_s, logits)
    before, behind = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize(device)
    start = time.perf_counter()
    before.record()
    logits = call()
    wall_s = time.perf_counter() - start
    behind.record()
    behind.synchronize()
    return Taken(before.elapsed_time(behind) / 1000, wall_s, logits)


def take_turns(
    device: torch.device, budget: Budget, calls: Mapping[str, Sequence[Call]], most_s: float = math.inf
) -> dict[str, list[Taken]]:
    """Every entrant's first call unmeasured, then each of the others in turn, another entrant first each time.

    Args:
        device: where they compute.
        budget: of the run; the rounds end with it, but never before the first measured one.
        calls: of each entrant, equally many.
        most_s: for these rounds alone.
    """
    names, end_s = list(calls), budget.spent_s + most_s
    for name in names:
        calls[name][0]()
    taken: dict[str, list[Taken]] = {name: [] for name in names}
    for turn in range(1, len(calls[names[0]])):
        if turn > 1 and (budget.left_s <= 0 or budget.spent_s > end_s):
            break
        first = turn % len(names)
        for name in [*names[first:], *names[:first]]:
            taken[name].append(time_call(device, calls[name][turn]))
    return taken
