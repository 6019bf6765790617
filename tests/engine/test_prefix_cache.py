"""Kept keys and values: the same logits cold, warm and overflowing; within the limit; oldest use out first."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedModel, Qwen3Config

from onelogit.engine import model_runner
from onelogit.engine.kv_cache import KeyValue, KeyValuePool, LayerKeyValues
from onelogit.engine.model_runner import ModelRunner
from onelogit.engine.prefix_cache import PrefixCache
from onelogit.engine.prefix_tree import CachedPrefix
from onelogit.errors import InputError
from onelogit.prompts.token_rows import TokenRow
from support.classifiers import classifier_of, tokens_seen

TOKEN_BYTES = 3 * 2 * 2 * 32 * 4  # layers, keys and values, heads, width, float32
FRAME, QUERY_FRAME = (5, 6, 7), (8, 9)


@pytest.fixture(scope="module")
def classifier() -> PreTrainedModel:
    return classifier_of(Qwen3Config)


def document_first(queries: range, documents: range) -> list[TokenRow]:
    """Rows as ctxl writes them: frame, document, query; stems after the frame and after the document."""
    return [
        TokenRow((*FRAME, *([100 + document] * (10 + document)), *QUERY_FRAME, 50 + query), 0, (3, 13 + document))
        for query in queries
        for document in documents
    ]


def query_first(queries: range, documents: range) -> list[TokenRow]:
    return [
        TokenRow((*FRAME, 50 + query, 50 + query, *QUERY_FRAME, 100 + document), 0, (3, 5))
        for query in queries
        for document in documents
    ]


@pytest.mark.parametrize("most_bytes", [0, 40 * TOKEN_BYTES, 10**7], ids=["none", "overflowing", "ample"])
@pytest.mark.parametrize("write", [document_first, query_first])
def test_logits_are_the_same_cold_warm_and_overflowing(write, most_bytes: int, classifier: PreTrainedModel):
    forward = ModelRunner(classifier, 64, most_bytes)
    for queries in (range(2), range(2), range(1, 4)):
        rows = write(queries, range(6))

        assert forward.logits(rows) == pytest.approx(ModelRunner(classifier).logits(rows), abs=1e-5)
        held_bytes = 0 if forward.document_cache is None else forward.document_cache.held_bytes
        assert (held_bytes > 0) == (most_bytes > 0)
        assert held_bytes <= most_bytes


def test_a_document_met_again_costs_only_the_querys_tokens(classifier: PreTrainedModel):
    forward = ModelRunner(classifier, 1000, 10**7)
    forward.logits(document_first(range(1), range(5)))

    with tokens_seen(classifier) as seen:
        forward.logits(document_first(range(1, 2), range(5)))

    assert sum(seen) == 5 * 3


def test_a_query_met_again_costs_only_the_documents(classifier: PreTrainedModel):
    forward = ModelRunner(classifier, 1000, 10**7)
    forward.logits(query_first(range(1), range(5)))

    with tokens_seen(classifier) as seen:
        forward.logits(query_first(range(1), range(5, 8)))

    assert sum(seen) == 2 + 3  # the query's end, and the documents


def test_another_query_finds_the_frame(classifier: PreTrainedModel):
    forward = ModelRunner(classifier, 1000, 10**7)
    forward.logits(query_first(range(1), range(1)))

    with tokens_seen(classifier) as seen:
        forward.logits(query_first(range(1, 2), range(1)))

    assert sum(seen) == 2 + 2 + 1


def test_the_same_row_again_costs_one_token(classifier: PreTrainedModel):
    row = TokenRow((1, 2, 3), 0, (2, 3))
    forward = ModelRunner(classifier, 1000, 10**7)
    first = forward.logits([row])

    with tokens_seen(classifier) as seen:
        assert forward.logits([row]) == pytest.approx(first, abs=1e-6)

    assert sum(seen) == 1


def token() -> LayerKeyValues:
    return [KeyValue(*torch.zeros(2, 1, 2, 4))]  # 64 bytes


def numbered(*counts: int) -> LayerKeyValues:
    """Prefixes of so many tokens, one behind the other; every number in it is another one."""
    return [KeyValue(*torch.arange(2.0 * sum(counts) * 8).view(2, sum(counts), 2, 4))]


def cache_of(tokens: int, host_tokens: int = 0) -> PrefixCache:
    return PrefixCache(token(), 64 * tokens, 64 * host_tokens)


def read(cache: PrefixCache, known: CachedPrefix) -> KeyValue:
    """What stands where a prefix was found."""
    assert known.spans is not None
    return KeyValue(*(torch.cat([tensor[start:stop] for start, stop in known.spans]) for tensor in cache.layers[0]))


IDS = st.integers(0, 6).map(lambda count: (count,) * (count + 1))


@given(uses=st.lists(IDS, max_size=40), most=st.integers(1, 20))
def test_what_was_used_longest_ago_goes_first(uses: list[tuple[int, ...]], most: int):
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
    """Find the prefixes of these numbers, keep those that are not found, and check the others; returns the found."""
    prefixes = [(number,) * (1 + number % 5) for number in numbers]
    known = {ids: cache.find((*ids, 99), (len(ids),)) for ids in prefixes}
    for ids, where in known.items():
        if where is not None and where.spans is not None:
            for tensor, half in zip(read(cache, where), written(ids), strict=True):
                assert torch.equal(tensor, half)
    cache.unpin()
    new = [ids for ids in prefixes if known[ids] is None]
    if new:
        cache.insert(new, [KeyValue(*torch.cat([written(ids) for ids in new], 1))])
    return {ids for ids in prefixes if known[ids] is not None}


@given(batches=BATCHES, most=st.integers(1, 30), host=st.integers(0, 30))
def test_what_is_found_is_what_was_kept(batches: list[list[int]], most: int, host: int):
    """Whatever left meanwhile, came back, or was cut into pieces to fit between others."""
    cache = cache_of(most, host)
    for numbers in batches:
        use(cache, numbers)

        assert cache.held_bytes <= 64 * (most + host)


@given(batches=BATCHES, most=st.integers(5, 30))
def test_nothing_is_lost_while_the_cpus_memory_holds_it(batches: list[list[int]], most: int):
    cache, kept = cache_of(most, 100), set()
    for numbers in batches:
        prefixes = {(number,) * (1 + number % 5) for number in numbers}

        assert use(cache, numbers) == prefixes & kept
        kept |= prefixes


def written(ids: tuple[int, ...]) -> torch.Tensor:
    """Keys and values that no other prefix has, shape (2, tokens, 2, 4)."""
    return (100.0 * ids[0] + torch.arange(2 * len(ids) * 8)).view(2, len(ids), 2, 4)


def test_what_leaves_the_device_waits_in_the_cpus_memory():
    cache = cache_of(3, 3)
    for id in range(3):
        cache.insert([(id, id)], numbered(2))

    found = [cache.find((id, id, 9), (2,)) is not None for id in (2, 1, 0)]

    assert found == [True, True, False]
    assert cache.held_bytes == 64 * 4


def test_of_more_than_fits_the_last_are_kept_and_the_others_wait():
    cache = cache_of(4, 4)
    cache.insert([(1, 1), (2, 2), (3, 3)], numbered(2, 2, 2))

    first = [cache.find((id, id, 9), (2,)) for id in (2, 3, 1)]

    assert [known is not None and known.spans is not None for known in first] == [True, True, False]
    cache.unpin()
    known = cache.find((1, 1, 9), (2,))
    assert torch.equal(read(cache, known).keys, numbered(2, 2, 2)[0].keys[:2])


def test_what_was_found_stays_until_it_has_been_read():
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


def test_the_longest_stem_is_found_and_never_the_whole_row():
    cache = cache_of(100)
    cache.insert([(1, 2, 3)[:length] for length in (1, 2, 3)], numbered(1, 2, 3))

    assert cache.find((1, 2, 3, 4), (1, 2, 3)).length == 3
    assert cache.find((1, 2, 3), (1, 2, 3)).length == 2
    assert cache.find((1, 9, 9), (1, 2)).length == 1
    assert cache.find((9, 9, 9), (1, 2)) is None


def test_a_prefix_kept_twice_is_counted_once():
    cache = cache_of(100)
    for _ in range(2):
        cache.insert([(1, 2), (1, 2)], numbered(2, 2))

    assert cache.held_bytes == 64 * 2


def test_documents_that_the_cache_cannot_hold_together_are_read_in_several_batches(classifier: PreTrainedModel):
    """Each once it is back from the CPU's memory, and none computed again."""
    forward = ModelRunner(classifier, 1000, 40 * TOKEN_BYTES, 10**7)
    forward.logits(document_first(range(1), range(6)))
    rows = document_first(range(1, 2), range(6))

    with tokens_seen(classifier) as seen:
        logits = forward.logits(rows)

    assert sum(seen) == 6 * 3
    assert len(seen) > 1
    assert logits == pytest.approx(ModelRunner(classifier).logits(rows), abs=1e-5)


