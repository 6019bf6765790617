"""Keys and values of many prefixes in one tensor for each layer: written and read by their places.

A batch that sees a hundred kept documents finds their keys there in one step, and not in a hundred tensors.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from onelogit.keys import Block, KeysValues
from onelogit.space import Piece
from onelogit.transfer import moved, places, sent


class KeyMemory:
    """Memory for the keys and values of some tokens, taken at once, where the model's layers are.

    Args:
        token: keys and values of one token; they say what a token takes in each layer, and on which device.
        most_bytes: of all keys and values.

    Attributes:
        layers: keys and values of all places, whether something was written there or not.
        token_bytes: of one token, all layers together.
        size: for how many tokens there is room.
    """

    def __init__(self, token: Block, most_bytes: int) -> None:
        self.token_bytes = count_bytes(token)
        self.size = most_bytes // self.token_bytes
        self.layers: Block = [
            KeysValues(*(tensor.new_empty((self.size, *tensor.shape[1:])) for tensor in layer)) for layer in token
        ]

    @torch.inference_mode()
    def write(self, pieces: Sequence[Piece], block: Block) -> None:
        """Copy a block, wherever it is, to these places."""
        targets = _OnDevices(pieces)
        for layer, written in zip(self.layers, block, strict=True):
            for tensor, new in zip(layer, written, strict=True):
                tensor.index_copy_(0, targets.on(tensor.device), moved(new, tensor.device))


@torch.inference_mode()
def taken(block: Block, pieces: Sequence[Piece], device: torch.device | None = None) -> Block:
    """A copy of some of a block's tokens; on another device, if one is named."""
    sources = _OnDevices(pieces)
    copies = [KeysValues(*(tensor[sources.on(tensor.device)] for tensor in layer)) for layer in block]
    return copies if device is None else [KeysValues(*(moved(tensor, device) for tensor in layer)) for layer in copies]


class _OnDevices:
    """The places of some pieces, on each device that asks for them."""

    def __init__(self, pieces: Sequence[Piece]) -> None:
        self._places = places(pieces)
        self._sent: dict[torch.device, Tensor] = {}

    def on(self, device: torch.device) -> Tensor:
        if device not in self._sent:
            self._sent[device] = sent(self._places, device)
        return self._sent[device]


def count_bytes(block: Block) -> int:
    """What a block takes."""
    return sum(tensor.numel() * tensor.element_size() for layer in block for tensor in layer)
