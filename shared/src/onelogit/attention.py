"""A batch of a forest in a layer -> what each of its tokens sees, and the keys and values that are kept of it.

One description of who sees whom, the batch's segments, has two executions: `at_once` and `in_turn`.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from onelogit.at_once import AtOnce, can_attend_at_once
from onelogit.forest import Batch
from onelogit.in_turn import InTurn
from onelogit.keys import Block, KeysValues
from onelogit.transfer import tensor_on


class Reading:
    """One pass of a batch through the layers: what its tokens look back on, and what is left of it afterwards.

    Args:
        batch: what is read.
        past: the blocks that stand before it, in the order of `batch.past`.
        layer_count: of the model; in the last layer only the rows' last tokens look back.
        width: how many tokens pass through the layers: the batch's, and behind them others that nobody reads. None
            for the batch's alone.

    Attributes:
        stems: blocks of `batch.stems`, in their order.
        carried: block of `batch.carry`.
    """

    def __init__(self, batch: Batch, past: Sequence[Block], layer_count: int, width: int | None = None) -> None:
        self.batch = batch
        self.past = past
        self.layer_count = layer_count
        self.width = len(batch.ids) if width is None else width
        self.stems: list[Block] = [[] for _ in batch.stems]
        self.carried: Block = []
        self._kept_paths = [*(stem.path for stem in batch.stems), *([batch.carry] if batch.carry else [])]
        self._in_turn, self._at_once = InTurn(batch), AtOnce(batch)
        self._ends: dict[torch.device, Tensor] = {}

    def ends(self, device: torch.device) -> Tensor:
        """Places of the rows' last tokens, shape (rows that end here,)."""
        if device not in self._ends:
            self._ends[device] = tensor_on(device, [end.place for end in self.batch.ends])
        return self._ends[device]

    def attend(self, query: Tensor, own: KeysValues, layer: int, scaling: float | None, window: int | None) -> Tensor:
        """What attention gives each token of the batch.

        Args:
            query: shape (heads, tokens, width).
            own: keys and values of these tokens.
            layer: its number, from 0.
            scaling: of the scores; None for one over the root of the width.
            window: how many tokens a token sees, itself included; None for all before it.

        Returns:
            Shape (tokens, heads, width). Zeros, in the last layer, for all but the rows' last tokens.
        """
        blocks = [own, *(block[layer] for block in self.past)]
        way = self._at_once if can_attend_at_once(query) else self._in_turn
        kept = [*self.stems, *([self.carried] if self.batch.carry else [])]
        for block, copy in zip(kept, way.copies(self._kept_paths, blocks), strict=True):
            block.append(copy)
        is_last = layer == self.layer_count - 1
        if is_last and not self.batch.ends:
            return query.new_zeros((query.shape[1], query.shape[0], own.values.shape[-1]))
        return way.attend(query, blocks, scaling, window, of_ends=is_last)
