"""Keys and values of many prefixes in one tensor for each layer: written and moved by their places.

A batch that sees a hundred kept documents finds their keys there in one step, and not in a hundred tensors.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from onelogit.engine.allocator import Piece, joined, side_by_side
from onelogit.engine.device_transfer import places, sent
from onelogit.engine.keys import KeyValue, LayerKeyValues


class KeyValuePool:
    """Memory for the keys and values of some tokens, taken at once.

    Args:
        token: keys and values of one token; they say what a token takes in each layer, and where.
        most_bytes: of all keys and values.
        on_host: in the CPU's memory, wherever the layers are; pinned, for those on CUDA.

    Attributes:
        layers: keys and values of all places, whether something was written there or not.
        size: for how many tokens there is room.
        token_bytes: of one token, all layers together.
    """

    def __init__(self, token: LayerKeyValues, most_bytes: int, *, on_host: bool = False) -> None:
        rows = [tensor for layer in token for tensor in layer]
        is_pinned = on_host and any(row.is_cuda for row in rows)
        self.token_bytes = sum(row.nbytes for row in rows)
        shares = [most_bytes * row.nbytes // self.token_bytes for row in rows]
        if is_pinned:  # PyTorch rounds pinned memory up to a power of two
            shares = [2 ** (share.bit_length() - 1) if share else 0 for share in shares]
        self.size = min(share // row.nbytes for share, row in zip(shares, rows, strict=True))

        def empty(row: Tensor) -> Tensor:
            device = "cpu" if on_host else row.device
            return torch.empty((self.size, *row.shape[1:]), dtype=row.dtype, device=device, pin_memory=is_pinned)

        self.layers: LayerKeyValues = [KeyValue(empty(layer.keys), empty(layer.values)) for layer in token]

    @torch.inference_mode()
    def write(self, pieces: Sequence[Piece], block: LayerKeyValues, sources: Sequence[Piece]) -> None:
        """Copy tokens of a block, in one step for each layer, to these places.

        Args:
            pieces: of this memory.
            block: keys and values, where the layers are.
            sources: as many places of the block.
        """
        targets, taken = _OnDevices(pieces), _OnDevices(joined(sources))
        for tensor, source in _pairs(self.layers, block):
            tensor.index_copy_(0, targets.on(tensor.device), taken.of(source))

    @torch.inference_mode()
    def move(self, pieces: Sequence[Piece], block: LayerKeyValues, sources: Sequence[Piece]) -> None:
        """The same, piece by piece, of a block that is elsewhere; CUDA is not waited for."""
        spans = list(side_by_side(joined(pieces), joined(sources)))
        for tensor, source in _pairs(self.layers, block):
            is_cuda = tensor.is_cuda or source.is_cuda
            for (start, stop), (first, last) in spans:
                tensor[start:stop].copy_(source[first:last], non_blocking=is_cuda)


class _OnDevices:
    """The places of some pieces, on each device that asks for them."""

    def __init__(self, pieces: Sequence[Piece]) -> None:
        self._pieces = pieces
        self._sent: dict[torch.device, Tensor] = {}

    def on(self, device: torch.device) -> Tensor:
        if device not in self._sent:
            self._sent[device] = sent(places(self._pieces), device)
        return self._sent[device]

    def of(self, tensor: Tensor) -> Tensor:
        """What stands there; where it is one piece, in the same memory."""
        if len(self._pieces) == 1:
            start, stop = self._pieces[0]
            return tensor[start:stop]
        return tensor[self.on(tensor.device)]


def _pairs(some: LayerKeyValues, others: LayerKeyValues) -> Iterator[tuple[Tensor, Tensor]]:
    for layer, other in zip(some, others, strict=True):
        yield from zip(layer, other, strict=True)
