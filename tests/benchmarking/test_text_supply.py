"""Texts for a benchmark: never the same one twice, and of the wanted length."""

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onelogit.benchmarking.text_supply import TextSupply
from onelogit.io.text_files import TextCollection
from support.benchmark_targets import TEXTS
from support.tiny import byte_level_tokenizer


@given(texts=st.lists(st.text(min_size=1).filter(str.strip), min_size=1, max_size=5), count=st.integers(1, 60))
def test_no_text_is_supplied_twice_even_if_few_are_given(texts: list[str], count: int):
    supply = TextSupply(TextCollection(texts, texts[:1]), None)

    documents = supply.documents(count)
    queries = [supply.query() for _ in range(count)]

    distinct = list(dict.fromkeys(texts))
    assert documents[: len(distinct)] == distinct[:count]
    assert len(set(documents)) == len(set(queries)) == count
    assert all(text.strip() for text in (*documents, *queries))
    assert supply.as_given == min(count, len(distinct))
    assert supply.as_given + supply.made_up == count


@pytest.mark.parametrize("tokens", [16, 100])
def test_documents_have_the_given_length(tokens: int):
    tokenizer = byte_level_tokenizer().backend_tokenizer

    documents = TextSupply(TEXTS, tokenizer).documents(40, tokens)

    lengths = [len(tokenizer.encode(text, add_special_tokens=False).ids) for text in documents]
    assert len(set(documents)) == 40
    assert statistics.median(lengths) == pytest.approx(tokens, abs=1)
    assert min(lengths) >= tokens - 2
    assert max(lengths) <= tokens + 2


def test_documents_of_one_token_get_a_number_once_there_are_no_more():
    documents = TextSupply(TEXTS, byte_level_tokenizer().backend_tokenizer).documents(40, 1)

    assert len(set(documents)) == 40
