"""The interface of attention backends, and the types and functions that they share."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from onelogit.engine.prefix_tree import OWN, Batch, KeyPath, KeySpan
from onelogit.errors import UnsupportedModelError


class KeyValue(NamedTuple):
    """Keys and values of tokens in one layer, with positions applied; shapes (tokens, key-value heads, head_dim)."""

    keys: Tensor
    values: Tensor

    def part(self, start: int, stop: int | None = None) -> "KeyValue":
        """A view of the tokens from `start` to `stop`."""
        return KeyValue(self.keys[start:stop], self.values[start:stop])


LayerKeyValues = list[KeyValue]
"""Keys and values of the same tokens, layer by layer."""


class KeySources(NamedTuple):
    """All keys and values that a batch may attend to in one layer, by source: `OWN`, `CARRIED`, `CACHED`."""

    own: KeyValue
    carried: KeyValue
    cached: KeyValue


class AttentionBackend(Protocol):
    """Attention of one batch over its prefix tree, in all layers.

    A new backend is a class with these methods, listed in `context.BACKENDS`.

    Args:
        batch: the batch to compute.
        outgoing: the path of the keys that are needed after the batch.
    """

    def __init__(self, batch: Batch, outgoing: KeyPath) -> None: ...

    @staticmethod
    def supports(query: Tensor) -> bool:
        """Whether it supports queries on this device, with this dtype and head_dim (the last dimension)."""

    @staticmethod
    def padded_length(token_count: int, device: torch.device) -> int:
        """The length to which a batch of `token_count` tokens should be padded on a device."""

    def attend(
        self, query: Tensor, sources: KeySources, scaling: float | None, window: int | None, *, ends_only: bool
    ) -> Tensor:
        """Like `AttentionContext.attend`, for all tokens or only the rows' last ones, with zeros for all others."""

    def copy_outgoing(self, sources: KeySources) -> KeyValue:
        """A copy of the outgoing keys and values; a view would keep the whole batch in memory."""


class QuerySpan(NamedTuple):
    """Consecutive tokens of a batch, `start` to `stop`, with the path of all keys to which the last one attends."""

    start: int
    stop: int
    path: KeyPath


def query_spans(batch: Batch, *, ends_only: bool) -> Iterator[QuerySpan]:
    """The tokens of each segment, or only the last token of each segment that ends a row."""
    for start, stop, ancestors in batch.segments:
        path = (*ancestors, KeySpan(OWN, start, stop))
        if not ends_only:
            yield QuerySpan(start, stop, path)
        elif stop - 1 in batch.ends:
            yield QuerySpan(stop - 1, stop, path)


def path_length(path: KeyPath) -> int:
    """The number of tokens on a path."""
    return sum(span.stop - span.start for span in path)


def check_plain_scores(options: Mapping[str, object]) -> None:
    """Check the options of a call of transformers' attention: no backend changes scores once they are scaled.

    Raises:
        UnsupportedModelError: the layer has a position bias, soft-capped scores, or attention sinks.
    """
    for name in ("position_bias", "softcap", "s_aux"):
        if options.get(name) is not None:
            raise UnsupportedModelError(f"rows that are computed without padding cannot have attention with {name}")
