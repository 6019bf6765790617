"""Rows -> batches of their prefix tree, and one batch -> its hidden states or logits, in one pass through a model."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear
from transformers import PreTrainedModel

from onelogit.conversion.head import Float32Head
from onelogit.engine.attention.backend import LayerKeyValues
from onelogit.engine.attention.context import AttentionContext, padded_length, use_context
from onelogit.engine.attention.recurrent import StateContext
from onelogit.engine.device_transfer import tensor_on
from onelogit.engine.memory import is_out_of_memory, release_cached
from onelogit.engine.prefix_cache import PrefixCache
from onelogit.engine.prefix_tree import Batch, CachedPrefix, Cursor, Ids, next_batch
from onelogit.engine.state_cache import StateCache
from onelogit.prompts.token_rows import TokenRow

logger = logging.getLogger(__name__)


def has_own_head(classifier: PreTrainedModel) -> bool:
    """Whether the classifier's own forward gives the logit; False for decoders from `sequence_classifier`."""
    return not isinstance(getattr(classifier, "score", None), Float32Head)


class TreeProgress:
    """How far some rows are computed in their prefix tree, and what the next batch needs.

    Args:
        classifier: shares prefixes.
        rows: distinct, sorted, none empty.
        cacheable_lengths: for each row, the lengths of its cacheable prefixes, in tokens.
        cache: keys and values kept between calls; None for none.
    """

    def __init__(
        self,
        classifier: PreTrainedModel,
        rows: Sequence[Ids],
        cacheable_lengths: Sequence[Sequence[int]] | None = None,
        cache: PrefixCache | StateCache | None = None,
    ) -> None:
        self._classifier, self._rows, self._cache = classifier, rows, cache
        self._cacheable_lengths = None if cache is None else cacheable_lengths
        self._cursor = Cursor()
        self._carried = LayerKeyValues()

    @property
    def is_done(self) -> bool:
        """Whether all rows are computed."""
        return self._cursor.row == len(self._rows)

    def next_context(self, batch_tokens: int) -> AttentionContext:
        """The next batch and what it needs; again, if it failed or was not computed."""
        if self._cache is None:
            return self._new_context(batch_tokens, None)
        self._cache.unpin()  # prefixes of a batch that failed, or was in flight at a fork
        try:
            return self._new_context(batch_tokens, self._cache)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        # Outside the except block, where what was read is freed.
        self._cache.unpin()
        release_cached(self._classifier.device)
        logger.warning("out of memory: cached documents or queries of one batch are computed again")
        return self._new_context(batch_tokens, None)

    def advance(self, context: AttentionContext) -> None:
        """Begin the next batch after one that is computed, and cache the latter's cacheable prefixes."""
        self._cursor, self._carried = context.batch.after, context.carry
        if self._cache is None:
            return
        self._cache.unpin()
        prefixes = [self._rows[prefix.row][: prefix.length] for prefix in context.batch.cacheable_prefixes]
        if not prefixes:
            return
        try:
            self._insert(prefixes, context)
        except (RuntimeError, MemoryError) as error:  # they are computed again when needed
            if not is_out_of_memory(error):
                raise
            logger.warning("out of memory: %d documents or queries are not cached", len(prefixes))

    def _new_context(self, batch_tokens: int, cache: PrefixCache | StateCache | None) -> AttentionContext:
        """The next batch, with prefixes from a cache if one is given."""
        batch = self._next_batch(batch_tokens, cache)
        return self._context_of(batch, batch_tokens, cache)

    def _next_batch(
        self, batch_tokens: int, cache: PrefixCache | StateCache | None, carried: Sequence[int] | None = None
    ) -> Batch:
        lengths = self._cacheable_lengths

        def find_cached(row: int) -> CachedPrefix | None:
            return None if cache is None or lengths is None else cache.find(self._rows[row], lengths[row])

        find = None if cache is None else find_cached
        return next_batch(self._rows, self._cursor, batch_tokens, lengths, find, carried)

    def _context_of(
        self,
        batch: Batch,
        most_tokens: int,
        cache: PrefixCache | StateCache | None,
        states: StateContext | None = None,
    ) -> AttentionContext:
        """The context of a batch, padded if that is at most `most_tokens`."""
        padded = padded_length(len(batch.ids), self._classifier.device)
        layer_count = int(getattr(self._classifier.config.get_text_config(), "num_hidden_layers", 0))
        length = padded if padded <= most_tokens else len(batch.ids)
        cached = [] if cache is None else cache.layers
        return AttentionContext(batch, layer_count, self._carried, cached, length, states)

    def _insert(self, prefixes: Sequence[Ids], context: AttentionContext) -> None:
        if isinstance(self._cache, PrefixCache):
            self._cache.insert(prefixes, context.cacheable_key_values)


