"""A batch's prefix tree -> the runs of tokens that recurrent layers compute, and the states with which they begin.

Attention finds the keys of all earlier tokens on a path; a recurrent layer has only a state, which changes with every
token. So the tokens are cut into runs wherever another row begins, and each run begins with a copy of its parent's last
state. No torch.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from onelogit.engine.prefix_tree import CACHED, CARRIED, OWN, Batch, KeyPath, KeySpan, clip, known_length

_MAX_CARRIED = 8  # limits the memory of states; a later row that lacks one computes some tokens again

StateSource = tuple[int, int]
"""`OWN` and the index of the run at whose end the state is, or `CARRIED` or `CACHED` and the index of the state."""


class Run(NamedTuple):
    """Tokens `start` to `stop` of a batch, consecutive in a row.

    `path` leads to the tokens before them, and `parent` is the state after those; None if there are none.
    """

    start: int
    stop: int
    path: KeyPath
    parent: StateSource | None


class Outgoing(NamedTuple):
    """A state that is needed after the batch, and the path of the tokens before it."""

    source: StateSource
    path: KeyPath


class StatePlan(NamedTuple):
    """How recurrent layers compute a batch.

    Attributes:
        runs: in order; together they contain all tokens.
        levels: the indices of the runs, level by level: of the batch's own states, a run needs only those
            of earlier levels.
        outgoing: of each cacheable prefix, then of each carried position.
        sources: the state after each token, by the source and the slot after the token, where one is known.
    """

    runs: list[Run]
    levels: list[list[int]]
    outgoing: list[Outgoing]
    sources: Mapping[tuple[int, int], StateSource]

    def last_inputs(self, path: KeyPath, count: int) -> list[tuple[int, int, int]]:
        """Where the last `count` tokens of a path are, the last one first; fewer if the path is shorter.

        Each is `OWN`, its index in the batch and 0, or the source and index of a state and its distance from the end.
        """
        found: list[tuple[int, int, int]] = []
        for source, start, stop in reversed(path):
            missing = count - len(found)
            if source == OWN:
                found += [(OWN, index, 0) for index in range(stop - 1, max(start, stop - missing) - 1, -1)]
            else:
                return found + [(*self.sources[source, stop], distance) for distance in range(missing)]
        return found


def carried_positions(batch: Batch, shared: Sequence[int], carried: Sequence[int]) -> list[int]:
    """The positions on `batch.carry` at which later rows begin, ascending, if states are known and not too many.

    `shared` tells how many leading tokens each row shares with the row before it; `carried` as in `next_batch`.
    """
    length = batch.after.token
    positions = [length] if length else []
    for other in shared[batch.after.row + 1 :]:
        length = min(length, other)
        position = known_length(batch.carry, length, carried)
        if not position:
            break
        if position < positions[-1]:
            positions.append(position)
    half = _MAX_CARRIED // 2
    # The next rows begin at the deepest positions, most rows at the others.
    kept = positions if len(positions) <= _MAX_CARRIED else [*positions[:half], *positions[-half:]]
    return kept[::-1]


def state_plan(
    batch: Batch, carried: Sequence[int], positions: Sequence[int], cached: Mapping[int, int] | None = None
) -> StatePlan:
    """The plan of a batch whose segments begin only where states are known.

    Args:
        batch: the batch.
        carried: the positions of the carried states.
        positions: the positions on `batch.carry` whose states the next batch needs.
        cached: the index of each cached state, by the slot that ends its prefix.
    """
    known: dict[tuple[int, int], StateSource] = {(CARRIED, stop): (CARRIED, at) for at, stop in enumerate(carried)}
    known |= {(CACHED, stop): (CACHED, index) for stop, index in (cached or {}).items()}
    leaving = [prefix.path for prefix in batch.cacheable_prefixes]
    leaving += [clip(batch.carry, position) for position in positions]
    runs: list[Run] = []
    for start, stop, path in _cut(batch, leaving):
        runs.append(Run(start, stop, path, known[path[-1].source, path[-1].stop] if path else None))
        known[OWN, stop] = OWN, len(runs) - 1
    levels: list[list[int]] = []
    level_of: list[int] = []
    for index, run in enumerate(runs):
        level_of.append(level_of[run.parent[1]] + 1 if run.parent is not None and run.parent[0] == OWN else 0)
        if level_of[-1] == len(levels):
            levels.append([])
        levels[level_of[-1]].append(index)
    outgoing = [Outgoing(known[path[-1].source, path[-1].stop], path) for path in leaving]
    return StatePlan(runs, levels, outgoing, known)


def _cut(batch: Batch, leaving: Sequence[KeyPath]) -> Iterator[tuple[int, int, KeyPath]]:
    """The tokens from start to stop of each run, and the path of the tokens before them."""
    branching = [path for start, _, path in batch.segments if path and not _continues(path, start)]
    ends = sorted({path[-1].stop for path in (*branching, *leaving) if path[-1].source == OWN})
    last, first, first_path = set(ends), 0, KeyPath()
    for start, stop, path in batch.segments:
        inner = ends[bisect_right(ends, start) : bisect_left(ends, stop)]
        if not _continues(path, start) or start in last:
            if start > first:
                yield first, start, first_path
            first, first_path = start, path
        for end in inner:
            yield first, end, first_path
            first, first_path = end, (*path, KeySpan(OWN, start, end))
    yield first, len(batch.ids), first_path


def _continues(path: KeyPath, start: int) -> bool:
    """Whether a segment follows the token just before it in the batch."""
    return bool(path) and path[-1].source == OWN and path[-1].stop == start
