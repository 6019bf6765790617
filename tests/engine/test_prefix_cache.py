"""The prefix cache: the same logits cold, warm and overflowing; within its limit; least recently used evicted first."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import PretrainedConfig, PreTrainedModel, Qwen3_5TextConfig, Qwen3Config

from onelogit.engine import model_runner
from onelogit.engine.attention.backend import KeyValue, LayerKeyValues
from onelogit.engine.kv_cache import KeyValuePool
from onelogit.engine.model_runner import ModelRunner
from onelogit.engine.prefix_cache import PrefixCache
from onelogit.engine.prefix_tree import CachedPrefix
from onelogit.errors import InputError
from onelogit.prompts.token_rows import TokenRow
from support.classifiers import classifier_of, tokens_seen

TOKEN_BYTES = 3 * 2 * 2 * 32 * 4  # layers, keys and values, heads, width, float32
START, QUERY_START = (5, 6, 7), (8, 9)


@pytest.fixture(scope="module")
def classifier() -> PreTrainedModel:
    return classifier_of(Qwen3Config)


def document_first(queries: range, documents: range) -> list[TokenRow]:
    """Rows as in ctxl's prompts: constant start, document, query; cacheable up to the document, and with it."""
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


@pytest.mark.parametrize("most_bytes", [0, 40 * TOKEN_BYTES, 10**7], ids=["none", "overflowing", "ample"])
@pytest.mark.parametrize("write", [document_first, query_first])
def test_logits_are_the_same_cold_warm_and_overflowing(write, most_bytes: int, classifier: PreTrainedModel):
    runner = ModelRunner(classifier, 64, most_bytes)
    for queries in (range(2), range(2), range(1, 4)):
        rows = write(queries, range(6))

        assert runner.logits(rows) == pytest.approx(ModelRunner(classifier).logits(rows), abs=1e-5)
        held_bytes = 0 if runner.prefix_cache is None else runner.prefix_cache.held_bytes
        assert (held_bytes > 0) == (most_bytes > 0)
        assert held_bytes <= most_bytes


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


def test_another_query_reuses_the_constant_start(classifier: PreTrainedModel):
    runner = ModelRunner(classifier, 1000, 10**7)
    runner.logits(query_first(range(1), range(1)))

    with tokens_seen(classifier) as seen:
        runner.logits(query_first(range(1, 2), range(1)))

    assert sum(seen) == 2 + 2 + 1


def test_the_same_row_again_costs_one_token(classifier: PreTrainedModel):
    row = TokenRow((1, 2, 3), (), (2, 3))
    runner = ModelRunner(classifier, 1000, 10**7)
    first = runner.logits([row])

    with tokens_seen(classifier) as seen:
        assert runner.logits([row]) == pytest.approx(first, abs=1e-6)

    assert sum(seen) == 1


@pytest.mark.parametrize("config_class", [Qwen3Config, Qwen3_5TextConfig])
def test_a_model_that_is_cast_later_begins_with_an_empty_cache(config_class: type[PretrainedConfig]):
    classifier, rows = classifier_of(config_class), query_first(range(2), range(5))
    runner = ModelRunner(classifier, 1000, 10**7)
    exact = runner.logits(rows)

    classifier.base_model.to(torch.bfloat16)

    for _ in range(2):
        assert runner.logits(rows) == pytest.approx(exact, abs=0.3)
    assert runner.prefix_cache.held_bytes > 0


def token() -> LayerKeyValues:
    return [KeyValue(*torch.zeros(2, 1, 2, 4))]  # 64 bytes


def numbered(*counts: int) -> LayerKeyValues:
    """Prefixes with these numbers of tokens, one after the other; all their numbers differ."""
    return [KeyValue(*torch.arange(2.0 * sum(counts) * 8).view(2, sum(counts), 2, 4))]


def cache_of(tokens: int, host_tokens: int = 0) -> PrefixCache:
    return PrefixCache(token(), 64 * tokens, 64 * host_tokens)


def read(cache: PrefixCache, cached: CachedPrefix) -> KeyValue:
    """The keys and values at the places of a found prefix."""
    assert cached.spans is not None
    return KeyValue(*(torch.cat([tensor[start:stop] for start, stop in cached.spans]) for tensor in cache.layers[0]))


IDS = st.integers(0, 6).map(lambda count: (count,) * (count + 1))


