"""Kept keys and values: the same logits cold, warm and overflowing; within the limit; oldest use out first."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedModel, Qwen3Config

from onelogit.document_cache import DocumentCache
from onelogit.forward import Forward
from onelogit.keys import Block, KeysValues
from onelogit.passes import TokenRow
from test_forward import classifier_of, tokens_seen

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


@pytest.mark.parametrize("most_bytes", [0, 40 * TOKEN_BYTES, 10**9], ids=["none", "overflowing", "ample"])
@pytest.mark.parametrize("write", [document_first, query_first])
def test_logits_are_the_same_cold_warm_and_overflowing(write, most_bytes: int, classifier: PreTrainedModel):
    cache = DocumentCache(most_bytes)
    forward = Forward(classifier, 64, cache)
    for queries in (range(2), range(2), range(1, 4)):
        rows = write(queries, range(6))

        assert forward.logits(rows) == pytest.approx(Forward(classifier).logits(rows), abs=1e-5)
        assert cache.held_bytes <= most_bytes


def test_a_document_met_again_costs_only_the_querys_tokens(classifier: PreTrainedModel):
    forward = Forward(classifier, 1000, DocumentCache(10**9))
    forward.logits(document_first(range(1), range(5)))

    with tokens_seen(classifier) as seen:
        forward.logits(document_first(range(1, 2), range(5)))

    assert sum(seen) == 5 * 3


def test_a_query_met_again_costs_only_the_documents(classifier: PreTrainedModel):
    forward = Forward(classifier, 1000, DocumentCache(10**9))
    forward.logits(query_first(range(1), range(5)))

    with tokens_seen(classifier) as seen:
        forward.logits(query_first(range(1), range(5, 8)))

    assert sum(seen) == 2 + 3  # the query's end, and the documents


def test_another_query_finds_the_frame(classifier: PreTrainedModel):
    forward = Forward(classifier, 1000, DocumentCache(10**9))
    forward.logits(query_first(range(1), range(1)))

    with tokens_seen(classifier) as seen:
        forward.logits(query_first(range(1, 2), range(1)))

    assert sum(seen) == 2 + 2 + 1


def test_the_same_row_again_costs_one_token(classifier: PreTrainedModel):
    row = TokenRow((1, 2, 3), 0, (2, 3))
    forward = Forward(classifier, 1000, DocumentCache(10**9))
    first = forward.logits([row])

    with tokens_seen(classifier) as seen:
        assert forward.logits([row]) == pytest.approx(first, abs=1e-6)

    assert sum(seen) == 1


def test_kept_memory_is_the_prefixs_own(classifier: PreTrainedModel):
    """A view would hold the whole batch while counting as a part of it."""
    cache = DocumentCache(10**9)
    Forward(classifier, 1000, cache).logits(document_first(range(1), range(5)))

    block = cache.find(document_first(range(1), range(1))[0].ids, (3,)).block

    assert block[0].keys.untyped_storage().nbytes() == 3 * 2 * 32 * 4


def block_of(tokens: int) -> Block:
    return [KeysValues(torch.zeros(tokens, 2, 4), torch.zeros(tokens, 2, 4))]  # 64 bytes a token


IDS = st.integers(0, 6).map(lambda count: (count,) * (count + 1))


@given(uses=st.lists(IDS, max_size=40), most=st.integers(0, 20))
def test_what_was_used_longest_ago_goes_first(uses: list[tuple[int, ...]], most: int):
    cache, expected = DocumentCache(most * 64), []
    for ids in uses:
        is_known = cache.find((*ids, 99), (len(ids),)) is not None

        assert is_known == (ids in expected)
        if not is_known:
            cache.keep(ids, block_of(len(ids)))
        if len(ids) <= most:
            expected = [*(other for other in expected if other != ids), ids]
        while sum(map(len, expected)) > most:
            expected.pop(0)

        assert cache.held_bytes == 64 * sum(map(len, expected))


def test_what_leaves_the_device_waits_in_the_cpus_memory():
    cache = DocumentCache(64 * 3, 64 * 3)
    for id in range(3):
        cache.keep((id, id), block_of(2))

    found = [cache.find((id, id, 9), (2,)) is not None for id in (2, 1, 0)]

    assert found == [True, True, False]
    assert cache.held_bytes == 64 * 4


def test_the_longest_stem_is_found_and_never_the_whole_row():
    cache = DocumentCache(10**6)
    for length in (1, 2, 3):
        cache.keep((1, 2, 3)[:length], block_of(length))

    assert cache.find((1, 2, 3, 4), (1, 2, 3)).length == 3
    assert cache.find((1, 2, 3), (1, 2, 3)).length == 2
    assert cache.find((1, 9, 9), (1, 2)).length == 1
    assert cache.find((9, 9, 9), (1, 2)) is None


def test_a_prefix_kept_twice_is_counted_once():
    cache = DocumentCache(10**6)
    for _ in range(2):
        cache.keep((1, 2), block_of(2))

    assert cache.held_bytes == 64 * 2
