"""Keys and values of rows' leading tokens, kept between calls; what was used longest ago goes first."""

from collections import OrderedDict
from collections.abc import Sequence

import torch

from onelogit.forest import Known
from onelogit.keys import Block, KeysValues
from onelogit.transfer import moved

Ids = tuple[int, ...]

_HOST = torch.device("cpu")


class DocumentCache:
    """For one model. Not for several threads at once.

    A row names its stems: the lengths of those prefixes of it that other rows may share. In a family that writes the
    document first, one of them ends with the document; in one that writes the query first, with the query.

    Args:
        most_bytes: of keys and values, where the model's layers are.
        most_host_bytes: of those that had to leave there, in the CPU's memory.
    """

    def __init__(self, most_bytes: int, most_host_bytes: int = 0) -> None:
        self._near = _Shelf(most_bytes)
        self._far = _Shelf(most_host_bytes)
        self._homes: list[torch.device] = []

    @property
    def held_bytes(self) -> int:
        """Of keys and values, wherever they are."""
        return self._near.held_bytes + self._far.held_bytes

    def find(self, ids: Ids, stems: Sequence[int]) -> Known | None:
        """The longest kept prefix of a row, among its stems; one token at least is left to compute.

        Args:
            ids: of the row.
            stems: lengths in tokens, ascending.
        """
        for length in reversed(stems):
            if length < len(ids) and (block := self._find(ids[:length])) is not None:
                return Known(length, block)
        return None

    def keep(self, ids: Ids, block: Block) -> None:
        """Keep a prefix, unless it is larger than the cache."""
        self._homes = [layer.keys.device for layer in block]
        for evicted_ids, evicted in self._near.put(ids, block):
            if self._far.most_bytes:
                self._far.put(evicted_ids, _moved(evicted, [_HOST] * len(evicted)))

    def _find(self, ids: Ids) -> Block | None:
        block = self._near.get(ids)
        if block is None and (far := self._far.pop(ids)) is not None:
            block = _moved(far, self._homes)
            self.keep(ids, block)
        return block


class _Shelf:
    """Blocks within a limit of bytes, in the order of their last use."""

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self.held_bytes = 0
        self._blocks: OrderedDict[Ids, Block] = OrderedDict()

    def get(self, ids: Ids) -> Block | None:
        if ids not in self._blocks:
            return None
        self._blocks.move_to_end(ids)
        return self._blocks[ids]

    def pop(self, ids: Ids) -> Block | None:
        block = self._blocks.pop(ids, None)
        self.held_bytes -= 0 if block is None else _count_bytes(block)
        return block

    def put(self, ids: Ids, block: Block) -> list[tuple[Ids, Block]]:
        """Add a block; returns what had to leave for it, the block itself where it is too large."""
        self.pop(ids)
        if _count_bytes(block) > self.most_bytes:
            return [(ids, block)]
        self._blocks[ids] = block
        self.held_bytes += _count_bytes(block)
        evicted = []
        while self.held_bytes > self.most_bytes:
            oldest = next(iter(self._blocks))
            evicted.append((oldest, self._blocks[oldest]))
            self.pop(oldest)
        return evicted


def _count_bytes(block: Block) -> int:
    return sum(tensor.numel() * tensor.element_size() for layer in block for tensor in layer)


def _moved(block: Block, devices: Sequence[torch.device]) -> Block:
    return [
        KeysValues(*(moved(tensor, device) for tensor in layer)) for layer, device in zip(block, devices, strict=True)
    ]
