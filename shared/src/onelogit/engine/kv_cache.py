"""Keys and values of many prefixes -> one pair of tensors for each layer, written and moved by slots.

A batch that attends to a hundred cached documents gathers their keys in one step instead of from a hundred tensors.
"""

from collections.abc import Iterator, Sequence
from functools import cache, partial

import torch
from torch import Tensor

from onelogit.engine.allocator import Extent, aligned, merged
from onelogit.engine.attention.backend import KeyValue, LayerKeyValues
from onelogit.engine.device_transfer import indices_of, to_device


class KeyValuePool:
    """Memory for the keys and values of a number of tokens, allocated at once.

    Args:
        one_token: keys and values of one token, which determine the shapes, dtypes and devices of the layers.
        max_bytes: for all keys and values together.
        on_host: allocate CPU memory whatever the layers' devices are; pinned if a layer is on CUDA.

    Attributes:
        layers: keys and values of all slots, including those not written yet.
        size: the number of slots, each for one token.
        token_bytes: bytes of one token, all layers together.
    """

    def __init__(self, one_token: LayerKeyValues, max_bytes: int, *, on_host: bool = False) -> None:
        tensors = [tensor for layer in one_token for tensor in layer]
        is_pinned = on_host and any(tensor.is_cuda for tensor in tensors)
        self.token_bytes = sum(tensor.nbytes for tensor in tensors)
        shares = [max_bytes * tensor.nbytes // self.token_bytes for tensor in tensors]
        if is_pinned:  # PyTorch rounds pinned memory up to a power of two
            shares = [2 ** (share.bit_length() - 1) if share else 0 for share in shares]
        self.size = min(share // tensor.nbytes for share, tensor in zip(shares, tensors, strict=True))

        def empty(tensor: Tensor) -> Tensor:
            device = "cpu" if on_host else tensor.device
            return torch.empty((self.size, *tensor.shape[1:]), dtype=tensor.dtype, device=device, pin_memory=is_pinned)

        self.layers: LayerKeyValues = [KeyValue(empty(layer.keys), empty(layer.values)) for layer in one_token]

    @torch.inference_mode()
    def write(self, targets: Sequence[Extent], key_values: LayerKeyValues, sources: Sequence[Extent]) -> None:
        """Copy the tokens at `sources` in `key_values` to the slots `targets`, in one step for each layer.

        The keys and values must be on the devices of this pool.
        """
        (start, stop), *others = merged(sources)
        target_indices = cache(partial(to_device, indices_of(targets)))
        source_indices = cache(partial(to_device, indices_of(sources)))
        for target, source in _tensor_pairs(self.layers, key_values):
            copied = source[source_indices(source.device)] if others else source[start:stop]
            target.index_copy_(0, target_indices(target.device), copied)

    @torch.inference_mode()
    def move(self, targets: Sequence[Extent], key_values: LayerKeyValues, sources: Sequence[Extent]) -> None:
        """Like `write`, but from another device, extent by extent, without waiting for CUDA."""
        spans = list(aligned(merged(targets), merged(sources)))
        for target, source in _tensor_pairs(self.layers, key_values):
            is_cuda = target.is_cuda or source.is_cuda
            for (start, stop), (first, last) in spans:
                target[start:stop].copy_(source[first:last], non_blocking=is_cuda)


def _tensor_pairs(some: LayerKeyValues, others: LayerKeyValues) -> Iterator[tuple[Tensor, Tensor]]:
    for layer, other in zip(some, others, strict=True):
        yield from zip(layer, other, strict=True)
