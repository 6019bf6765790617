"""Queries of a batch and the keys before them -> attention by scaled dot products, segment by segment, on any device.

PyTorch's kernel computes them, or, where that is slower, two matrix products for each block of a segment.
Lengths are rounded up so that they recur: a CPU builds a kernel for each new length, which takes longer than running
the kernel, and it is slow for odd numbers of keys.
"""

from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from onelogit.engine.attention.backend import KeySources, KeyValue, QuerySpan, path_length, query_spans
from onelogit.engine.prefix_tree import Batch, KeyPath

LENGTH_MULTIPLE = 32
_QUERY_BLOCK = 256  # queries whose scores are in memory at the same time; a block skips the keys after its last query
_SAMPLED = 4  # one key of so many; divides LENGTH_MULTIPLE
_MARGIN = 2**-7  # of the greatest score of a sample: more than its rounding
_MOST_ABOVE = 0x4100  # 8, as the bits of a bfloat16; a score above it is rounded by up to 3 %, one below it by 1.6 %


class Block(NamedTuple):
    """One matrix product of attention: its lengths, in tokens.

    Attributes:
        queries: all queries: padding, the segment's queries, padding.
        before: the padding before the segment's queries.
        own: the segment's queries.
        visible: the keys to which the last of these queries attends; they come first.
        keys: all keys, padding included.
    """

    queries: int
    before: int
    own: int
    visible: int
    keys: int