@given(uses=st.lists(IDS, max_size=40), most=st.integers(1, 20))
def test_the_least_recently_used_prefix_is_evicted_first(uses: list[tuple[int, ...]], most: int):
    cache, expected = cache_of(most), []
    for ids in uses:
        is_known = cache.find((*ids, 99), (len(ids),)) is not None
        cache.unpin()

        assert is_known == (ids in expected)
        if not is_known:
            cache.insert([ids], numbered(len(ids)))
        if len(ids) <= most:
            expected = [*(other for other in expected if other != ids), ids]
        while sum(map(len, expected)) > most:
            expected.pop(0)

        assert cache.held_bytes == 64 * sum(map(len, expected))


BATCHES = st.lists(st.lists(st.integers(0, 12), min_size=1, max_size=6, unique=True), max_size=12)


def use(cache: PrefixCache, numbers: list[int]) -> set[tuple[int, ...]]:
    """Look up the prefixes of these numbers, check those found and insert the others; returns those found."""
    prefixes = [(number,) * (1 + number % 5) for number in numbers]
    cached = {ids: cache.find((*ids, 99), (len(ids),)) for ids in prefixes}
    for ids, where in cached.items():
        if where is not None and where.spans is not None:
            for tensor, half in zip(read(cache, where), values_of(ids), strict=True):
                assert torch.equal(tensor, half)
    cache.unpin()
    new = [ids for ids in prefixes if cached[ids] is None]
    if new:
        cache.insert(new, [KeyValue(*torch.cat([values_of(ids) for ids in new], 1))])
    return {ids for ids in prefixes if cached[ids] is not None}


@given(batches=BATCHES, most=st.integers(1, 30), host=st.integers(0, 30))
def test_a_found_prefix_has_the_keys_and_values_that_were_inserted(batches: list[list[int]], most: int, host: int):
    """Also after eviction, return, and division into several extents."""
    cache = cache_of(most, host)
    for numbers in batches:
        use(cache, numbers)

        assert cache.held_bytes <= 64 * (most + host)


@given(batches=BATCHES, most=st.integers(5, 30))
def test_no_prefix_is_lost_while_it_fits_into_the_cpus_memory(batches: list[list[int]], most: int):
    cache, inserted = cache_of(most, 100), set()
    for numbers in batches:
        prefixes = {(number,) * (1 + number % 5) for number in numbers}

        assert use(cache, numbers) == prefixes & inserted
        inserted |= prefixes


def values_of(ids: tuple[int, ...]) -> torch.Tensor:
    """Keys and values that no other prefix has, shape (2, tokens, 2, 4)."""
    return (100.0 * ids[0] + torch.arange(2 * len(ids) * 8)).view(2, len(ids), 2, 4)


def test_evicted_prefixes_move_to_the_cpus_memory():
    cache = cache_of(3, 3)
    for id in range(3):
        cache.insert([(id, id)], numbered(2))

    found = [cache.find((id, id, 9), (2,)) is not None for id in (2, 1, 0)]

    assert found == [True, True, False]
    assert cache.held_bytes == 64 * 4


def test_the_last_prefixes_stay_on_the_device_and_the_others_move_to_the_cpu():
    cache = cache_of(4, 4)
    cache.insert([(1, 1), (2, 2), (3, 3)], numbered(2, 2, 2))

    first = [cache.find((id, id, 9), (2,)) for id in (2, 3, 1)]

    assert [cached is not None and cached.spans is not None for cached in first] == [True, True, False]
    cache.unpin()
    cached = cache.find((1, 1, 9), (2,))
    assert torch.equal(read(cache, cached).keys, numbered(2, 2, 2)[0].keys[:2])


def test_a_found_prefix_is_pinned_until_it_has_been_read():
    cache = cache_of(4, 100)
    cache.insert([(1, 1), (2, 2)], numbered(2, 2))
    cache.insert([(3, 3, 3, 3)], numbered(4))
    cache.find((1, 1, 9), (2,))
    cache.find((2, 2, 9), (2,))

    waiting = cache.find((3, 3, 3, 3, 9), (4,))
    cache.unpin()
    found = cache.find((3, 3, 3, 3, 9), (4,))

    assert waiting == CachedPrefix(4, None)
    assert found.spans is not None


