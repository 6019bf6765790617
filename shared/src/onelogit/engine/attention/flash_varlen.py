"""Queries of a batch and the keys before them -> attention, in one call of variable-length FlashAttention, on CUDA."""

import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache, partial
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor

from onelogit.engine.attention.backend import KeySources, KeyValue, path_length, query_spans
from onelogit.engine.device_transfer import indices_of, tensor_on, to_device
from onelogit.engine.prefix_tree import CACHED, CARRIED, OWN, Batch, KeyPath, KeySpan

logger = logging.getLogger(__name__)

_MAX_HEAD_DIM, _HEAD_DIM_MULTIPLE = 256, 8
_MIN_CAPABILITY = (8, 0)  # Ampere; https://github.com/Dao-AILab/flash-attention#nvidia-cuda-support


class FlashVarlenAttention:
    """One call for all segments in each layer; see `AttentionBackend`."""

    def __init__(self, batch: Batch, outgoing: KeyPath) -> None:
        self._batch = batch
        self._sequences = cache(partial(_new_sequences, batch))
        self._outgoing_indices = cache(partial(_new_indices, outgoing))

    @staticmethod
    def supports(query: Tensor) -> bool:
        """Whether this PyTorch has the function, and it supports this device, dtype and head_dim."""
        head_dim = query.shape[-1]
        if not query.is_cuda or query.dtype not in (torch.bfloat16, torch.float16):
            return False
        if head_dim > _MAX_HEAD_DIM or head_dim % _HEAD_DIM_MULTIPLE:
            return False
        return _varlen_attention() is not None and torch.cuda.get_device_capability(query.device) >= _MIN_CAPABILITY

    @staticmethod
    def padded_length(token_count: int, device: torch.device) -> int:  # noqa: ARG004
        return token_count

    def attend(
        self, query: Tensor, sources: KeySources, scaling: float | None, window: int | None, *, ends_only: bool
    ) -> Tensor:
        sequences = self._sequences(len(sources.own.keys), query.device, ends_only=ends_only)
        tokens = query.transpose(0, 1)
        is_whole = not ends_only and len(tokens) == len(self._batch.ids)
        keys, values = _gather(sequences.keys, sources)
        varlen_attention: Any = _varlen_attention()
        attended: Tensor = varlen_attention(
            tokens if is_whole else tokens[sequences.query_indices],
            keys,
            values,
            sequences.query_starts,
            sequences.key_starts,
            sequences.max_queries,
            sequences.max_keys,
            scale=scaling,
            window_size=(-1 if window is None else window - 1, 0),
        )
        if is_whole:
            return attended
        return tokens.new_zeros((*tokens.shape[:2], values.shape[-1])).index_copy_(0, sequences.query_indices, attended)

    def copy_outgoing(self, sources: KeySources) -> KeyValue:
        return _gather(self._outgoing_indices(len(sources.own.keys), sources.own.keys.device), sources)


def attend_to_whole_rows(
    query: Tensor, key: Tensor, value: Tensor, lengths: Sequence[int], scaling: float, reach: int | None
) -> Tensor:
    """Attention of each row over itself alone, to both sides; all rows in one call.

    Args:
        query: shape (heads, tokens, head_dim): the rows one after the other. `FlashVarlenAttention` must support it.
        key: shape (key-value heads, tokens, head_dim).
        value: the same.
        lengths: of the rows, in tokens; all tokens together.
        scaling: factor of the scores.
        reach: the greatest distance to a token that is attended to; None for the whole row.

    Returns:
        Shape (tokens, heads, head_dim).
    """
    starts, longest = tensor_on(query.device, list(accumulate(lengths, initial=0)), torch.int32), max(lengths)
    tokens = (each.transpose(0, 1) for each in (query, key, value))
    window = (-1, -1) if reach is None else (reach, reach)
    varlen_attention: Any = _varlen_attention()
    attended: Tensor = varlen_attention(*tokens, starts, starts, longest, longest, scale=scaling, window_size=window)
    return attended