class SdpaAttention:
    """One product for each segment in each layer; see `AttentionBackend`."""

    def __init__(self, batch: Batch, outgoing: KeyPath) -> None:
        self._batch, self._outgoing = batch, outgoing
        self._cached_mask = cache(_new_mask)

    @staticmethod
    def supports(query: Tensor) -> bool:  # noqa: ARG004
        return True

    @staticmethod
    def padded_length(token_count: int, device: torch.device) -> int:
        """The next multiple of 32; on CUDA, the length itself, because its kernels accept any length."""
        return token_count if device.type == "cuda" else rounded(token_count)

    def attend(
        self, query: Tensor, sources: KeySources, scaling: float | None, window: int | None, *, ends_only: bool
    ) -> Tensor:
        heads, token_count, _ = query.shape
        output = query.new_zeros((token_count, heads, sources.own.values.shape[-1]))
        for span in query_spans(self._batch, ends_only=ends_only):
            block = _block(span, token_count)
            first = span.start - block.before
            parts = _parts(span.path, sources, block.keys - block.visible)
            seen = KeyValue(*(_heads_first(tensors) for tensors in zip(*parts, strict=True)))
            attended = self._attend_segment(query[:, first : first + block.queries], seen, block, scaling, window)
            output[span.start : span.stop] = attended[:, block.before : block.before + block.own].transpose(0, 1)
        return output

    def _attend_segment(
        self, query: Tensor, seen: KeyValue, block: Block, scaling: float | None, window: int | None
    ) -> Tensor:
        """The output of a segment, padding included, shape (heads, queries, head_dim); `seen` has heads first, too."""
        heads, (keys, values) = len(query), (tensor[None] for tensor in seen)
        mask = self._mask(block, window, query)
        if query.is_cuda:
            # For fewer key heads than query heads, with a mask or on old GPUs, PyTorch up to 2.13 runs ten small
            # kernels in float32: https://github.com/pytorch/pytorch/pull/191085
            keys, values = (tensor.repeat_interleave(heads // tensor.shape[1], 1) for tensor in (keys, values))
        return scaled_dot_product_attention(
            query[None],
            keys,
            values,
            attn_mask=mask,
            is_causal=mask is None and block.queries > 1,
            scale=scaling,
            enable_gqa=heads != keys.shape[1],
        )[0]

    def copy_outgoing(self, sources: KeySources) -> KeyValue:
        return _joined(_parts(self._outgoing, sources))

    def _mask(self, block: Block, window: int | None, query: Tensor) -> Tensor | None:
        """The mask to add to the scores, shape (queries, keys); None if `is_causal` or no mask has the same effect."""
        window = window if window is not None and window < block.visible else None
        is_single = block.queries == 1 and block.keys == block.visible and not needs_mask(query.device)
        is_root = block.before == 0 and block.own == block.visible and block.queries == block.keys
        if window is None and (is_single or is_root):
            return None
        return self._cached_mask(block, window, query.dtype, query.device)


def needs_mask(device: torch.device) -> bool:
    """Whether queries without a mask of numbers could reach kernels that are wrong for some lengths and strides.

    On MPS up to PyTorch 2.11: https://github.com/pytorch/pytorch/issues/174861, issues/163597.
    """
    return device.type == "mps"


class ProductAttention(SdpaAttention):
    """Two products for each block of a segment in each layer; see `AttentionBackend`.

    If they would round its scores too much, PyTorch's kernel computes the segment.
    """

    @staticmethod
    def supports(query: Tensor) -> bool:
        """Whether PyTorch's own kernel is slower: without matrix units (AMX), it multiplies small tiles one by one.

        Not found by a timed trial: logits would then depend on how busy the machine was while the model was loaded.
        """
        return query.device.type == "cpu" and query.dtype == torch.bfloat16 and not torch.cpu._is_amx_tile_supported()

    def _attend_segment(
        self, query: Tensor, seen: KeyValue, block: Block, scaling: float | None, window: int | None
    ) -> Tensor:
        heads, rows, width = query.shape
        if rows == 1 or (window is not None and window < block.visible):  # a sample may have no key in a window
            return super()._attend_segment(query, seen, block, scaling, window)
        keys, values = seen
        mask = self._cached_mask(block, None, query.dtype, query.device)
        scale = width**-0.5 if scaling is None else scaling
        attended = query.new_empty((heads, rows, values.shape[-1]))
        step = rounded(-(-rows // -(-rows // _QUERY_BLOCK)))
        for start in range(0, rows, step):
            stop = min(rows, start + step)
            end = min(block.keys, rounded(max(1, block.visible - block.own - block.before + stop)))
            own = slice(max(0, block.before - start), min(stop, block.before + block.own) - start)
            if own.start >= own.stop:
                continue  # only padding
            products = attend_by_products(
                query[:, start:stop], keys[:, :end], values[:, :end], mask[start:stop, :end], scale, own
            )
            if products is None:
                return super()._attend_segment(query, seen, block, scaling, window)
            attended[:, start:stop] = products
        return attended


def attend_by_products(
    query: Tensor, keys: Tensor, values: Tensor, mask: Tensor, scale: float, own: slice
) -> Tensor | None:
    """Attention by two matrix products, in bfloat16.

    Query heads with the same key head are folded into rows. A product rounds its scores to bfloat16, which PyTorch's
    kernel does not. What matters are the largest ones of a query: they are rounded after the greatest score of a sample
    of the keys is subtracted, so that they are close to 0, where bfloat16 is fine.

    Args:
        query: shape (heads, queries, head_dim).
        keys: shape (key-value heads, keys, head_dim).
        values: the same.
        mask: to add to the scores, shape (queries, keys) or (1, keys).
        scale: factor of the scores.
        own: the queries whose output is needed.

    Returns:
        Shape (heads, queries, head_dim). None if the largest scores of one of these queries are not close to 0: a key
        outside the sample has a much greater one, or all are in the thousands.
    """
    heads, count, width = query.shape
    folded = query.reshape(len(keys), -1, width)
    sampled = torch.bmm(folded, keys[:, ::_SAMPLED].transpose(1, 2))
    sampled = sampled.view(len(keys), -1, count, sampled.shape[-1])
    greatest = torch.add(mask[:, ::_SAMPLED], sampled, alpha=scale).float().amax(-1, keepdim=True)  # float is faster
    scores = torch.sub(mask, greatest.sub_(greatest.abs(), alpha=_MARGIN).to(mask.dtype))
    flat = scores.flatten(1, 2)
    torch.baddbmm(flat, folded, keys.transpose(1, 2), alpha=scale, out=flat)
    if int(scores[:, :, own].view(torch.int16).amax()) > _MOST_ABOVE:  # positive numbers sort as their bits do
        return None
    return torch.bmm(flat.softmax(-1), values).view(heads, count, -1)


def rounded(count: int) -> int:
    """The next multiple of 32."""
    return -(-count // LENGTH_MULTIPLE) * LENGTH_MULTIPLE


def _block(span: QuerySpan, token_count: int) -> Block:
    own, visible = span.stop - span.start, path_length(span.path)
    queries = own if own == 1 or rounded(own) > token_count else rounded(own)
    before = max(0, span.start + queries - token_count)  # padding that does not fit after the last token comes first
    return Block(queries, before, own, visible, rounded(visible))


def _parts(path: KeyPath, sources: KeySources, padding: int = 0) -> list[KeyValue]:
    """The keys and values of each span of a path, then zeros for `padding` tokens."""
    parts = [sources[source].part(start, stop) for source, start, stop in path]
    if padding:
        parts.append(KeyValue(*(tensor.new_zeros((padding, *tensor.shape[1:])) for tensor in parts[0])))
    return parts


def _joined(parts: list[KeyValue]) -> KeyValue:
    return KeyValue(*map(torch.cat, zip(*parts, strict=True)))


def _heads_first(tensors: tuple[Tensor, ...]) -> Tensor:
    """Tensors of shape (tokens, heads, head_dim), joined, as one of shape (heads, tokens, head_dim)."""
    first, *others = (tensor.transpose(0, 1) for tensor in tensors)
    return torch.cat([first, *others], dim=1) if others else first


def _new_mask(block: Block, window: int | None, dtype: torch.dtype, device: torch.device) -> Tensor:
    queries = torch.arange(block.queries, device=device) + (block.visible - block.own - block.before)
    last = queries.clamp(0, block.visible - 1)[:, None]  # padding attends to a key, too: a row without keys gives NaN
    keys = torch.arange(block.keys, device=device)
    is_seen = keys <= last if window is None else (keys <= last) & (keys > last - window)
    return torch.zeros(is_seen.shape, dtype=dtype, device=device).masked_fill_(~is_seen, float("-inf"))
