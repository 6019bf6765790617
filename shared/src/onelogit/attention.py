"""Keys and values of a batch of a forest, layer by layer -> what its tokens see of them.

One description of who sees whom, the batch's segments, has two executions: one call of variable-length FlashAttention
on CUDA, and elsewhere scaled dot products segment by segment.
"""

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from onelogit.forest import Batch, Path, Span

_WIDEST_FLASH_HEAD = 256


class KeysValues(NamedTuple):
    """Of consecutive tokens in one layer, positions worked in; each of shape (key-value heads, tokens, width)."""

    keys: Tensor
    values: Tensor


Block = list[KeysValues]
"""Keys and values of a prefix, layer by layer."""


class Reading:
    """One pass of a batch through the layers: what its tokens look back on, and what is left of it afterwards.

    Args:
        batch: what is read.
        past: the blocks that stand before it, in the order of `batch.past`.
        layer_count: of the model; in the last layer only the rows' last tokens look back.

    Attributes:
        stems: blocks of `batch.stems`, in their order.
        carried: block of `batch.carry`.
    """

    def __init__(self, batch: Batch, past: Sequence[Block], layer_count: int) -> None:
        self.batch = batch
        self.past = past
        self.layer_count = layer_count
        self.stems: list[Block] = [[] for _ in batch.stems]
        self.carried: Block = []
        self._ends: dict[torch.device, Tensor] = {}
        self._masks: dict[tuple[int, int, int | None, torch.device], Tensor] = {}
        self._sequences: dict[tuple[bool, torch.device], _Sequences] = {}

    def ends(self, device: torch.device) -> Tensor:
        """Places of the rows' last tokens, shape (rows that end here,)."""
        if device not in self._ends:
            self._ends[device] = torch.tensor([end.place for end in self.batch.ends], dtype=torch.long, device=device)
        return self._ends[device]

    def attend(self, query: Tensor, own: KeysValues, layer: int, scaling: float | None, window: int | None) -> Tensor:
        """What attention gives each token of the batch.

        Args:
            query: shape (heads, tokens, width).
            own: of the batch's tokens.
            layer: its number, from 0.
            scaling: of the scores; None for one over the root of the width.
            window: how many tokens a token sees, itself included; None for all before it.

        Returns:
            Shape (tokens, heads, width). Zeros, in the last layer, for all but the rows' last tokens.
        """
        blocks = [own, *(block[layer] for block in self.past)]
        for stem, block in zip(self.batch.stems, self.stems, strict=True):
            block.append(_copy(stem.path, blocks))
        if self.batch.carry:
            self.carried.append(_copy(self.batch.carry, blocks))
        is_last = layer == self.layer_count - 1
        if is_last and not self.batch.ends:
            return query.new_zeros((query.shape[1], query.shape[0], own.values.shape[-1]))
        if _has_varlen(query):
            return self._attend_at_once(query, blocks, scaling, window, is_last)
        return self._attend_in_turn(query, blocks, scaling, window, is_last)

    def _attend_in_turn(
        self, query: Tensor, blocks: list[KeysValues], scaling: float | None, window: int | None, is_last: bool
    ) -> Tensor:
        heads, count, _ = query.shape
        attended = query.new_zeros if is_last else query.new_empty
        output = attended((count, heads, blocks[0].values.shape[-1]))
        for start, stop, path in _queries(self.batch, is_last):
            keys, values = _follow(path, blocks)
            mask = self._mask(stop - start, keys.shape[1], window, query.device)
            output[start:stop] = scaled_dot_product_attention(
                query[None, :, start:stop],
                keys[None],
                values[None],
                attn_mask=mask,
                is_causal=mask is None and stop - start > 1,
                scale=scaling,
                enable_gqa=heads != len(keys),
            )[0].transpose(0, 1)
        return output

    def _mask(self, count: int, key_count: int, window: int | None, device: torch.device) -> Tensor | None:
        """Whom the last `count` of `key_count` tokens see; None where the shapes alone say so."""
        is_windowed = window is not None and window < key_count
        if not is_windowed and count in (1, key_count):
            return None
        key = count, key_count, window if is_windowed else None, device
        if key not in self._masks:
            mask = torch.ones(count, key_count, dtype=torch.bool, device=device).tril_(key_count - count)
            self._masks[key] = mask.triu_(key_count - count - window + 1) if is_windowed and window else mask
        return self._masks[key]

    def _attend_at_once(
        self, query: Tensor, blocks: list[KeysValues], scaling: float | None, window: int | None, is_last: bool
    ) -> Tensor:
        if (is_last, query.device) not in self._sequences:
            lengths = [block.keys.shape[1] for block in blocks]
            self._sequences[is_last, query.device] = _sequences(self.batch, lengths, is_last, query.device)
        sequences = self._sequences[is_last, query.device]
        rows = query.transpose(0, 1)
        keys, values = (
            torch.cat([tensor.transpose(0, 1) for tensor in tensors])[sequences.key_places]
            for tensors in zip(*blocks, strict=True)
        )
        varlen_attention: Any = _varlen_attention()
        attended: Tensor = varlen_attention(
            rows[sequences.query_places] if is_last else rows,
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
        if not is_last:
            return attended
        return rows.new_zeros((*rows.shape[:2], values.shape[-1])).index_copy_(0, sequences.query_places, attended)


class _Query(NamedTuple):
    """Consecutive tokens of a batch, with the path of their keys, their own included."""

    start: int
    stop: int
    path: Path


def _queries(batch: Batch, is_last: bool) -> Iterator[_Query]:
    ends = {end.place for end in batch.ends}
    for start, stop, ancestors in batch.segments:
        path = (*ancestors, Span(0, start, stop))
        if not is_last:
            yield _Query(start, stop, path)
        elif stop - 1 in ends:
            yield _Query(stop - 1, stop, path)


def _follow(path: Path, blocks: Sequence[KeysValues]) -> KeysValues:
    """The keys and values along a path, one behind the other."""
    if len(path) == 1:
        block, start, stop = path[0]
        return KeysValues(*(tensor[:, start:stop] for tensor in blocks[block]))
    return KeysValues(
        torch.cat([blocks[block].keys[:, start:stop] for block, start, stop in path], dim=1),
        torch.cat([blocks[block].values[:, start:stop] for block, start, stop in path], dim=1),
    )


def _copy(path: Path, blocks: Sequence[KeysValues]) -> KeysValues:
    """As `_follow`, in memory of its own: a view would keep the whole batch."""
    return KeysValues(*(tensor.clone(memory_format=torch.contiguous_format) for tensor in _follow(path, blocks)))


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


def _sequences(batch: Batch, block_lengths: Sequence[int], is_last: bool, device: torch.device) -> _Sequences:
    offsets = [0, *accumulate(block_lengths)]
    queries = list(_queries(batch, is_last))
    query_counts = [query.stop - query.start for query in queries]
    key_counts = [sum(span.stop - span.start for span in query.path) for query in queries]
    spans = [(offsets[block] + start, offsets[block] + stop) for query in queries for block, start, stop in query.path]

    def on_device(numbers: Iterable[int], dtype: torch.dtype) -> Tensor:
        return torch.tensor([*numbers], dtype=dtype).to(device, non_blocking=True)

    return _Sequences(
        on_device((place for query in queries for place in range(query.start, query.stop)), torch.long),
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


def _has_varlen(query: Tensor) -> bool:
    is_half = query.dtype in (torch.bfloat16, torch.float16)
    return query.is_cuda and is_half and query.shape[-1] <= _WIDEST_FLASH_HEAD and _varlen_attention() is not None
