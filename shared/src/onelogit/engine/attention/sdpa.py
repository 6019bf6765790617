"""Queries of a batch and the keys before them -> attention by scaled dot products, segment by segment.

Lengths are rounded up to repeat themselves. The kernels of a CPU are written anew for each length that they meet, which
takes longer than what they then compute, and where keys are an odd number they take the slow way.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from onelogit.engine.keys import KeyValue, Query, Seen, follow, length_of, queries
from onelogit.engine.prefix_tree import Batch, Path

MULTIPLE = 32


def rounded(count: int) -> int:
    """The length in which a kernel meets so many tokens."""
    return -(-count // MULTIPLE) * MULTIPLE


class _Frame(NamedTuple):
    """What one product computes: a segment's queries and keys, with others beside them that nobody reads.

    Attributes:
        rows: how many queries it takes.
        before: how many of these stand before the segment's own.
        own: how many are the segment's.
        seen: how many keys the last of those sees; of all `keys` the first ones.
        keys: how many keys it takes.
    """

    rows: int
    before: int
    own: int
    seen: int
    keys: int


class SdpaAttention:
    """One pass of a batch through the layers, one product for each segment in each.

    Args:
        batch: what is read.
        leaving: the path of what is copied out of it.
    """

    def __init__(self, batch: Batch, leaving: Path) -> None:
        self._batch = batch
        self._leaving = leaving
        self._masks: dict[tuple[_Frame, int | None, torch.dtype, torch.device], Tensor] = {}

    def attend(self, query: Tensor, seen: Seen, scaling: float | None, window: int | None, *, of_ends: bool) -> Tensor:
        """As `AttentionContext.attend`, of the batch's tokens or of the rows' last ones; zeros for all others."""
        heads, width, _ = query.shape
        output = query.new_zeros((width, heads, seen.own.values.shape[-1]))
        for asked in queries(self._batch, of_ends=of_ends):
            frame = _frame(asked, width)
            first = asked.start - frame.before
            keys, values = (
                tensor.transpose(0, 1)[None] for tensor in follow(asked.path, seen, frame.keys - frame.seen)
            )
            mask = self._mask(frame, window, query)
            if not _takes_fewer_heads(query.device):
                keys, values = (tensor.repeat_interleave(heads // tensor.shape[1], 1) for tensor in (keys, values))
            attended = scaled_dot_product_attention(
                query[None, :, first : first + frame.rows],
                keys,
                values,
                attn_mask=mask,
                is_causal=mask is None and frame.rows > 1,
                scale=scaling,
                enable_gqa=heads != keys.shape[1],
            )[0]
            output[asked.start : asked.stop] = attended[:, frame.before : frame.before + frame.own].transpose(0, 1)
        return output

    def copy(self, seen: Seen) -> KeyValue:
        """What leaves the batch, in memory of its own: a view would keep the whole batch."""
        followed = follow(self._leaving, seen)
        if len(self._leaving) > 1:
            return followed
        return KeyValue(*(tensor.clone(memory_format=torch.contiguous_format) for tensor in followed))

    def _mask(self, frame: _Frame, window: int | None, query: Tensor) -> Tensor | None:
        """Added to the scores, shape (rows, keys); None where the shapes alone say who sees whom."""
        window = window if window is not None and window < frame.seen else None
        is_alone = frame.rows == 1 and frame.keys == frame.seen
        is_root = frame.before == 0 and frame.own == frame.seen and frame.rows == frame.keys
        if window is None and (is_alone or is_root):
            return None
        key = frame, window, query.dtype, query.device
        if key not in self._masks:
            self._masks[key] = _made_mask(*key)
        return self._masks[key]


def _takes_fewer_heads(device: torch.device) -> bool:
    """Whether one kernel takes fewer heads of keys than of queries, in float32 and behind a mask, too.

    On CUDA that of float32 and of old cards does not up to PyTorch 2.13: a product would be taken apart into ten.
    Source: https://github.com/pytorch/pytorch/pull/191085
    """
    return device.type != "cuda"


def _frame(asked: Query, width: int) -> _Frame:
    own, seen = asked.stop - asked.start, length_of(asked.path)
    rows = own if own == 1 or rounded(own) > width else rounded(own)
    before = max(0, asked.start + rows - width)  # what would stand behind the last token stands before the first
    return _Frame(rows, before, own, seen, rounded(seen))


def _made_mask(frame: _Frame, window: int | None, dtype: torch.dtype, device: torch.device) -> Tensor:
    rows = torch.arange(frame.rows, device=device) + (frame.seen - frame.own - frame.before)
    last = rows.clamp(0, frame.seen - 1)[:, None]  # a query that nobody reads sees something, too: of nothing comes NaN
    keys = torch.arange(frame.keys, device=device)
    is_seen = keys <= last if window is None else (keys <= last) & (keys > last - window)
    return torch.zeros(is_seen.shape, dtype=dtype, device=device).masked_fill_(~is_seen, float("-inf"))
