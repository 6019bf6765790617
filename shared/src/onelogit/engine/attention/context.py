"""A batch in a layer -> attention over its prefix tree, and the keys and values that are needed after the batch."""

import torch
from torch import Tensor

from onelogit.engine.attention.backend import AttentionBackend, KeySources
from onelogit.engine.attention.flash_varlen import FlashVarlenAttention
from onelogit.engine.attention.sdpa import SdpaAttention
from onelogit.engine.device_transfer import tensor_on
from onelogit.engine.kv_cache import KeyValue, LayerKeyValues
from onelogit.engine.prefix_tree import Batch, Path

BACKENDS: tuple[type[AttentionBackend], ...] = (FlashVarlenAttention, SdpaAttention)
"""Each layer uses the first backend that supports its query; the last one supports all."""


def padded_length(token_count: int, device: torch.device) -> int:
    """The length to which a batch should be padded, whichever backend its layers use."""
    return max(backend.padded_length(token_count, device) for backend in BACKENDS)


class AttentionContext:
    """One pass of a batch through the layers: the keys that its tokens see, and those needed after it.

    Args:
        batch: the batch to compute.
        layer_count: of the model; the last layer computes only the rows' last tokens.
        carried: keys and values that the batch before handed on; may be empty, as may `cached`.
        cached: keys and values in the prefix cache.
        width: the number of tokens that pass through the layers: those of the batch, then padding.

    Attributes:
        cacheable_prefixes: keys and values of `batch.cacheable_prefixes`, one prefix after the other.
        carry: keys and values of `batch.carry`.
    """

    def __init__(
        self, batch: Batch, layer_count: int, carried: LayerKeyValues, cached: LayerKeyValues, width: int
    ) -> None:
        self.batch, self.width = batch, width
        self.cacheable_prefixes: LayerKeyValues = []
        self.carry: LayerKeyValues = []
        self._layer_count, self._carried, self._cached = layer_count, carried, cached
        paths = (*(prefix.path for prefix in batch.cacheable_prefixes), batch.carry)
        self._outgoing: Path = tuple(span for path in paths for span in path)
        self._cacheable_tokens = sum(prefix.length for prefix in batch.cacheable_prefixes)
        self._backends = [backend(batch, self._outgoing) for backend in BACKENDS]
        self._ends: dict[torch.device, Tensor] = {}

    def ends(self, device: torch.device) -> Tensor:
        """Places of the rows' last tokens, shape (rows that end here,)."""
        if device not in self._ends:
            self._ends[device] = tensor_on(device, [*self.batch.ends])
        return self._ends[device]

    def attend(self, query: Tensor, own: KeyValue, layer: int, scaling: float | None, window: int | None) -> Tensor:
        """The output of attention for each token of the batch.

        Args:
            query: shape (heads, tokens, width).
            own: keys and values of these tokens.
            layer: its number, from 0.
            scaling: factor of the scores; None for one over the square root of the width.
            window: how many tokens a token sees, itself included; None for all before it.

        Returns:
            Shape (tokens, heads, width). In the last layer zeros for all but the rows' last tokens.
        """
        nothing = own.part(0, 0)
        carried, cached = (layers[layer] if layers else nothing for layers in (self._carried, self._cached))
        sources = KeySources(own, carried, cached)
        backend = next(backend for backend in self._backends if backend.supports(query))
        if self._outgoing:
            copy = backend.copy(sources)
            self.cacheable_prefixes.append(copy.part(0, self._cacheable_tokens))
            self.carry.append(copy.part(self._cacheable_tokens))
        is_last = layer == self._layer_count - 1
        if is_last and not self.batch.ends:
            return query.new_zeros((query.shape[1], query.shape[0], own.values.shape[-1]))
        return backend.attend(query, sources, scaling, window, ends_only=is_last)
