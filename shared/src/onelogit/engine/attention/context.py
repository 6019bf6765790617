"""A batch of a forest in a layer -> what each of its tokens sees, and the keys and values that are kept of it.

One description of who sees whom, the batch's segments, has two executions: `at_once` and `in_turn`.
"""

import torch
from torch import Tensor

from onelogit.engine.attention.flash_varlen import FlashVarlenAttention, has_flash_varlen
from onelogit.engine.attention.sdpa import SdpaAttention
from onelogit.engine.device_transfer import tensor_on
from onelogit.engine.keys import KeyValue, LayerKeyValues, Seen
from onelogit.engine.prefix_tree import Batch, Path


class AttentionContext:
    """One pass of a batch through the layers: what its tokens look back on, and what is left of it afterwards.

    Args:
        batch: what is read.
        layer_count: of the model; in the last layer only the rows' last tokens look back.
        carried: what the batch before handed on; empty for nothing.
        kept: what is kept between forests; empty for nothing.
        width: how many tokens pass through the layers: the batch's, and behind them others that nobody reads. None
            for the batch's alone.

    Attributes:
        cacheable_prefixes: of `batch.cacheable_prefixes`, one behind the other.
        carry: of `batch.carry`.
    """

    def __init__(
        self, batch: Batch, layer_count: int, carried: LayerKeyValues, kept: LayerKeyValues, width: int | None = None
    ) -> None:
        self.batch = batch
        self.layer_count = layer_count
        self.width = len(batch.ids) if width is None else width
        self.cacheable_prefixes: LayerKeyValues = []
        self.carry: LayerKeyValues = []
        self._carried, self._kept = carried, kept
        leaving: Path = tuple(
            span for path in (*(prefix.path for prefix in batch.cacheable_prefixes), batch.carry) for span in path
        )
        self._leaves = bool(leaving)
        self._cacheable_tokens = sum(prefix.length for prefix in batch.cacheable_prefixes)
        self._in_turn, self._at_once = SdpaAttention(batch, leaving), FlashVarlenAttention(batch, leaving)
        self._ends: dict[torch.device, Tensor] = {}

    def ends(self, device: torch.device) -> Tensor:
        """Places of the rows' last tokens, shape (rows that end here,)."""
        if device not in self._ends:
            self._ends[device] = tensor_on(device, [end.place for end in self.batch.ends])
        return self._ends[device]

    def attend(self, query: Tensor, own: KeyValue, layer: int, scaling: float | None, window: int | None) -> Tensor:
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
        way = self._at_once if has_flash_varlen(query) else self._in_turn
        if self._leaves:
            copy = way.copy(seen)
            self.cacheable_prefixes.append(copy.part(0, self._cacheable_tokens))
            self.carry.append(copy.part(self._cacheable_tokens))
        is_last = layer == self.layer_count - 1
        if is_last and not self.batch.ends:
            return query.new_zeros((query.shape[1], query.shape[0], own.values.shape[-1]))
        return way.attend(query, seen, scaling, window, of_ends=is_last)
