"""Rows of token ids -> batches that contain each shared prefix once. No torch.

Sorted rows form a prefix tree: a row shares its longest prefix with the row just before it. So each row adds one
segment, the tokens after that prefix, and finds the keys of its earlier tokens on the predecessor's path.

    the query . is it one?  --->  the query . is it one?     segment 1
    the query . is it two?  --->                   two?      segment 2, behind 5 tokens of segment 1
    the query . no.         --->              no.            segment 3, behind 3 tokens of segment 1
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

Ids = tuple[int, ...]

MAX_KEYS_PER_TOKEN = 16  # limits the keys that attention gathers if short segments follow long prefixes
# These limit the memory of recurrent layers' states: the state of one layer takes as much as the computation of about 8
# tokens, and a cacheable prefix keeps the states of all layers.
_TOKENS_PER_STATE, _TOKENS_PER_CACHEABLE = 8, 128

OWN, CARRIED, CACHED = range(3)
"""The sources of keys: the batch itself, the batch before it, the prefix cache; in the order of `KeySources`."""


class KeySpan(NamedTuple):
    """Keys `start` to `stop` of one source."""

    source: int
    start: int
    stop: int


KeyPath = tuple[KeySpan, ...]
"""The keys of a row's leading tokens, in the order of their positions."""


class CachedPrefix(NamedTuple):
    """A prefix of a row that is in the prefix cache; it has `length` tokens.

    `spans` are the slots of its keys on the device, each from start to stop. None if it is on the host, and prefixes
    that the current batch needs leave no room on the device: the row must wait for the next batch.
    """

    length: int
    spans: Sequence[tuple[int, int]] | None


class Segment(NamedTuple):
    """Tokens `start` to `stop` of a batch, consecutive in a row; each attends to `ancestors` and earlier tokens."""

    start: int
    stop: int
    ancestors: KeyPath


class CacheablePrefix(NamedTuple):
    """The first `length` tokens of a row, which are worth caching."""

    row: int
    length: int
    path: KeyPath


class Cursor(NamedTuple):
    """The progress so far: all rows before `row`, and the first `token` tokens of that row, are computed."""

    row: int = 0
    token: int = 0


class Batch(NamedTuple):
    """One packed sequence without padding.

    Attributes:
        ids: token ids.
        positions: the position id of each token: its index in its row.
        segments: in order; together they contain all tokens.
        ends: the row that ends at each index in the batch, in order.
        cacheable_prefixes: the prefixes that end in this batch.
        carry: the path of the first `after.token` tokens of row `after.row`; the next batch needs their keys.
        after: the beginning of the next batch.
    """

    ids: list[int]
    positions: list[int]
    segments: list[Segment]
    ends: dict[int, int]
    cacheable_prefixes: list[CacheablePrefix]
    carry: KeyPath
    after: Cursor


def next_batch(
    rows: Sequence[Ids],
    cursor: Cursor,
    batch_tokens: int,
    cacheable_lengths: Sequence[Sequence[int]] | None = None,
    find_cached: Callable[[int], CachedPrefix | None] | None = None,
    carried: Sequence[int] | None = None,
) -> Batch:
    """The batch that begins at the cursor.

    A segment that does not fit is cut and continued in the next batch, because batches of equal size can reuse kernels
    that are built for one size. A batch depends only on its cursor and `batch_tokens`, so a batch that does not fit in
    memory can be built again, smaller.

    Args:
        rows: distinct, sorted, none empty.
        cursor: `Cursor()`, or `after` of the batch before.
        batch_tokens: maximum number of tokens in a batch.
        cacheable_lengths: for each row, the lengths of its cacheable prefixes, in tokens.
        find_cached: returns the longest cached prefix of a row, by the row's index.
        carried: for a model with recurrent layers, the positions of the carried states, ascending; otherwise None.
    """
    batch = Batch([], [], [], {}, [], (), Cursor(len(rows)))
    path: KeyPath = (KeySpan(CARRIED, 0, cursor.token),) if cursor.token else ()
    key_count = 0
    for row in range(cursor.row, len(rows)):
        ids, start = rows[row], cursor.token
        if row > cursor.row:
            start = shared_length(rows[row - 1], ids)
            start = start if carried is None else known_length(path, start, carried)
            path = clip(path, start)
        key_count += len(ids)
        room = batch_tokens - len(batch.ids)
        is_full = not room or key_count > MAX_KEYS_PER_TOKEN * batch_tokens
        is_full |= carried is not None and _state_tokens(batch) > batch_tokens
        cached = None if find_cached is None else find_cached(row)
        if cached is not None and cached.length > start:
            if cached.spans is None:
                is_full = True
            else:
                start, path = cached.length, tuple(KeySpan(CACHED, *span) for span in cached.spans)
        if is_full and batch.ids:
            return batch._replace(carry=path, after=Cursor(row, start))
        stop = min(len(ids), start + room)
        lengths = () if cacheable_lengths is None else cacheable_lengths[row]
        path = _add_segment(batch, row, ids, range(start, stop), path, lengths)
        if stop < len(ids):
            return batch._replace(carry=path, after=Cursor(row, stop))
        batch.ends[len(batch.ids) - 1] = row
    return batch


def _add_segment(
    batch: Batch, row: int, ids: Ids, positions: range, ancestors: KeyPath, cacheable_lengths: Sequence[int]
) -> KeyPath:
    """Add the tokens at `positions` of a row and the prefixes to cache that end there; returns the path to the last."""
    first = len(batch.ids)
    batch.ids.extend(ids[positions.start : positions.stop])
    batch.positions.extend(positions)
    batch.segments.append(Segment(first, len(batch.ids), ancestors))
    path = (*ancestors, KeySpan(OWN, first, len(batch.ids)))
    ending = (length for length in cacheable_lengths if positions.start < length <= positions.stop)
    batch.cacheable_prefixes.extend(CacheablePrefix(row, length, clip(path, length)) for length in ending)
    return path


def _state_tokens(batch: Batch) -> int:
    """How many tokens take as much memory as the states of recurrent layers that a batch needs, at most."""
    return _TOKENS_PER_STATE * len(batch.segments) + _TOKENS_PER_CACHEABLE * len(batch.cacheable_prefixes)


def clip(path: KeyPath, length: int) -> KeyPath:
    """The first `length` tokens of a path."""
    clipped: list[KeySpan] = []
    for span in path:
        if length <= 0:
            break
        clipped.append(span._replace(stop=min(span.stop, span.start + length)))
        length -= span.stop - span.start
    return tuple(clipped)


def known_length(path: KeyPath, length: int, carried: Sequence[int]) -> int:
    """The largest number up to `length` of leading tokens of a path after which recurrent layers' states are known."""
    clipped = clip(path, length)
    if not clipped or clipped[-1].source == OWN:
        return length
    if clipped[-1].source == CARRIED:
        return max((position for position in carried if position <= length), default=0)
    return length if clipped[-1] == path[len(clipped) - 1] else 0  # the cache has one state, at a prefix's end


def shared_length(one: Ids, other: Ids) -> int:
    """The number of leading ids that two rows share."""
    shortest = min(len(one), len(other))
    if one[:shortest] == other[:shortest]:
        return shortest
    return next(index for index in range(shortest) if one[index] != other[index])
