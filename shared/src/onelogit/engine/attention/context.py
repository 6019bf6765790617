"""A batch of a forest in a layer -> what each of its tokens sees, and the keys and values that are kept of it.

One description of who sees whom, the batch's segments, has two executions: `at_once` and `in_turn`.
"""

import torch
from torch import Tensor

from onelogit.engine.attention.flash_varlen import AtOnce, can_attend_at_once
from onelogit.engine.attention.sdpa import InTurn
from onelogit.engine.device_transfer import tensor_on
from onelogit.engine.keys import Block, KeysValues, Seen
from onelogit.engine.prefix_tree import Batch, Path


class Reading:
    """One pass of a batch through the layers: what its tokens look back on, and what is left of it afterwards.

    Args:
        batch: what is read.
        layer_count: of the model; in the last layer only the rows' last tokens look back.
        carried: what the batch before handed on; empty for nothing.
        kept: what is kept between forests; empty for nothing.
        width: how many tokens pass through the layers: the batch's, and behind them others that nobody reads. None
            for the batch's alone.

    Attributes:
        stems: of `batch.stems`, one behind the other.
        carry: of `batch.carry`.
    """

    def __init__(self, batch: Batch, layer_count: int, carried: Block, kept: Block, width: int | None = None) -> None:
        self.batch = batch
        self.layer_count = layer_count
        self.width = len(batch.ids) if width is None else width
        self.stems: Block = []
        self.carry: Block = []
        self._carried, self._kept = carried, kept
        leaving: Path = tuple(span for path in (*(stem.path for stem in batch.stems), batch.carry) for span in path)
        self._leaves = bool(leaving)
        self._stem_tokens = sum(stem.length for stem in batch.stems)
        self._in_turn, self._at_once = InTurn(batch, leaving), AtOnce(batch, leaving)
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
        nothing = own.part(0, 0)
        seen = Seen(
            own, self._carried[layer] if self._carried else nothing, self._kept[layer] if self._kept else nothing
        )
        way = self._at_once if can_attend_at_once(query) else self._in_turn
        if self._leaves:
            copy = way.copy(seen)
            self.stems.append(copy.part(0, self._stem_tokens))
            self.carry.append(copy.part(self._stem_tokens))
        is_last = layer == self.layer_count - 1
        if is_last and not self.batch.ends:
            return query.new_zeros((query.shape[1], query.shape[0], own.values.shape[-1]))
        return way.attend(query, seen, scaling, window, of_ends=is_last)
