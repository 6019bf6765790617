"""A row of places -> pieces of it, taken and given back. No torch."""

Piece = tuple[int, int]
"""Places from a first to behind a last."""


class Space:
    """Places 0 to `size`, all free at first.

    Args:
        size: how many there are.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.free_count = size
        self._free: list[Piece] = [(0, size)] if size else []

    def take(self, count: int) -> list[Piece]:
        """So many places; the first piece that is long enough, or, where none is, the longest ones.

        Args:
            count: at least 1, at most `free_count`.
        """
        fitting = [place for place, (start, stop) in enumerate(self._free) if stop - start >= count][:1]
        longest = sorted(range(len(self._free)), key=lambda place: self._free[place][0] - self._free[place][1])
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
        self._free = [(start, stop) for start, stop in self._free if start < stop]
        return taken

    def give_back(self, pieces: list[Piece]) -> None:
        """Places that were taken."""
        self.free_count += sum(stop - start for start, stop in pieces)
        joined: list[Piece] = []
        for start, stop in sorted([*self._free, *pieces]):
            if joined and joined[-1][1] == start:
                joined[-1] = (joined[-1][0], stop)
            else:
                joined.append((start, stop))
        self._free = joined


def split(pieces: list[Piece], counts: list[int]) -> list[list[Piece]]:
    """The pieces cut into shares of so many places each, in order."""
    shares: list[list[Piece]] = []
    left = pieces[::-1]
    for count in counts:
        share: list[Piece] = []
        while count:
            start, stop = left.pop()
            end = min(stop, start + count)
            share.append((start, end))
            count -= end - start  # noqa: PLW2901
            if end < stop:
                left.append((end, stop))
        shares.append(share)
    return shares
