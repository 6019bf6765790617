"""The cache of a model with recurrent layers: the same logits cold, warm and overflowing; within its limit."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedModel, Qwen3_5TextConfig

from onelogit.engine import state_progress
from onelogit.engine.attention.backend import KeyValue
from onelogit.engine.attention.recurrent import State
from onelogit.engine.model_runner import ModelRunner
from onelogit.engine.state_cache import StateCache
from onelogit.errors import InputError
from onelogit.prompts.token_rows import TokenRow
from support.classifiers import classifier_of, tokens_seen

START, QUERY_START = (5, 6, 7), (8, 9)
TOKEN_BYTES, STATE_BYTES = 2 * 2 * 4 * 4, (3 * 5 + 2 * 4 * 4) * 4  # of the caches made by `cache_of`


@pytest.fixture(scope="module")
def classifier() -> PreTrainedModel:
    kinds = ["linear_attention", "full_attention", "linear_attention"]
    sizes = {"linear_num_key_heads": 2, "linear_num_value_heads": 2}
    widths = {"linear_key_head_dim": 16, "linear_value_head_dim": 16}
    return classifier_of(Qwen3_5TextConfig, layer_types=kinds, **sizes, **widths)


def document_first(queries: range, documents: range) -> list[TokenRow]:
    return [
        TokenRow((*START, *([100 + document] * (10 + document)), *QUERY_START, 50 + query), (), (3, 13 + document))
        for query in queries
        for document in documents
    ]


def query_first(queries: range, documents: range) -> list[TokenRow]:
    return [
        TokenRow((*START, 50 + query, 50 + query, *QUERY_START, 100 + document), (), (3, 5))
        for query in queries
        for document in documents
    ]


@pytest.mark.parametrize("host_bytes", [0, 60_000])
@pytest.mark.parametrize("most_bytes", [0, 40_000, 10**7], ids=["none", "overflowing", "ample"])
@pytest.mark.parametrize("write", [document_first, query_first])
def test_logits_are_the_same_cold_warm_and_overflowing(
    write, most_bytes: int, host_bytes: int, classifier: PreTrainedModel
):
    runner, plain = ModelRunner(classifier, 64, most_bytes, host_bytes), ModelRunner(classifier)
    for queries in (range(2), range(2), range(1, 4)):
        rows = write(queries, range(6))

        assert runner.logits(rows) == pytest.approx([plain.logits([row])[0] for row in rows], abs=1e-5)
        held_bytes = 0 if runner.prefix_cache is None else runner.prefix_cache.held_bytes
        assert (held_bytes > 0) == (most_bytes > 0)
        assert held_bytes <= most_bytes + host_bytes


def test_a_cached_document_costs_only_the_tokens_of_the_query(classifier: PreTrainedModel):
    runner = ModelRunner(classifier, 1000, 10**7)
    runner.logits(document_first(range(1), range(5)))

    with tokens_seen(classifier) as seen:
        runner.logits(document_first(range(1, 2), range(5)))

    assert sum(seen) == 5 * 3


def test_a_cached_query_costs_only_the_tokens_of_the_documents(classifier: PreTrainedModel):
    runner = ModelRunner(classifier, 1000, 10**7)
    runner.logits(query_first(range(1), range(5)))

    with tokens_seen(classifier) as seen:
        runner.logits(query_first(range(1), range(5, 8)))

    assert sum(seen) == 2 + 3  # the query's end, and the documents


def test_documents_on_the_host_return(classifier: PreTrainedModel):
    runner = ModelRunner(classifier, 1000, 40_000, 10**6)
    runner.logits(document_first(range(1), range(20)))

    with tokens_seen(classifier) as seen:
        runner.logits(document_first(range(1, 2), range(20)))

    assert sum(seen) == 20 * 3


def test_a_limit_too_small_for_one_state_is_refused(classifier: PreTrainedModel):
    for limits in ((100, 0), (10**6, 100)):
        with pytest.raises(InputError, match="=100 is too small: one token and the states after it take"):
            ModelRunner(classifier, 1000, *limits)


def test_out_of_memory_while_caching_costs_only_the_cache(
    classifier: PreTrainedModel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    runner, rows = ModelRunner(classifier, 1000, 10**7), document_first(range(2), range(3))
    expected = ModelRunner(classifier).logits(rows)

    def fails(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    with monkeypatch.context() as broken:
        broken.setattr(state_progress.StateCache, "insert", fails)
        assert runner.logits(rows) == pytest.approx(expected, abs=1e-5)

    assert "out of memory: 4 documents or queries are not cached" in caplog.text
    assert runner.logits(rows) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("stage", ["layers", "states", "find"])
def test_out_of_memory_while_cached_prefixes_are_read_loses_nothing(
    stage: str, classifier: PreTrainedModel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    runner, rows = ModelRunner(classifier, 40, 60_000, 60_000), document_first(range(2), range(6))
    expected = runner.logits(rows)

    def fails(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    with monkeypatch.context() as broken:
        broken.setattr(StateCache, stage, fails if stage == "find" else property(fails))
        assert runner.logits(rows) == pytest.approx(expected, abs=1e-5)

    assert "cached documents or queries of one batch are computed again" in caplog.text
    assert runner.logits(rows) == pytest.approx(expected, abs=1e-5)
    assert runner.prefix_cache.held_bytes <= 120_000


def cache_of(most: int, host: int = 0) -> StateCache:
    """A cache for so many prefixes of one token on the device and on the host."""
    token, state = [KeyValue(*torch.zeros(2, 1, 2, 4))], [State(torch.zeros(1, 3, 5), torch.zeros(1, 2, 4, 4))]
    size = TOKEN_BYTES + STATE_BYTES
    return StateCache(token, state, size * most, size * host)


def insert(cache: StateCache, numbers: list[int]) -> None:
    count = len(numbers)
    values = torch.tensor([float(number) for number in numbers])
    key_values = [KeyValue(*(values.view(count, 1, 1).expand(count, 2, 4) for _ in range(2)))]
    states = [State(values.view(count, 1, 1).expand(count, 3, 5), values.view(count, 1, 1, 1).expand(count, 2, 4, 4))]
    cache.insert([(number,) for number in numbers], key_values, states)


NUMBERS = st.lists(st.integers(0, 9), min_size=1, max_size=5, unique=True)


@given(batches=st.lists(NUMBERS, max_size=12), most=st.integers(1, 8), host=st.integers(0, 8))
def test_a_found_prefix_has_what_was_inserted_and_limits_hold(batches: list[list[int]], most: int, host: int):
    cache = cache_of(most, host)
    for numbers in batches:
        found = {number: cache.find((number, 99), (1,)) for number in numbers}
        for number, cached in found.items():
            if cached is not None and cached.spans is not None:
                ((start, stop),) = cached.spans
                assert torch.all(cache.layers[0].keys[start:stop] == number)
                index = cache.states.indices[stop]
                assert torch.all(cache.states.layers[0].matrices[index] == number)
                assert torch.all(cache.states.layers[0].inputs[index] == number)
        cache.unpin()
        new = [number for number, cached in found.items() if cached is None]
        if new:
            insert(cache, new)

        assert cache.held_bytes <= (TOKEN_BYTES + STATE_BYTES) * (most + host)


def test_the_least_recently_used_prefix_is_evicted_first_and_found_ones_stay():
    cache = cache_of(2)
    insert(cache, [1, 2])
    assert cache.find((1, 99), (1,)) is not None
    cache.unpin()

    insert(cache, [3])

    assert [cache.find((number, 99), (1,)) is not None for number in (1, 2, 3)] == [True, False, True]
    insert(cache, [4])  # both are in use
    assert cache.find((4, 99), (1,)) is None
    cache.unpin()
