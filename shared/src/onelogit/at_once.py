"""Queries of a batch and the keys before them -> attention in one call of variable-length FlashAttention, on CUDA."""

import inspect
from collections.abc import Callable, Sequence
from functools import cache
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor

from onelogit.forest import Batch, Path, Span
from onelogit.keys import KeysValues, length_of, queries
from onelogit.transfer import places_on, tensor_on

_WIDEST_FLASH_HEAD = 256
_FLASH_CAPABILITY = (8, 0)  # Ampere; https://github.com/Dao-AILab/flash-attention#nvidia-cuda-support


def can_attend_at_once(query: Tensor) -> bool:
    """Whether this PyTorch has the call, and this device, dtype and width of a head can take it."""
    if not query.is_cuda or query.dtype not in (torch.bfloat16, torch.float16) or query.shape[-1] > _WIDEST_FLASH_HEAD:
        return False
    return _varlen_attention() is not None and torch.cuda.get_device_capability(query.device) >= _FLASH_CAPABILITY


class AtOnce:
    """One pass of a batch through the layers, one call for all segments in each.

    Args:
        batch: what is read.
    """

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self._sequences: dict[tuple[bool, torch.device], _Sequences] = {}
        self._copied: dict[torch.device, Tensor] = {}

    def attend(
        self, query: Tensor, blocks: Sequence[KeysValues], scaling: float | None, window: int | None, *, of_ends: bool
    ) -> Tensor:
        """As `Reading.attend`, of the batch's tokens or of the rows' last ones; zeros for all others."""
        sequences = self._sequences_of(blocks, query.device, of_ends=of_ends)
        rows = query.transpose(0, 1)
        is_whole = not of_ends and len(rows) == len(self._batch.ids)
        keys, values = (tensor[sequences.key_places] for tensor in _end_to_end(blocks))
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

    def copies(self, paths: Sequence[Path], blocks: Sequence[KeysValues]) -> list[KeysValues]:
        """As `follow` for each path, in memory of its own; read for all of them at once."""
        if not paths:
            return []
        device = blocks[0].keys.device
        if device not in self._copied:
            self._copied[device] = places_on(device, _spans([span for path in paths for span in path], blocks))
        sizes = [length_of(path) for path in paths]
        split: Any = torch.split_with_sizes_copy
        pieces = (split(tensor[self._copied[device]], sizes) for tensor in _end_to_end(blocks))
        return [KeysValues(*piece) for piece in zip(*pieces, strict=True)]

    def _sequences_of(self, blocks: Sequence[KeysValues], device: torch.device, *, of_ends: bool) -> "_Sequences":
        if (of_ends, device) not in self._sequences:
            self._sequences[of_ends, device] = _made_sequences(self._batch, blocks, device, of_ends=of_ends)
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


def _made_sequences(batch: Batch, blocks: Sequence[KeysValues], device: torch.device, *, of_ends: bool) -> _Sequences:
    asked = list(queries(batch, of_ends=of_ends))
    query_counts = [query.stop - query.start for query in asked]
    key_counts = [length_of(query.path) for query in asked]
    return _Sequences(
        places_on(device, [(query.start, query.stop) for query in asked]),
        places_on(device, _spans([span for query in asked for span in query.path], blocks)),
        tensor_on(device, list(accumulate(query_counts, initial=0)), torch.int32),
        tensor_on(device, list(accumulate(key_counts, initial=0)), torch.int32),
        max(query_counts, default=0),
        max(key_counts, default=0),
    )


def _spans(spans: Sequence[Span], blocks: Sequence[KeysValues]) -> list[tuple[int, int]]:
    """Where the spans begin and end in the blocks end to end."""
    offsets = list(accumulate((len(block.keys) for block in blocks), initial=0))
    return [(offsets[block] + start, offsets[block] + stop) for block, start, stop in spans]


def _end_to_end(blocks: Sequence[KeysValues]) -> KeysValues:
    return blocks[0] if len(blocks) == 1 else KeysValues(*map(torch.cat, zip(*blocks, strict=True)))


@cache
def _varlen_attention() -> Callable[..., Any] | None:
    """PyTorch's own, where this version has one that takes what is needed here."""
    try:
        from torch.nn.attention.varlen import varlen_attn  # noqa: PLC0415  younger than the oldest PyTorch allowed
    except ImportError:
        return None
    is_able = {"scale", "window_size", "enable_gqa"} <= inspect.signature(varlen_attn).parameters.keys()
    return varlen_attn if is_able else None