def test_the_longest_cacheable_prefix_is_found_but_never_the_whole_row():
    cache = cache_of(100)
    cache.insert([(1, 2, 3)[:length] for length in (1, 2, 3)], numbered(1, 2, 3))

    assert cache.find((1, 2, 3, 4), (1, 2, 3)).length == 3
    assert cache.find((1, 2, 3), (1, 2, 3)).length == 2
    assert cache.find((1, 9, 9), (1, 2)).length == 1
    assert cache.find((9, 9, 9), (1, 2)) is None


def test_a_prefix_inserted_twice_is_stored_once():
    cache = cache_of(100)
    for _ in range(2):
        cache.insert([(1, 2), (1, 2)], numbered(2, 2))

    assert cache.held_bytes == 64 * 2


def test_documents_that_do_not_fit_into_the_cache_together_are_read_in_several_batches(classifier: PreTrainedModel):
    """Each is read once it is back from the CPU's memory; none is computed again."""
    runner = ModelRunner(classifier, 1000, 40 * TOKEN_BYTES, 10**7)
    runner.logits(document_first(range(1), range(6)))
    rows = document_first(range(1, 2), range(6))

    with tokens_seen(classifier) as seen:
        logits = runner.logits(rows)

    assert sum(seen) == 6 * 3
    assert len(seen) > 1
    assert logits == pytest.approx(ModelRunner(classifier).logits(rows), abs=1e-5)


def test_a_prefix_too_long_for_the_device_is_not_stored_on_the_cpu():
    cache = cache_of(3, 10)
    cache.insert([(1,) * 5], numbered(5))

    assert cache.find((*[1] * 5, 9), (5,)) is None


def test_documents_too_long_for_the_device_are_computed_again(classifier: PreTrainedModel):
    rows = document_first(range(2), range(6))
    runner = ModelRunner(classifier, 64, 12 * TOKEN_BYTES, 10**7)

    for _ in range(3):
        assert runner.logits(rows) == pytest.approx(ModelRunner(classifier).logits(rows), abs=1e-5)


def test_a_batch_that_fails_leaves_no_prefix_pinned(classifier: PreTrainedModel, monkeypatch: pytest.MonkeyPatch):
    runner = ModelRunner(classifier, 1000, 40 * TOKEN_BYTES, 10**7)
    runner.logits(document_first(range(1), range(6)))
    rows = document_first(range(1, 2), range(6))

    def fails(*_: object) -> None:
        raise ValueError("broken")

    with monkeypatch.context() as broken:
        broken.setattr(model_runner, "prefix_tree_hidden", fails)
        with pytest.raises(ValueError, match="broken"):
            runner.logits(rows)

    others = rows[3:]  # they are on the CPU, and would find no room beside pinned ones
    assert runner.logits(others) == pytest.approx(ModelRunner(classifier).logits(others), abs=1e-5)


def test_a_call_succeeds_without_memory_to_cache_its_prefixes(
    classifier: PreTrainedModel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    runner, rows = ModelRunner(classifier, 64, 60 * TOKEN_BYTES), document_first(range(2), range(6))
    expected = ModelRunner(classifier).logits(rows)

    def fails(*args: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    with monkeypatch.context() as short_of_memory:
        short_of_memory.setattr(KeyValuePool, "write", fails)
        assert runner.logits(rows) == pytest.approx(expected, abs=1e-5)

    assert "are not cached" in caplog.text
    assert runner.prefix_cache.held_bytes == 0
    for _ in range(2):
        assert runner.logits(rows) == pytest.approx(expected, abs=1e-5)
        assert runner.prefix_cache.held_bytes > 0


def test_a_cache_larger_than_the_free_memory_is_refused(classifier: PreTrainedModel):
    with pytest.raises(InputError, match=r"document_cache_bytes=\d+ and .* exceed the free memory of cpu"):
        ModelRunner(classifier, 1000, 2**60)


@pytest.mark.parametrize(
    ("name", "sizes"), [("document_cache_bytes", (200,)), ("document_cache_host_bytes", (2**20, 200))]
)
def test_a_cache_smaller_than_one_token_is_refused(name: str, sizes: tuple[int, ...], classifier: PreTrainedModel):
    with pytest.raises(InputError, match=f"{name}=200 is too small: one token takes 1536 bytes"):
        ModelRunner(classifier, 1000, *sizes)
