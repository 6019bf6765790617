"""A row of places -> pieces of it, taken and given back. No torch."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, pairwise

Piece = tuple[int, int]
"""Places from a first to behind a last."""


class Allocator:
    """Places 0 to `size`, all free at first.

    Args:
        size: how many there are.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.free_count = size
        self._free: list[Piece] = [(0, size)] if size else []

    def take(self, count: int) -> list[Piece]:
        """So many places; of the first piece that is long enough, or, where none is, of the longest ones.

        Args:
            count: at least 1, at most `free_count`.
        """
        fitting = [place for place, piece in enumerate(self._free) if _length(piece) >= count][:1]
        longest = sorted(range(len(self._free)), key=lambda place: -_length(self._free[place]))
        taken: list[Piece] = []
        self.free_count -= count
        for place in fitting or longest:
            start, stop = self._free[place]
            end = min(stop, start + count)
            taken.append((start, end))
            self._free[place] = (end, stop)
            count -= end - start
            if not count:
                break
        self._free = [piece for piece in self._free if _length(piece)]
        return taken

    def give_back(self, pieces: Sequence[Piece]) -> None:
        """Places that were taken."""
        self.free_count += sum(map(_length, pieces))
        self._free = joined(sorted([*self._free, *pieces]))


def joined(pieces: Iterable[Piece]) -> list[Piece]:
    """The same places in the same order, in as few pieces as can be."""
    longer: list[Piece] = []
    for start, stop in pieces:
        if longer and longer[-1][1] == start:
            longer[-1] = (longer[-1][0], stop)
        else:
            longer.append((start, stop))
    return longer


def split(pieces: Iterable[Piece], counts: Iterable[int]) -> Iterator[list[Piece]]:
    """The pieces cut into shares of so many places each, in order."""
    left = [*pieces][::-1]
    for count in counts:
        share: list[Piece] = []
        missing = count
        while missing:
            start, stop = left.pop()
            end = min(stop, start + missing)
            share.append((start, end))
            missing -= end - start
            if end < stop:
                left.append((end, stop))
        yield share


def side_by_side(some: Sequence[Piece], others: Sequence[Piece]) -> Iterator[tuple[Piece, Piece]]:
    """As many places of both, in order, in pieces that are equally long."""
    ends = sorted({*accumulate(map(_length, some)), *accumulate(map(_length, others))})
    counts = [end - start for start, end in pairwise([0, *ends])]
    for (one,), (other,) in zip(split(some, counts), split(others, counts), strict=True):
        yield one, other


def _length(piece: Piece) -> int:
    return piece[1] - piece[0]
