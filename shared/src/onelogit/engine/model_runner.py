"""Rows of token ids -> logits, batch by batch, on the model's device. Not for several threads at once.

Decoders whose attention can take it read a forest: every shared prefix once, no padding. All others read padded rows.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeVar

from torch import Tensor
from transformers import PreTrainedModel

from onelogit.engine.attention.context import AttentionContext
from onelogit.engine.attention.hooks import attends_over_prefix_tree, rotates_by_length
from onelogit.engine.device_transfer import Coming
from onelogit.engine.forward import (
    classify,
    context_for,
    has_own_head,
    read_out,
    read_padded,
    read_token,
    run_prefix_tree,
)
from onelogit.engine.keys import LayerKeyValues
from onelogit.engine.memory import default_batch_tokens, is_out_of_memory, release_cached
from onelogit.engine.optimize import prepare
from onelogit.engine.prefix_cache import PrefixCache
from onelogit.engine.prefix_tree import Cursor, next_batch
from onelogit.errors import InputError
from onelogit.prompts.token_rows import TokenRow
from onelogit.ranking import Computed, Launched

logger = logging.getLogger(__name__)

T = TypeVar("T")


class _Batch(NamedTuple):
    """The places of some rows, with their logits as they leave the device."""

    indices: list[int]
    logits: Coming


class _Copied(NamedTuple):
    """The places of rows that are alike, a list for each logit that leaves the device."""

    copies: list[list[int]]
    logits: Coming

    def is_computed(self) -> bool:
        return self.logits.are_there()

    def computed(self) -> Computed:
        return Computed(
            [index for indices in self.copies for index in indices],
            [logit for indices, logit in zip(self.copies, self.logits.numbers(), strict=True) for _ in indices],
        )


class ModelRunner:
    """A classifier, and what makes it compute.

    Args:
        classifier: of `sequence_classifier`, or one complete with its own head.
        batch_tokens: most tokens in one forward pass; None for what the free memory allows.
        document_cache_bytes: for keys and values kept between calls, where it reads forests; 0 for none.
        document_cache_host_bytes: the same, in the CPU's memory.
        is_compiled: have its layers compiled, where it reads forests.

    Attributes:
        classifier: the same.
        batch_tokens: halved each time the memory does not hold a batch.
        reads_forests: whether shared prefixes are computed once.
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
            logger.warning("%s has a head of its own: it is not compiled", type(classifier).__name__)
        self.shares_prefixes = not self._has_own_head and prepare(classifier, is_compiled=is_compiled)
        self.document_cache = self._cache(document_cache_bytes, document_cache_host_bytes)
        # Last, of the memory that is left.
        self.batch_tokens = default_batch_tokens(classifier) if batch_tokens is None else batch_tokens

    def logits(self, rows: Sequence[TokenRow]) -> list[float]:
        """The logit of each row, in the order of the rows."""
        logits = [0.0] * len(rows)
        for batch in self.compute(rows):
            for index, logit in zip(*batch.computed(), strict=True):
                logits[index] = logit
        return logits

    def compute(self, rows: Sequence[TokenRow]) -> Iterator[Launched]:
        """The logit of each row: at its last token where the head is ours, else what the classifier itself gives.

        Identical rows are computed once. A batch that the memory does not hold is computed again as smaller ones.

        Yields:
            Batch by batch, once the device was given it, the indices of some rows with their logits, float32 values;
            each row once, in no order.
        """
        places: dict[tuple[tuple[int, ...], int], list[int]] = {}
        for index, row in enumerate(rows):
            places.setdefault((row.ids, row.second_start if self._has_own_head else 0), []).append(index)
        copies_of = [copies for _, copies in sorted(places.items())]
        is_forest = self.shares_prefixes and attends_over_prefix_tree(self.classifier)
        compute = self._compute_prefix_tree if is_forest else self._compute_padded
        batches = compute([rows[copies[0]] for copies in copies_of])
        for batch in batches:
            yield _Copied([copies_of[place] for place in batch.indices], batch.logits)

    def _cache(self, most_bytes: int, most_host_bytes: int) -> PrefixCache | None:
        if not most_bytes:
            return None
        if not self.shares_prefixes:
            logger.warning("%s reads padded rows: no document is kept", type(self.classifier).__name__)
            return None
        try:
            return PrefixCache(read_token(self.classifier), most_bytes, most_host_bytes)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        asked = f"document_cache_bytes={most_bytes} and document_cache_host_bytes={most_host_bytes}"
        raise InputError(f"{asked}: there is not so much memory on {self.classifier.device} and its host")

    def _compute_prefix_tree(self, rows: Sequence[TokenRow]) -> Iterator[_Batch]:
        cache = self.document_cache
        ids = [row.ids for row in rows]
        cacheable_prefixes = None if cache is None else [row.cacheable_prefixes for row in rows]
        find_known = None if cache is None else lambda row: cache.find(rows[row].ids, rows[row].cacheable_prefixes)
        cursor, carried = Cursor(), LayerKeyValues()
        while cursor.row < len(rows):
            if cache is not None:
                cache.release()  # what a batch that failed, or one in flight at a fork, left in use
            batch = next_batch(ids, cursor, self.batch_tokens, cacheable_prefixes, find_known)
            kept = None if cache is None else cache.layers
            context = context_for(batch, self.classifier, self.batch_tokens, carried, kept)
            logits = self._attempt(self._run_prefix_tree, context, len(batch.ids))
            if cache is not None:
                cache.release()
            if logits is None:
                continue
            if cache is not None and batch.cacheable_prefixes:
                _keep(
                    cache,
                    [ids[prefix.row][: prefix.length] for prefix in batch.cacheable_prefixes],
                    context.cacheable_prefixes,
                )
            cursor, carried = batch.after, context.carry
            yield _Batch([end.row for end in batch.ends], Coming(logits))

    def _compute_padded(self, rows: Sequence[TokenRow]) -> Iterator[_Batch]:
        # A rotary embedding that depends on the longest row of a batch gives a row another logit beside a longer one.
        is_one_by_one = rotates_by_length(self.classifier)
        read = self._classify if self._has_own_head else self._read_padded
        order = sorted(range(len(rows)), key=lambda row: -len(rows[row].ids))  # the largest batch first
        while order:
            width = len(rows[order[0]].ids)
            batch = order[: 1 if is_one_by_one else max(1, self.batch_tokens // width)]
            logits = self._attempt(read, [rows[row] for row in batch], width * len(batch) if len(batch) > 1 else 1)
            if logits is not None:
                order = order[len(batch) :]
                yield _Batch(batch, Coming(logits))

    def _attempt(self, read: Callable[[T], Tensor], batch: T, token_count: int) -> Tensor | None:
        """The logits of a batch, or None where the memory does not hold it: then the budget is halved."""
        try:
            return read(batch)
        except (RuntimeError, MemoryError) as error:
            if token_count <= 1 or not is_out_of_memory(error):
                raise
        release_cached(self.classifier.device)  # behind the handler, where the failed batch is let go
        self.batch_tokens = max(1, self.batch_tokens // 2)
        logger.warning("out of memory over %d tokens; going on with batch_tokens=%d", token_count, self.batch_tokens)
        return None

    def _run_prefix_tree(self, context: AttentionContext) -> Tensor:
        return read_out(self.classifier, run_prefix_tree(self.classifier, context))

    def _read_padded(self, rows: Sequence[TokenRow]) -> Tensor:
        return read_out(self.classifier, read_padded(self.classifier, rows))

    def _classify(self, rows: Sequence[TokenRow]) -> Tensor:
        return classify(self.classifier, rows)


def _keep(cache: PrefixCache, prefixes: Sequence[tuple[int, ...]], block: LayerKeyValues) -> None:
    """What there is no memory to keep is computed again when it is met again."""
    try:
        cache.keep(prefixes, block)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        logger.warning("out of memory: %d documents or queries are not kept", len(prefixes))
