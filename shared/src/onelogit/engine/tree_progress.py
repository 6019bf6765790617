"""Rows of token ids -> the batches of their prefix tree, one after the other, with what each needs from the others."""

import logging
from collections.abc import Sequence
from itertools import pairwise, starmap

from transformers import PreTrainedModel

from onelogit.engine.attention.backend import LayerKeyValues
from onelogit.engine.attention.context import AttentionContext
from onelogit.engine.attention.delta_rule import has_states
from onelogit.engine.attention.recurrent import LayerStates, State, StateContext
from onelogit.engine.forward import context_for, prefix_tree_hidden
from onelogit.engine.memory import is_out_of_memory, release_cached
from onelogit.engine.prefix_cache import PrefixCache
from onelogit.engine.prefix_tree import Batch, CachedPrefix, Cursor, Ids, next_batch, shared_length
from onelogit.engine.state_cache import CachedStates, StateCache
from onelogit.engine.state_tree import carried_positions, state_plan

logger = logging.getLogger(__name__)


class TreeProgress:
    """How far some rows are computed, and what the next batch needs.

    Args:
        classifier: shares prefixes.
        rows: distinct, sorted, none empty.
        cacheable_lengths: for each row, the lengths of its cacheable prefixes, in tokens.
        cache: keys and values kept between calls; None for none.

    Attributes:
        row: all rows before this one are computed.
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
        self._has_states = has_states(classifier)
        self._states: LayerStates = []
        self._positions: list[int] = []
        self._next_positions: list[int] = []
        if self._has_states:
            self._shared = [0, *starmap(shared_length, pairwise(rows))]

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

    def _new_context(self, batch_tokens: int, cache: PrefixCache | StateCache | None) -> AttentionContext:
        """The next batch, with prefixes from a cache if one is given."""
        positions = self._positions if self._has_states else None
        find = None if cache is None else self._find
        batch = next_batch(self._rows, self._cursor, batch_tokens, self._cacheable_lengths, find, positions)
        states = self._state_context(batch, cache) if self._has_states else None
        cached = None if cache is None else cache.layers
        return context_for(batch, self._classifier, batch_tokens, self._carried, cached, states)

    def advance(self, context: AttentionContext) -> None:
        """Begin the next batch after one that is computed, and cache the latter's cacheable prefixes."""
        batch, count = context.batch, len(context.batch.cacheable_prefixes)
        self._cursor, self._carried = batch.after, context.carry
        outgoing = [] if context.states is None else context.states.outgoing
        self._positions, self._states = self._next_positions, [_part(layer, count, None) for layer in outgoing]
        if self._cache is None:
            return
        self._cache.unpin()
        if count:
            prefixes = [self._rows[prefix.row][: prefix.length] for prefix in batch.cacheable_prefixes]
            try:
                if isinstance(self._cache, StateCache):
                    states = [_part(layer, 0, count) for layer in outgoing]
                    self._cache.insert(prefixes, context.cacheable_key_values, states)
                else:
                    self._cache.insert(prefixes, context.cacheable_key_values)
            except (RuntimeError, MemoryError) as error:  # they are computed again when needed
                if not is_out_of_memory(error):
                    raise
                logger.warning("out of memory: %d documents or queries are not cached", count)

    def _find(self, row: int) -> CachedPrefix | None:
        if self._cache is None or self._cacheable_lengths is None:
            return None
        return self._cache.find(self._rows[row], self._cacheable_lengths[row])

    def _state_context(self, batch: Batch, cache: PrefixCache | StateCache | None) -> StateContext:
        cached = cache.states if isinstance(cache, StateCache) else CachedStates([], {})
        self._next_positions = carried_positions(batch, self._shared, self._positions)
        plan = state_plan(batch, self._positions, self._next_positions, cached.indices)
        return StateContext(plan, self._states, cached.layers)


def _part(layer: State, start: int, stop: int | None) -> State:
    """Some states of a layer; a copy if they are not all, because a view would keep all in memory."""
    return State(*(part if len(part := tensor[start:stop]) == len(tensor) else part.clone() for tensor in layer))


def new_prefix_cache(classifier: PreTrainedModel, max_bytes: int, max_host_bytes: int) -> PrefixCache | StateCache:
    """An empty cache for a classifier that shares prefixes. Raises InputError, or RuntimeError without memory."""
    # Three tokens do not fit in a batch of two, so the keys of the first two are carried to the next batch. With one
    # token in the batch, compiled layers would be compiled again.
    progress = TreeProgress(classifier, [(0, 0, 0)])
    context = progress.next_context(2)
    prefix_tree_hidden(classifier, context)
    one_token = [layer.part(0, 1) for layer in context.carry]
    if context.states is None:
        return PrefixCache(one_token, max_bytes, max_host_bytes)
    return StateCache(one_token, context.states.outgoing, max_bytes, max_host_bytes)
