"""Rows of token ids -> batches in which every shared prefix stands once. No torch.

Sorted rows are a prefix tree read from top to bottom: what a row shares with any row before it, it shares with the one
just before it. So each row adds one segment, the tokens that its neighbour lacks, and finds the tokens before them on
its neighbour's path.

    the query . is it one?  --->  the query . is it one?     segment 1
    the query . is it two?  --->                   two?      segment 2, behind 5 tokens of segment 1
    the query . no.         --->              no.            segment 3, behind 3 tokens of segment 1
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

Ids = Sequence[int]

MOST_KEYS_PER_TOKEN = 16  # bounds what attention gathers where short segments hang on long prefixes

OWN, CARRIED, KEPT = range(3)
"""Where keys stand: in the batch itself, in what the batch before handed on, in what is kept between forests."""


class Span(NamedTuple):
    """Keys `start` to `stop` of one of these."""

    block: int
    start: int
    stop: int


Path = tuple[Span, ...]
"""Where the keys of a row's leading tokens stand, in the order of their positions."""


class Known(NamedTuple):
    """A row's prefix that is kept from earlier forests.

    Attributes:
        length: in tokens.
        places: from where to where its keys stand, piece by piece; None where others that the same batch needs leave
            no room for them.
    """

    length: int
    places: Sequence[tuple[int, int]] | None


class Segment(NamedTuple):
    """Tokens `start` to `stop` of a batch, which follow each other in a row: they see `ancestors`, and left."""

    start: int
    stop: int
    ancestors: Path


class End(NamedTuple):
    """The place in a batch of a row's last token."""

    row: int
    place: int


class CacheablePrefix(NamedTuple):
    """A prefix that is worth keeping: the first `length` tokens of a row."""

    row: int
    length: int
    path: Path


class Cursor(NamedTuple):
    """How far a forest has come: all rows before `row`, and the first `begun` tokens of that one."""

    row: int = 0
    begun: int = 0


class Batch(NamedTuple):
    """One packed sequence without padding.

    Attributes:
        ids: token ids.
        positions: the place of each token in its row; the position id.
        segments: in order; together all tokens.
        ends: of the rows that end here.
        cacheable_prefixes: of the prefixes that end here.
        carry: what the next batch needs of what this one sees: the path of `after.begun` tokens.
        after: where the next batch begins.
    """

    ids: list[int]
    positions: list[int]
    segments: list[Segment]
    ends: list[End]
    cacheable_prefixes: list[CacheablePrefix]
    carry: Path
    after: Cursor


def next_batch(
    rows: Sequence[Ids],
    cursor: Cursor,
    batch_tokens: int,
    prefix_lengths: Sequence[Sequence[int]] | None = None,
    find_known: Callable[[int], Known | None] | None = None,
) -> Batch:
    """The batch that begins at the cursor.

    A segment that does not fit is cut, and goes on in the next batch: batches of the same size keep a kernel that is
    written for a size. What a batch holds depends on its cursor and its budget alone: one that proves too large for the
    memory can be made again, smaller.

    Args:
        rows: distinct, sorted, none empty.
        cursor: `Cursor()`, or `after` of the batch before.
        batch_tokens: most tokens of a batch.
        prefix_lengths: of each row, in tokens, the prefixes worth keeping.
        find_known: from a row's number, the longest prefix of it that is kept from earlier forests.
    """
    batch = Batch([], [], [], [], [], (), Cursor(len(rows)))
    path: Path = (Span(CARRIED, 0, cursor.begun),) if cursor.begun else ()
    key_count = 0
    for row in range(cursor.row, len(rows)):
        ids, begun = rows[row], cursor.begun
        if row > cursor.row:
            begun = shared_length(rows[row - 1], ids)
            path = clip(path, begun)
        known = None if find_known is None else find_known(row)
        if known is not None and known.length > begun:
            if known.places is not None:
                begun, path = known.length, tuple(Span(KEPT, *place) for place in known.places)
            elif batch.ids:
                return batch._replace(carry=path, after=Cursor(row, begun))
        needed, room = len(ids) - begun, batch_tokens - len(batch.ids)
        key_count += len(ids)
        is_full = not room or key_count > MOST_KEYS_PER_TOKEN * batch_tokens
        if is_full and batch.ids:
            return batch._replace(carry=path, after=Cursor(row, begun))
        stop = begun + min(needed, room)
        path = _add_segment(batch, ids, path, begun, stop)
        lengths = () if prefix_lengths is None else prefix_lengths[row]
        batch.cacheable_prefixes.extend(
            CacheablePrefix(row, length, clip(path, length)) for length in lengths if begun < length <= stop
        )
        if stop < len(ids):
            return batch._replace(carry=path, after=Cursor(row, stop))
        batch.ends.append(End(row, len(batch.ids) - 1))
    return batch


def _add_segment(batch: Batch, ids: Ids, ancestors: Path, begun: int, stop: int) -> Path:
    """Add tokens `begun` to `stop` of a row; returns the row's path up to there."""
    start = len(batch.ids)
    batch.ids.extend(ids[begun:stop])
    batch.positions.extend(range(begun, stop))
    batch.segments.append(Segment(start, len(batch.ids), ancestors))
    return (*ancestors, Span(OWN, start, len(batch.ids)))


def clip(path: Path, length: int) -> Path:
    """The first `length` tokens of a path."""
    clipped: list[Span] = []
    for span in path:
        if length <= 0:
            break
        clipped.append(span._replace(stop=min(span.stop, span.start + length)))
        length -= span.stop - span.start
    return tuple(clipped)


def shared_length(one: Ids, other: Ids) -> int:
    """How many leading ids two rows share."""
    shortest = min(len(one), len(other))
    if one[:shortest] == other[:shortest]:
        return shortest
    return next(place for place in range(shortest) if one[place] != other[place])
