"""Blocks of keys and values -> those that a batch's tokens see: which tokens ask, and along which path."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from onelogit.forest import Batch, Path, Span


class KeysValues(NamedTuple):
    """Of consecutive tokens in one layer, positions worked in; each of shape (tokens, key-value heads, width)."""

    keys: Tensor
    values: Tensor


Block = list[KeysValues]
"""Keys and values of a prefix, layer by layer."""


class Query(NamedTuple):
    """Consecutive tokens of a batch, `start` to `stop`, with the path of their keys, their own included."""

    start: int
    stop: int
    path: Path


def queries(batch: Batch, *, of_ends: bool) -> Iterator[Query]:
    """Every segment's tokens; or of the segments at whose end a row ends, their last tokens alone."""
    ends = {end.place for end in batch.ends}
    for start, stop, ancestors in batch.segments:
        path = (*ancestors, Span(0, start, stop))
        if not of_ends:
            yield Query(start, stop, path)
        elif stop - 1 in ends:
            yield Query(stop - 1, stop, path)


def length_of(path: Path) -> int:
    """How many tokens stand on a path."""
    return sum(span.stop - span.start for span in path)


def follow(path: Path, blocks: Sequence[KeysValues], filler_count: int = 0) -> KeysValues:
    """The keys and values along a path, one behind the other; at last fillers, all zero."""
    if len(path) == 1 and not filler_count:
        block, start, stop = path[0]
        return KeysValues(*(tensor[start:stop] for tensor in blocks[block]))
    return KeysValues(*(_joined(path, tensors, filler_count) for tensors in zip(*blocks, strict=True)))


def _joined(path: Path, tensors: Sequence[Tensor], filler_count: int) -> Tensor:
    pieces = [tensors[block][start:stop] for block, start, stop in path]
    if filler_count:
        pieces.append(pieces[0].new_zeros((filler_count, *pieces[0].shape[1:])))
    return torch.cat(pieces)