def test_what_is_longer_than_the_device_holds_does_not_wait_for_it():
    cache = cache_of(3, 10)
    cache.insert([(1,) * 5], numbered(5))

    assert cache.find((*[1] * 5, 9), (5,)) is None


def test_documents_longer_than_the_device_holds_are_computed_again(classifier: PreTrainedModel):
    rows = document_first(range(2), range(6))
    forward = ModelRunner(classifier, 64, 12 * TOKEN_BYTES, 10**7)

    for _ in range(3):
        assert forward.logits(rows) == pytest.approx(ModelRunner(classifier).logits(rows), abs=1e-5)


def test_a_batch_that_fails_leaves_nothing_in_use(classifier: PreTrainedModel, monkeypatch: pytest.MonkeyPatch):
    forward = ModelRunner(classifier, 1000, 40 * TOKEN_BYTES, 10**7)
    forward.logits(document_first(range(1), range(6)))
    rows = document_first(range(1, 2), range(6))

    def fails(*_: object) -> None:
        raise ValueError("broken")

    with monkeypatch.context() as broken:
        broken.setattr(model_runner, "prefix_tree_logits", fails)
        with pytest.raises(ValueError, match="broken"):
            forward.logits(rows)

    others = rows[3:]  # they wait, and find no room beside what would still be in use
    assert forward.logits(others) == pytest.approx(ModelRunner(classifier).logits(others), abs=1e-5)


