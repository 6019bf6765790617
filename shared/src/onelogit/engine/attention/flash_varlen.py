"""Queries of a batch and the keys before them -> attention in one call of variable-length FlashAttention, on CUDA."""

import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache, partial
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor

from onelogit.engine.device_transfer import places, sent, tensor_on
from onelogit.engine.keys import KeyValue, Seen, length_of, queries
from onelogit.engine.prefix_tree import CARRIED, KEPT, OWN, Batch, Path, Span

logger = logging.getLogger(__name__)

_WIDEST_FLASH_HEAD, _FLASH_HEAD_STEP = 256, 8
_FLASH_CAPABILITY = (8, 0)  # Ampere; https://github.com/Dao-AILab/flash-attention#nvidia-cuda-support


def has_flash_varlen(query: Tensor) -> bool:
    """Whether this PyTorch has the call, and this device, dtype and width of a head can take it."""
    width = query.shape[-1]
    if not query.is_cuda or query.dtype not in (torch.bfloat16, torch.float16):
        return False
    if width > _WIDEST_FLASH_HEAD or width % _FLASH_HEAD_STEP:
        return False
    return _varlen_attention() is not None and torch.cuda.get_device_capability(query.device) >= _FLASH_CAPABILITY


class FlashVarlenAttention:
    """One pass of a batch through the layers, one call for all segments in each.

    Args:
        batch: what is read.
        leaving: the path of what is copied out of it.
    """

    def __init__(self, batch: Batch, leaving: Path) -> None:
        self._batch = batch
        self._leaving = leaving
        self._sequences: dict[tuple[bool, torch.device], _Sequences] = {}
        self._copied: dict[torch.device, _Gathering] = {}

    def attend(self, query: Tensor, seen: Seen, scaling: float | None, window: int | None, *, of_ends: bool) -> Tensor:
        """As `AttentionContext.attend`, of the batch's tokens or of the rows' last ones; zeros for all others."""
        sequences = self._sequences_of(seen, query.device, of_ends=of_ends)
        rows = query.transpose(0, 1)
        is_whole = not of_ends and len(rows) == len(self._batch.ids)
        keys, values = _gather(sequences.keys, seen)
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
        )
        if is_whole:
            return attended
        return rows.new_zeros((*rows.shape[:2], values.shape[-1])).index_copy_(0, sequences.query_places, attended)

    def copy(self, seen: Seen) -> KeyValue:
        """What leaves the batch, in memory of its own."""
        device = seen.own.keys.device
        if device not in self._copied:
            self._copied[device] = _made_gathering(self._leaving, seen, device)
        return _gather(self._copied[device], seen)

    def _sequences_of(self, seen: Seen, device: torch.device, *, of_ends: bool) -> "_Sequences":
        if (of_ends, device) not in self._sequences:
            self._sequences[of_ends, device] = _made_sequences(self._batch, seen, device, of_ends=of_ends)
        return self._sequences[of_ends, device]


class _Gathering(NamedTuple):
    """Where the keys of a path stand, so that each is read and written once.

    Attributes:
        passing: of those in the batch and in what was carried to it, their places there, end to end.
        kept: of all keys of the path, their places in what is kept; 0 for those that pass. None where none is kept.
        targets: of the passing ones, their places on the path.
    """

    passing: Tensor
    kept: Tensor | None
    targets: Tensor


class _Sequences(NamedTuple):
    """The segments as sequences of variable length, end to end.

    Attributes:
        query_places: in the batch, of all queries.
        keys: of one sequence after the other.
        query_starts, key_starts: where each sequence begins, and at last the end; int32.
    """

    query_places: Tensor
    keys: _Gathering
    query_starts: Tensor
    key_starts: Tensor
    most_queries: int
    most_keys: int


def _made_sequences(batch: Batch, seen: Seen, device: torch.device, *, of_ends: bool) -> _Sequences:
    asked = list(queries(batch, of_ends=of_ends))
    query_counts = [query.stop - query.start for query in asked]
    key_counts = [length_of(query.path) for query in asked]
    return _Sequences(
        sent(places([(query.start, query.stop) for query in asked]), device),
        _made_gathering([span for query in asked for span in query.path], seen, device),
        tensor_on(device, list(accumulate(query_counts, initial=0)), torch.int32),
        tensor_on(device, list(accumulate(key_counts, initial=0)), torch.int32),
        max(query_counts, default=0),
        max(key_counts, default=0),
    )


def _made_gathering(path: Sequence[Span], seen: Seen, device: torch.device) -> _Gathering:
    offsets = {OWN: 0, CARRIED: len(seen.own.keys), KEPT: 0}
    found = places([(offsets[block] + start, offsets[block] + stop) for block, start, stop in path])
    if all(span.block != KEPT for span in path):
        return _Gathering(sent(found, device), None, torch.empty(0))
    lengths = torch.tensor([span.stop - span.start for span in path])
    is_kept = torch.tensor([span.block == KEPT for span in path]).repeat_interleave(lengths)
    targets = (~is_kept).nonzero().squeeze(1)
    return _Gathering(sent(found[targets], device), sent(found * is_kept, device), sent(targets, device))


def _gather(gathering: _Gathering, seen: Seen) -> KeyValue:
    passing = seen.own
    if len(seen.carried.keys):
        passing = KeyValue(*(torch.cat(pair) for pair in zip(seen.own, seen.carried, strict=True)))
    gathered = KeyValue(*(tensor[gathering.passing] for tensor in passing))
    if gathering.kept is None:
        return gathered
    whole = (tensor[gathering.kept] for tensor in seen.kept)
    return KeyValue(*(each.index_copy_(0, gathering.targets, own) for each, own in zip(whole, gathered, strict=True)))


@cache
def _varlen_attention() -> Callable[..., Any] | None:
    """PyTorch's own, from 2.11 on: before, it takes neither a scale nor a window."""
    options: Mapping[str, object] = {}
    with suppress(ImportError):
        from torch.nn.attention.varlen import varlen_attn  # noqa: PLC0415  younger than the oldest PyTorch allowed

        options = inspect.signature(varlen_attn).parameters
    if not {"scale", "window_size"} <= options.keys():
        logger.warning("PyTorch %s attends to one document after the other; 2.11 or newer is faster", torch.__version__)
        return None
    # 2.11 takes fewer heads of keys than of queries without being told.
    return partial(varlen_attn, enable_gqa=True) if "enable_gqa" in options else varlen_attn
