"""A number of slots -> extents of consecutive slots, taken and given back. No torch."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, pairwise

Extent = tuple[int, int]
"""Consecutive slots, from the first number up to but not including the second."""


class Allocator:
    """Hands out the slots 0 to `size` - 1, which are all free at first."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.free_count = size
        self._free: list[Extent] = [(0, size)] if size else []

    def take(self, count: int) -> list[Extent]:
        """Take 1 to `free_count` slots, from the first extent that is long enough or else from the longest extents."""
        first_fit = next((extent for extent in self._free if _length(extent) >= count), None)
        preferred = sorted(self._free, key=lambda extent: (extent != first_fit, -_length(extent)))
        self.free_count -= count
        taken, free = split(preferred, [count, self.free_count])
        self._free = sorted(free)
        return taken

    def give_back(self, extents: Sequence[Extent]) -> None:
        """Free slots that were taken."""
        self.free_count += sum(map(_length, extents))
        self._free = merged(sorted([*self._free, *extents]))


def merged(extents: Iterable[Extent]) -> list[Extent]:
    """The same slots in the same order, in as few extents as possible."""
    longer: list[Extent] = []
    for start, stop in extents:
        if longer and longer[-1][1] == start:
            longer[-1] = (longer[-1][0], stop)
        else:
            longer.append((start, stop))
    return longer


def split(extents: Iterable[Extent], counts: Iterable[int]) -> Iterator[list[Extent]]:
    """The extents divided, in order, into shares of `counts` slots."""
    left = [*extents][::-1]
    for count in counts:
        share: list[Extent] = []
        missing = count
        while missing:
            start, stop = left.pop()
            end = min(stop, start + missing)
            share.append((start, end))
            missing -= end - start
            if end < stop:
                left.append((end, stop))
        yield share


def aligned(some: Sequence[Extent], others: Sequence[Extent]) -> Iterator[tuple[Extent, Extent]]:
    """The slots of both, which have the same number, in order, as pairs of equally long extents."""
    ends = sorted({*accumulate(map(_length, some)), *accumulate(map(_length, others))})
    counts = [end - start for start, end in pairwise([0, *ends])]
    for (one,), (other,) in zip(split(some, counts), split(others, counts), strict=True):
        yield one, other


def _length(extent: Extent) -> int:
    return extent[1] - extent[0]