class _GatherIndices(NamedTuple):
    """Indices that gather the keys of a path, with one read and one write per key.

    Attributes:
        own_or_carried: indices of the path's own and carried keys, in the concatenation of these two sources.
        cached: for each key of the path, its index in the prefix cache, or 0 if it has none; None if all have none.
        targets: indices of the own and carried keys on the path.
    """

    own_or_carried: Tensor
    cached: Tensor | None
    targets: Tensor


class _Sequences(NamedTuple):
    """The segments as sequences of variable length, one after the other.

    Attributes:
        query_indices: of all queries in the batch.
        keys: indices of the keys of all sequences.
        query_starts, key_starts: the start of each sequence, then the end of the last one; int32.
    """

    query_indices: Tensor
    keys: _GatherIndices
    query_starts: Tensor
    key_starts: Tensor
    max_queries: int
    max_keys: int


def _new_sequences(batch: Batch, own_count: int, device: torch.device, *, ends_only: bool) -> _Sequences:
    spans = list(query_spans(batch, ends_only=ends_only))
    query_counts = [span.stop - span.start for span in spans]
    key_counts = [path_length(span.path) for span in spans]
    return _Sequences(
        to_device(indices_of([(span.start, span.stop) for span in spans]), device),
        _new_indices([key_span for span in spans for key_span in span.path], own_count, device),
        tensor_on(device, list(accumulate(query_counts, initial=0)), torch.int32),
        tensor_on(device, list(accumulate(key_counts, initial=0)), torch.int32),
        max(query_counts, default=0),
        max(key_counts, default=0),
    )


def _new_indices(path: Sequence[KeySpan], own_count: int, device: torch.device) -> _GatherIndices:
    offsets = {OWN: 0, CARRIED: own_count, CACHED: 0}
    indices = indices_of([(offsets[source] + start, offsets[source] + stop) for source, start, stop in path])
    if all(span.source != CACHED for span in path):
        return _GatherIndices(to_device(indices, device), None, torch.empty(0))
    lengths = torch.tensor([span.stop - span.start for span in path])
    is_cached = torch.tensor([span.source == CACHED for span in path]).repeat_interleave(lengths)
    targets = (~is_cached).nonzero().squeeze(1)
    return _GatherIndices(*(to_device(tensor, device) for tensor in (indices[targets], indices * is_cached, targets)))


def _gather(indices: _GatherIndices, sources: KeySources) -> KeyValue:
    """The keys and values of a path: all are read from the cache, then the own and carried ones are overwritten."""
    own_or_carried = sources.own
    if len(sources.carried.keys):
        own_or_carried = KeyValue(*(torch.cat(pair) for pair in zip(sources.own, sources.carried, strict=True)))
    gathered = KeyValue(*(tensor[indices.own_or_carried] for tensor in own_or_carried))
    if indices.cached is None:
        return gathered
    whole = (tensor[indices.cached] for tensor in sources.cached)
    return KeyValue(*(each.index_copy_(0, indices.targets, new) for each, new in zip(whole, gathered, strict=True)))


@cache
def _varlen_attention() -> Callable[..., Any] | None:
    """PyTorch's function; None before PyTorch 2.11, because it then has neither a scale nor a window."""
    options: Mapping[str, object] = {}
    with suppress(ImportError):
        from torch.nn.attention.varlen import varlen_attn  # noqa: PLC0415  newer than the oldest PyTorch allowed

        options = inspect.signature(varlen_attn).parameters
    if not {"scale", "window_size"} <= options.keys():
        logger.warning("PyTorch %s computes one document at a time; 2.11 or newer is faster", torch.__version__)
        return None
    # 2.11 has no `enable_gqa`, because it detects fewer key heads than query heads by itself.
    return partial(varlen_attn, enable_gqa=True) if "enable_gqa" in options else varlen_attn
