"""Queries of a batch and the keys before them -> attention in one call of variable-length FlashAttention, on CUDA."""

import inspect
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor

from onelogit.forest import Batch
from onelogit.keys import KeysValues, queries

_WIDEST_FLASH_HEAD = 256


def can_attend_at_once(query: Tensor) -> bool:
    """Whether this PyTorch has the call, for this device, dtype and width of a head."""
    is_half = query.dtype in (torch.bfloat16, torch.float16)
    return query.is_cuda and is_half and query.shape[-1] <= _WIDEST_FLASH_HEAD and _varlen_attention() is not None


class AtOnce:
    """One pass of a batch through the layers, one call for all segments in each.

    Args:
        batch: what is read.
    """

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self._sequences: dict[tuple[bool, torch.device], _Sequences] = {}

    def attend(
        self, query: Tensor, blocks: Sequence[KeysValues], scaling: float | None, window: int | None, *, of_ends: bool
    ) -> Tensor:
        """As `Reading.attend`, of the batch's tokens or of the rows' last ones; zeros for all others."""
        sequences = self._sequences_of([block.keys.shape[1] for block in blocks], query.device, of_ends=of_ends)
        rows = query.transpose(0, 1)
        is_whole = not of_ends and len(rows) == len(self._batch.ids)
        keys, values = (
            torch.cat([tensor.transpose(0, 1) for tensor in tensors])[sequences.key_places]
            for tensors in zip(*blocks, strict=True)
        )
        varlen_attention: Any = _varlen_attention()
        attended: Tensor = varlen_attention(
            rows if is_whole else rows[sequences.query_places],
            keys,
            values,
            sequences.query_starts,
            sequences.key_starts,
            sequences.most_queries,
            sequences.most_keys,
            scale=scaling,
            window_size=(-1 if window is None else window - 1, 0),
            enable_gqa=rows.shape[1] != keys.shape[1],
        )
        if is_whole:
            return attended
        return rows.new_zeros((*rows.shape[:2], values.shape[-1])).index_copy_(0, sequences.query_places, attended)

    def _sequences_of(self, block_lengths: Sequence[int], device: torch.device, *, of_ends: bool) -> "_Sequences":
        if (of_ends, device) not in self._sequences:
            self._sequences[of_ends, device] = _made_sequences(self._batch, block_lengths, device, of_ends=of_ends)
        return self._sequences[of_ends, device]


class _Sequences(NamedTuple):
    """The segments as sequences of variable length, end to end.

    Attributes:
        query_places: in the batch, of all queries.
        key_places: in the blocks end to end, of the keys of one sequence after the other.
        query_starts, key_starts: where each sequence begins, and at last the end; int32.
    """

    query_places: Tensor
    key_places: Tensor
    query_starts: Tensor
    key_starts: Tensor
    most_queries: int
    most_keys: int


def _made_sequences(batch: Batch, block_lengths: Sequence[int], device: torch.device, *, of_ends: bool) -> _Sequences:
    offsets = [0, *accumulate(block_lengths)]
    asked = list(queries(batch, of_ends=of_ends))
    query_counts = [query.stop - query.start for query in asked]
    key_counts = [query.key_count for query in asked]
    spans = [(offsets[block] + start, offsets[block] + stop) for query in asked for block, start, stop in query.path]

    def on_device(numbers: Iterable[int], dtype: torch.dtype) -> Tensor:
        return torch.tensor([*numbers], dtype=dtype).to(device, non_blocking=True)

    return _Sequences(
        on_device((place for query in asked for place in range(query.start, query.stop)), torch.long),
        on_device((place for span in spans for place in range(*span)), torch.long),
        on_device(accumulate(query_counts, initial=0), torch.int32),
        on_device(accumulate(key_counts, initial=0), torch.int32),
        max(query_counts, default=0),
        max(key_counts, default=0),
    )


@cache
def _varlen_attention() -> Callable[..., Any] | None:
    """PyTorch's own, where this version has one that takes what is needed here."""
    try:
        from torch.nn.attention.varlen import varlen_attn  # noqa: PLC0415  younger than the oldest PyTorch allowed
    except ImportError:
        return None
    is_able = {"scale", "window_size", "enable_gqa"} <= inspect.signature(varlen_attn).parameters.keys()
    return varlen_attn if is_able else None
