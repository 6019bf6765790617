"""Keys and values, wherever they stand -> those that a batch's tokens see: which tokens ask, and along which path."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from onelogit.engine.prefix_tree import OWN, Batch, Path, Span


class KeyValue(NamedTuple):
    """Of consecutive tokens in one layer, positions worked in; each of shape (tokens, key-value heads, width)."""

    keys: Tensor
    values: Tensor

    def part(self, start: int, stop: int | None = None) -> "KeyValue":
        """Those of some of the tokens, in the same memory."""
        return KeyValue(self.keys[start:stop], self.values[start:stop])


LayerKeyValues = list[KeyValue]
"""Keys and values of the same tokens, layer by layer."""


class Seen(NamedTuple):
    """All keys and values that a batch may see in one layer, by where they stand: `OWN`, `CARRIED`, `KEPT`."""

    own: KeyValue
    carried: KeyValue
    kept: KeyValue


class Query(NamedTuple):
    """Consecutive tokens of a batch, `start` to `stop`, with the path of their keys, their own included."""

    start: int
    stop: int
    path: Path


def queries(batch: Batch, *, of_ends: bool) -> Iterator[Query]:
    """Every segment's tokens; or of the segments at whose end a row ends, their last tokens alone."""
    ends = {end.place for end in batch.ends}
    for start, stop, ancestors in batch.segments:
        path = (*ancestors, Span(OWN, start, stop))
        if not of_ends:
            yield Query(start, stop, path)
        elif stop - 1 in ends:
            yield Query(stop - 1, stop, path)


def length_of(path: Path) -> int:
    """How many tokens stand on a path."""
    return sum(span.stop - span.start for span in path)


def follow(path: Path, seen: Seen, filler_count: int = 0) -> KeyValue:
    """The keys and values along a path, one behind the other; at last fillers, all zero."""
    pieces = [seen[block].part(start, stop) for block, start, stop in path]
    if len(pieces) == 1 and not filler_count:
        return pieces[0]
    return KeyValue(*(_joined(tensors, filler_count) for tensors in zip(*pieces, strict=True)))


def _joined(pieces: Sequence[Tensor], filler_count: int) -> Tensor:
    fillers = [pieces[0].new_zeros((filler_count, *pieces[0].shape[1:]))] if filler_count else []
    return torch.cat([*pieces, *fillers])