@contextmanager
def evaluation_mode(model: PreTrainedModel) -> Iterator[None]:
    """No dropout inside the block, also while other code trains the model; afterwards each module is as before."""
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


@torch.inference_mode()
def own_head_logits(classifier: PreTrainedModel, rows: Sequence[TokenRow]) -> Tensor:
    """The logit of each row, by a classifier with its own head; float32, shape (rows,)."""
    device = classifier.device
    inputs = {
        "input_ids": _padded([row.ids for row in rows], classifier.config.pad_token_id or 0, device),
        "attention_mask": _padded([[1] * len(row.ids) for row in rows], 0, device),
    }
    if any(row.types for row in rows):
        inputs["token_type_ids"] = _padded([row.types or [0] * len(row.ids) for row in rows], 0, device)
    logits: Tensor = classifier(**inputs).logits
    return logits[:, 0].float()


@torch.inference_mode()
def prefix_tree_hidden(classifier: PreTrainedModel, context: AttentionContext) -> Tensor:
    """The last hidden state of each row that ends in the batch, shape (rows, hidden)."""
    batch, device = context.batch, classifier.device
    padding = [0] * (context.padded_length - len(batch.ids))
    with use_context(context):
        hidden: Tensor = classifier.base_model(
            input_ids=tensor_on(device, batch.ids + padding)[None],
            position_ids=tensor_on(device, batch.positions + padding)[None],
            attention_mask=torch.zeros((1, 1, 1, 1), device=device),  # transformers keeps a mask of four dimensions
            use_cache=False,
        ).last_hidden_state
    return hidden[0, context.ends(hidden.device)]


@torch.inference_mode()
def padded_hidden(classifier: PreTrainedModel, rows: Sequence[TokenRow], *, is_causal: bool = True) -> Tensor:
    """The last hidden state of each row, shape (rows, hidden)."""
    hidden = padded_hidden_of_all(classifier, [row.ids for row in rows], is_causal=is_causal)
    last = tensor_on(hidden.device, [len(row.ids) - 1 for row in rows])
    return hidden[torch.arange(len(rows), device=hidden.device), last]


@torch.inference_mode()
def padded_hidden_of_all(
    classifier: PreTrainedModel, rows: Sequence[Sequence[int]], *, is_causal: bool = True
) -> Tensor:
    """The hidden states of all tokens, shape (rows, longest, hidden).

    Padding at the right needs no mask if the model is causal: its tokens do not attend to it.
    """
    masks = {} if is_causal else {"attention_mask": _padded([[1] * len(row) for row in rows], 0, classifier.device)}
    hidden: Tensor = classifier.base_model(
        input_ids=_padded(rows, 0, classifier.device), use_cache=False, **masks
    ).last_hidden_state
    return hidden


@torch.inference_mode()
def converted_head_logits(classifier: PreTrainedModel, hidden: Tensor) -> Tensor:
    """The logits of last hidden states, shape (rows, hidden); float32, shape (rows,)."""
    head: Any = classifier.score
    return linear(hidden.float(), head.weight, head.bias)[:, 0]  # as `Float32Head.forward`


def _padded(rows: Sequence[Sequence[int]], padding: int, device: torch.device) -> Tensor:
    """The rows, padded at the right; shape (rows, longest)."""
    length = max(map(len, rows))
    padded = [id for row in rows for id in (*row, *[padding] * (length - len(row)))]
    return tensor_on(device, padded).view(len(rows), length)