def test_a_call_goes_on_where_there_is_no_memory_to_keep_what_it_read(
    classifier: PreTrainedModel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    forward, rows = ModelRunner(classifier, 64, 60 * TOKEN_BYTES), document_first(range(2), range(6))
    expected = ModelRunner(classifier).logits(rows)

    def fails(*args: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    with monkeypatch.context() as short_of_memory:
        short_of_memory.setattr(KeyValuePool, "write", fails)
        assert forward.logits(rows) == pytest.approx(expected, abs=1e-5)

    assert "are not cached" in caplog.text
    assert forward.document_cache.held_bytes == 0
    for _ in range(2):
        assert forward.logits(rows) == pytest.approx(expected, abs=1e-5)
        assert forward.document_cache.held_bytes > 0


def test_more_than_the_memory_there_is_is_refused(classifier: PreTrainedModel):
    with pytest.raises(InputError, match=r"document_cache_bytes=\d+ and .*: there is not that much free memory on cpu"):
        ModelRunner(classifier, 1000, 2**60)


@pytest.mark.parametrize(
    ("name", "asked"), [("document_cache_bytes", (200,)), ("document_cache_host_bytes", (2**20, 200))]
)
def test_less_than_a_token_takes_is_refused(name: str, asked: tuple[int, ...], classifier: PreTrainedModel):
    with pytest.raises(InputError, match=f"{name}=200 is too small: one token takes 1536 bytes"):
        ModelRunner(classifier, 1000, *asked)
