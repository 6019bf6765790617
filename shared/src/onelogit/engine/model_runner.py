"""Rows of token ids -> logits, batch by batch, on the model's device. Not thread-safe.

Decoders that can attend over a prefix tree compute each shared prefix once, without padding. Encoders and bidirectional
decoders compute rows without padding in their layers if that gives the same results; all others use padded rows.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TypeVar

from torch import Tensor
from transformers import PreTrainedModel

from onelogit.engine.attention.context import AttentionContext, attends_over_prefix_tree
from onelogit.engine.attention.packed_rows import attends_over_packed_rows
from onelogit.engine.attention.visibility import rotates_by_length
from onelogit.engine.device_transfer import PendingLogits
from onelogit.engine.directions import find_is_causal
from onelogit.engine.forward import (
    TreeProgress,
    converted_head_logits,
    evaluation_mode,
    has_own_head,
    own_head_logits,
    padded_hidden,
    prefix_tree_hidden,
)
from onelogit.engine.fused_ops import fuse
from onelogit.engine.memory import default_batch_tokens, is_out_of_memory, release_cached
from onelogit.engine.optimize import prepare
from onelogit.engine.packed import Compute, enable_packing, row_count
from onelogit.engine.padding import reads_padding
from onelogit.engine.prefix_cache import PrefixCache
from onelogit.engine.state_cache import StateCache
from onelogit.engine.state_progress import new_prefix_cache, progress_kind
from onelogit.errors import DeviceMemoryError, InputError, first_line
from onelogit.prompts.token_rows import TokenRow

logger = logging.getLogger(__name__)

T = TypeVar("T")


class ModelRunner:
    """Computes the logits of a classifier, as fast as its architecture and device allow.

    Args:
        classifier: from `sequence_classifier`, or with its own head.
        batch_tokens: maximum number of tokens in one forward pass; None for `default_batch_tokens`.
        document_cache_bytes: for keys and values kept between calls, if prefixes are shared; 0 for none.
        document_cache_host_bytes: for keys and values evicted from there, in the CPU's memory.
        is_compiled: compile the layers, if prefixes are shared.

    Attributes:
        prefix_cache: keys and values kept between calls; None if prefixes are not shared or the size is 0.
        batch_tokens: halved each time a batch does not fit into the memory.
        shares_prefixes: whether shared prefixes are computed once.

    Raises:
        UnsupportedModelError: a row's logit would depend on the other rows of its batch.
        InputError: a cache is too small for one token, or exceeds the free memory.
        OnelogitError: the layers cannot be compiled on this machine.
    """

    def __init__(
        self,
        classifier: PreTrainedModel,
        batch_tokens: int | None = None,
        document_cache_bytes: int = 0,
        document_cache_host_bytes: int = 0,
        *,
        is_compiled: bool = False,
    ) -> None:
        self.classifier = classifier
        self._has_own_head = has_own_head(classifier)
        if self._has_own_head and is_compiled:
            logger.warning("%s has its own head, so it is not compiled", type(classifier).__name__)
        self._cache_bytes = document_cache_bytes, document_cache_host_bytes
        self._cached_as = classifier.dtype, classifier.device
        with evaluation_mode(classifier):
            self._prepare(is_compiled=is_compiled)
            self.prefix_cache = self._new_cache(*self._cache_bytes)
        # Last, because it depends on the memory that is still free.
        self.batch_tokens = default_batch_tokens(classifier) if batch_tokens is None else batch_tokens
        self._first_batch_tokens = self.batch_tokens

    def logits(self, rows: Sequence[TokenRow]) -> list[float]:
        """The logit of each row, in the order of the rows. Raises as `compute`."""
        logits = dict(logit for pending in self.compute(rows) for logit in pending.logits())
        return [logits[index] for index in range(len(rows))]

    def compute(self, rows: Sequence[TokenRow]) -> Iterator[PendingLogits]:
        """The logit of each row, from the converted head at its last token or from the classifier's own head.

        Identical rows are computed once. A batch that does not fit in memory is computed again in smaller batches;
        if a single row does not fit, DeviceMemoryError is raised.

        Yields:
            The float32 logits of some rows, once their batch is launched on the device; each row once, in any order.
        """
        indices_by_row: dict[tuple[tuple[int, ...], tuple[int, ...]], list[int]] = {}
        for index, row in enumerate(rows):
            indices_by_row.setdefault((row.ids, row.types if self._has_own_head else ()), []).append(index)
        indices = [indices for _, indices in sorted(indices_by_row.items())]
        distinct = [rows[first] for first, *_ in indices]
        if self.shares_prefixes and attends_over_prefix_tree(self.classifier):
            return self._compute_prefix_tree(distinct, indices)
        return self._compute_padded(distinct, indices)

    @property
    def packs_rows(self) -> bool:
        """Whether the layers compute rows without padding."""
        return self._packing is not None and attends_over_packed_rows(self.classifier)

    def _prepare(self, *, is_compiled: bool) -> None:
        """Make the classifier as fast as its layers allow, judged by trials."""
        classifier = self.classifier
        self._is_causal = find_is_causal(classifier)
        if self._has_own_head:
            fuse(classifier)
        self.shares_prefixes = not self._has_own_head and prepare(
            classifier, is_causal=self._is_causal, is_compiled=is_compiled
        )
        self._progress_kind = progress_kind(classifier)
        self._compute_rows = (
            own_head_logits if self._has_own_head else partial(padded_hidden, is_causal=self._is_causal)
        )
        # A row's logit would depend on the other rows if the rotary embedding depends on a batch's longest row, or if
        # layers read padding.
        self._is_one_by_one = rotates_by_length(classifier) or (self._has_own_head and reads_padding(classifier))
        may_pack = (self._has_own_head or not self._is_causal) and not self._is_one_by_one
        self._packing = enable_packing(classifier, self._compute_rows) if may_pack else None

    def _new_cache(self, max_bytes: int, max_host_bytes: int) -> PrefixCache | StateCache | None:
        if not max_bytes:
            return None
        if not self.shares_prefixes:
            logger.warning("%s computes padded rows, so documents are not cached", type(self.classifier).__name__)
            return None
        try:
            return new_prefix_cache(self.classifier, max_bytes, max_host_bytes)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        options = f"document_cache_bytes={max_bytes} and document_cache_host_bytes={max_host_bytes}"
        device = self.classifier.device
        raise InputError(f"{options} exceed the free memory of {device} and its host; lower them")

    def _renew_cache(self) -> None:
        """Empty the prefix cache if other code has cast or moved the model since."""
        now = self.classifier.dtype, self.classifier.device
        if self.prefix_cache is not None and now != self._cached_as:
            self.prefix_cache = None  # first, so that its memory is free
            self.prefix_cache, self._cached_as = self._new_cache(*self._cache_bytes), now

    def _compute_prefix_tree(self, rows: Sequence[TokenRow], indices: Sequence[list[int]]) -> Iterator[PendingLogits]:
        self._renew_cache()
        ids, lengths = [row.ids for row in rows], [row.cacheable_lengths for row in rows]
        progress = self._progress_kind(self.classifier, ids, lengths, self.prefix_cache)
        while not progress.is_done:
            computed = self._attempt(partial(self._tree_batch, progress, indices), self.batch_tokens)
            if computed is not None:
                context, pending = computed
                progress.advance(context)
                yield pending

    def _tree_batch(
        self, progress: TreeProgress, indices: Sequence[list[int]]
    ) -> tuple[AttentionContext, PendingLogits]:
        context = progress.next_context(self.batch_tokens)
        logits = self._head_logits(prefix_tree_hidden, context)
        return context, PendingLogits([indices[row] for row in context.batch.ends.values()], logits, self._empty_cache)

    def _empty_cache(self) -> None:
        """Forget all prefixes after a logit that is not finite: NaN reaches the tokens before it, though masked."""
        if self.prefix_cache is not None:
            self.prefix_cache.clear()

    def _compute_padded(self, rows: Sequence[TokenRow], indices: Sequence[list[int]]) -> Iterator[PendingLogits]:
        is_packed = self.packs_rows
        compute = self._packing if self._packing is not None and is_packed else self._compute_rows
        order = sorted(range(len(rows)), key=lambda row: -len(rows[row].ids))  # the largest batch first
        while order:
            lengths = [len(rows[row].ids) for row in order]
            count = 1 if self._is_one_by_one else row_count(lengths, self.batch_tokens, is_packed=is_packed)
            batch = order[:count]
            token_count = sum(lengths[:count]) if is_packed else lengths[0] * count
            work = partial(self._rows_batch, compute, rows, batch, indices)
            pending = self._attempt(work, token_count if count > 1 else 1)
            if pending is not None:
                order = order[count:]
                yield pending

    def _rows_batch(
        self, compute: Compute, rows: Sequence[TokenRow], batch: Sequence[int], indices: Sequence[list[int]]
    ) -> PendingLogits:
        logits = self._head_logits(compute, [rows[row] for row in batch])
        return PendingLogits([indices[row] for row in batch], logits)

    def _head_logits(self, compute: Callable[[PreTrainedModel, T], Tensor], batch: T) -> Tensor:
        """The logits of a batch: `compute` returns them if the classifier has its own head, else last hidden states."""
        with evaluation_mode(self.classifier):
            computed = compute(self.classifier, batch)
            return computed if self._has_own_head else converted_head_logits(self.classifier, computed)

    def _attempt(self, work: Callable[[], T], token_count: int) -> T | None:
        """What some work for a batch returns; if it does not fit in memory, halves `batch_tokens` and returns None.

        The smallest batch is tried twice, because other programs also take memory and give it back.
        """
        for _ in range(2):
            try:
                return work()
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                reason = first_line(error) or type(error).__name__
            release_cached(self.classifier.device)  # outside the except block, where the failed batch is freed
            if token_count > 1:
                self.batch_tokens = max(1, self.batch_tokens // 2)
                message = "out of memory with %d tokens; continuing with batch_tokens=%d"
                logger.warning(message, token_count, self.batch_tokens)
                return None
        self.batch_tokens = self._first_batch_tokens  # smaller ones did not help, and would slow later calls down
        raise DeviceMemoryError(
            f"not even the smallest batch fits into the free memory of {self.classifier.device}; lower max_tokens, "
            f"free memory, or use another device or dtype ({reason})"
        )
