"""Rows of a decoder with recurrent layers -> the batches of their prefix tree, with the states that each needs."""

from collections.abc import Sequence
from itertools import pairwise, starmap

from transformers import PreTrainedModel

from onelogit.engine.attention.context import AttentionContext
from onelogit.engine.attention.delta_rule import has_states
from onelogit.engine.attention.recurrent import LayerStates, State, StateContext
from onelogit.engine.forward import TreeProgress, prefix_tree_hidden
from onelogit.engine.prefix_cache import PrefixCache
from onelogit.engine.prefix_tree import Ids, shared_length
from onelogit.engine.state_cache import CachedStates, StateCache
from onelogit.engine.state_tree import carried_positions, state_plan

_MOST_PADDING = 1.04  # batches are often short, and their tokens expensive


class StateProgress(TreeProgress):
    """How far some rows are computed by a decoder with recurrent layers; see `TreeProgress`."""

    def __init__(
        self,
        classifier: PreTrainedModel,
        rows: Sequence[Ids],
        cacheable_lengths: Sequence[Sequence[int]] | None = None,
        cache: PrefixCache | StateCache | None = None,
    ) -> None:
        super().__init__(classifier, rows, cacheable_lengths, cache)
        self._shared = [0, *starmap(shared_length, pairwise(rows))]
        self._states: LayerStates = []
        self._positions: list[int] = []
        self._next_positions: list[int] = []

    def advance(self, context: AttentionContext) -> None:
        """As `TreeProgress.advance`; also keeps the states that the next batch needs."""
        count = len(context.batch.cacheable_prefixes)
        self._positions, self._states = self._next_positions, [_part(each, count, None) for each in _outgoing(context)]
        super().advance(context)

    def _new_context(self, batch_tokens: int, cache: PrefixCache | StateCache | None) -> AttentionContext:
        batch = self._next_batch(batch_tokens, cache, self._positions)
        cached = cache.states if isinstance(cache, StateCache) else CachedStates([], {})
        self._next_positions = carried_positions(batch, self._shared, self._positions)
        plan = state_plan(batch, self._positions, self._next_positions, cached.indices)
        states = StateContext(plan, self._states, cached.layers)
        return self._context_of(batch, min(batch_tokens, int(len(batch.ids) * _MOST_PADDING)), cache, states)

    def _insert(self, prefixes: Sequence[Ids], context: AttentionContext) -> None:
        if isinstance(self._cache, StateCache):
            states = [_part(layer, 0, len(prefixes)) for layer in _outgoing(context)]
            self._cache.insert(prefixes, context.cacheable_key_values, states)


def _outgoing(context: AttentionContext) -> LayerStates:
    return [] if context.states is None else context.states.outgoing


def progress_kind(classifier: PreTrainedModel) -> type[TreeProgress]:
    """The class that follows the rows of a classifier, which shares prefixes."""
    return StateProgress if has_states(classifier) else TreeProgress


def _part(layer: State, start: int, stop: int | None) -> State:
    """Some states of a layer; a copy if they are not all, because a view would keep all in memory."""
    return State(*(part if len(part := tensor[start:stop]) == len(tensor) else part.clone() for tensor in layer))


def new_prefix_cache(classifier: PreTrainedModel, max_bytes: int, max_host_bytes: int) -> PrefixCache | StateCache:
    """An empty cache for a classifier that shares prefixes. Raises InputError, or RuntimeError without memory."""
    # Three tokens do not fit in a batch of two, so the keys of the first two are carried to the next batch. With one
    # token in the batch, compiled layers would be compiled again.
    progress = progress_kind(classifier)(classifier, [(0, 0, 0)])
    context = progress.next_context(2)
    prefix_tree_hidden(classifier, context)
    one_token = [layer.part(0, 1) for layer in context.carry]
    if context.states is None:
        return PrefixCache(one_token, max_bytes, max_host_bytes)
    return StateCache(one_token, context.states.outgoing, max_bytes, max_host_bytes)
