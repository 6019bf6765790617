"""Rows one after the other -> the attention of each row over itself alone, by products, SDPA or FlashAttention."""

from collections.abc import Iterator, Sequence
from functools import cache
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from onelogit.engine.attention.flash_varlen import FlashVarlenAttention, attend_to_whole_rows
from onelogit.engine.attention.sdpa import needs_mask, rounded

_BLOCK = 256  # queries of a row whose scores are in memory at the same time
_SHORTEST_BLOCK = 64
_FAR, _MOST = 16.0, 0x4180  # a score, and the bits of it as a bfloat16
_SAMPLED = 4


class Pattern(NamedTuple):
    """To which tokens of its row a token attends.

    Attributes:
        mask: whether the query of each index attends to the key of each index, shape (longest, longest), on the CPU;
            None if each token attends to its whole row.
        reach: the greatest distance of a query and a key; None if there is no mask.
        is_window: whether the mask is `distance <= reach`.
    """

    mask: Tensor | None = None
    reach: int | None = None
    is_window: bool = False

    @classmethod
    def of_mask(cls, mask: Tensor) -> "Pattern":
        """The pattern of a mask of bool, shape (longest, longest)."""
        if bool(mask.all()):
            return cls()
        # Without a matrix of distances, which would take eight times the mask's memory.
        indices, numbers = torch.arange(len(mask)), mask.view(torch.uint8)
        before = indices - numbers.argmax(dim=1)
        after = len(mask) - 1 - numbers.flip(1).argmax(dim=1) - indices
        reach = int(torch.maximum(before, after).where(mask.any(dim=1), 0).max())
        return cls(mask, reach, is_window=bool(torch.equal(mask, torch.ones_like(mask).tril(reach).triu(-reach))))


class _Block(NamedTuple):
    """Queries of a row, and the keys which contain all that they attend to; indices in the row."""

    start: int
    stop: int
    first_key: int
    last_key: int


class RowAttention:
    """Attention of packed rows with one pattern.

    Args:
        lengths: of the rows, in tokens.
        pattern: of every row.
        read: the index of the only query of each row that is computed; None for all.
    """

    def __init__(self, lengths: Sequence[int], pattern: Pattern, read: int | None = None) -> None:
        self._lengths, self._pattern, self._read = lengths, pattern, read
        self._starts = list(accumulate(lengths, initial=0))
        self._cached_mask = cache(self._new_mask)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        """The output of attention for each token; zeros for padding and queries that are not computed.

        Args:
            query: shape (heads, tokens, head_dim): the rows one after the other, then padding.
            key: shape (key-value heads, tokens, head_dim).
            value: the same.
            scaling: factor of the scores.

        Returns:
            Shape (tokens, heads, head_dim).
        """
        is_dense = self._pattern.mask is None or self._pattern.is_window
        if FlashVarlenAttention.supports(query) and is_dense:
            return attend_to_whole_rows(query, key, value, self._lengths, scaling, self._pattern.reach)
        output = query.new_zeros((query.shape[1], query.shape[0], value.shape[-1]))
        is_product = query.device.type == "cpu" and query.dtype == torch.bfloat16
        attend = self._by_products if is_product else self._by_sdpa
        for start, length in zip(self._starts, self._lengths, strict=False):
            for block in self._blocks(length, _BLOCK if is_product else length):
                attended = attend(query, key, value, scaling, start, block)
                output[start + block.start : start + block.stop] = attended.transpose(0, 1)
        return output

    def _blocks(self, length: int, longest: int) -> Iterator[_Block]:
        """The blocks of a row, of at most so many queries; short ones if each attends to few keys."""
        reach = length if self._pattern.reach is None else self._pattern.reach
        starts = range(0, length, min(longest, max(_SHORTEST_BLOCK, reach)))
        stops = [*starts[1:], length]
        if self._read is not None:
            starts = range(self._read % length, self._read % length + 1)
            stops = [starts.stop]
        for start, stop in zip(starts, stops, strict=True):
            yield _Block(start, stop, max(0, start - reach), min(length, stop + reach))

    def _by_sdpa(self, query: Tensor, key: Tensor, value: Tensor, scaling: float, start: int, block: _Block) -> Tensor:
        keys = slice(start + block.first_key, start + block.last_key)
        mask = self._pattern.mask
        if mask is not None:
            mask = mask[block.start : block.stop, block.first_key : block.last_key].to(query.device)
        if needs_mask(query.device):
            added = query.new_zeros((block.stop - block.start, block.last_key - block.first_key))
            mask = added if mask is None else added.masked_fill_(~mask, float("-inf"))
        return scaled_dot_product_attention(
            query[None, :, start + block.start : start + block.stop],
            key[None, :, keys],
            value[None, :, keys],
            attn_mask=mask,
            scale=scaling,
            enable_gqa=len(query) != len(key),
        )[0]

    def _by_products(
        self, query: Tensor, key: Tensor, value: Tensor, scaling: float, start: int, block: _Block
    ) -> Tensor:
        """Two products; on a CPU in bfloat16, they are faster than SDPA.

        Their lengths are rounded up so that they recur (see `sdpa`): neighbours in the batch are computed, but masked.
        """
        count, (heads, tokens, width) = block.stop - block.start, query.shape
        queries, keys = (min(rounded(each), tokens) for each in (count, block.last_key - block.first_key))
        first = min(start + block.start, tokens - queries)
        first_key = min(start + block.first_key, tokens - keys)
        before = start + block.start - first
        mask = self._cached_mask(block, before, queries, start + block.first_key - first_key, keys, query.dtype)
        group = heads // len(key)
        folded = query[:, first : first + queries].reshape(len(key), group * queries, width)
        seen = slice(first_key, first_key + keys)
        mask = mask if group == 1 or mask.shape[1] == 1 else mask.repeat(1, group, 1)
        scores = torch.baddbmm(mask, folded, key[:, seen].transpose(1, 2), alpha=scaling)
        if _are_coarse(scores.view(len(key), group, queries, keys)[:, :, before : before + count]):
            return self._by_sdpa(query, key, value, scaling, start, block)
        attended = torch.bmm(scores.softmax(-1), value[:, seen])
        return attended.view(heads, queries, -1)[:, before : before + count]

    def _new_mask(
        self, block: _Block, before: int, queries: int, keys_before: int, keys: int, dtype: torch.dtype
    ) -> Tensor:
        """The mask to add to the scores, shape (1, queries, keys), or (1, 1, keys) without a pattern."""
        own = slice(keys_before, keys_before + block.last_key - block.first_key)
        mask = torch.full((1 if self._pattern.mask is None else queries, keys), float("-inf"), dtype=dtype)
        mask[:, own] = 0
        if self._pattern.mask is not None:
            is_seen = self._pattern.mask[block.start : block.stop, block.first_key : block.last_key]
            mask[before : before + len(is_seen), own].masked_fill_(~is_seen, float("-inf"))
        return mask[None]


def _are_coarse(scores: Tensor) -> bool:
    """Whether the greatest score of a query may be so far from 0 that bfloat16 rounds it by more than 3 %.

    Looks for a score that is not far below 0 in a sample of the keys only.
    """
    if int(scores.view(torch.int16).amax()) > _MOST:  # positive numbers sort as their bits do
        return True
    return not bool((scores[..., ::_SAMPLED].float().amax(-1) >= -_FAR).all())
