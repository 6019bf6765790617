"""Which texts are tokenised again, and which token ids are kept."""

import copy
from array import array

import pytest
from tokenizers import Encoding, Tokenizer

from onelogit.prompts.layout import TokenCache
from onelogit.recipes.templates import CTXL_TEMPLATE
from support.rows import encoder_of
from support.tiny import byte_level_tokenizer

TOKENIZER = byte_level_tokenizer()


class Recording:
    """A tokenizer that records the texts that it tokenises."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.texts: list[str] = []

    def encode_batch_fast(self, texts: list[str], **options: bool) -> list[Encoding]:
        self.texts += texts
        return self.tokenizer.encode_batch_fast(texts, **options)


def test_each_text_is_tokenised_once_and_constant_text_never_again():
    encoder = encoder_of(TOKENIZER, CTXL_TEMPLATE)
    encoder.rows([("", "")], None)
    encoder._span_tokenizer = recording = Recording(encoder._span_tokenizer)

    encoder.rows([("q", "one"), ("q", "two"), ("q", "one")], None)
    encoder.rows([("another", "two"), ("q", "three")], None)

    assert recording.texts == [" one\n", " q ??", " two\n", " another ??", " three\n"]


def test_a_caller_cannot_change_cached_ids_through_its_rows():
    encoder = encoder_of(TOKENIZER, CTXL_TEMPLATE)
    first, second = encoder.rows([("q", "d"), ("q", "d")], None)

    with pytest.raises(TypeError):
        first.ids[0] = 5  # type: ignore[index]

    assert first.ids == second.ids == encoder.rows([("q", "d")], None)[0].ids


def test_the_least_recently_used_text_is_evicted_first():
    ids = {text: array("I", [1] * 100) for text in "abcd"}
    cache = TokenCache(1800)  # room for three: 400 bytes of ids each, and less than 200 around them
    cache.add({text: ids[text] for text in "abc"})

    cache.find("a")
    cache.add({"d": ids["d"]})

    assert cache.find("abcd") == {text: ids[text] for text in "acd"}


def test_a_text_larger_than_the_cache_evicts_nothing():
    cache = TokenCache(1000)
    cache.add({"a": array("I", [1])})

    cache.add({"b" * 2000: array("I", [2])})

    assert cache.find(["a", "b" * 2000]) == {"a": array("I", [1])}


def test_a_text_that_is_added_again_counts_once():
    cache = TokenCache(1000)
    for _ in range(99):
        cache.add({"a": array("I", [1])})

    assert cache.find("a")


def test_a_copy_of_a_token_cache_is_empty():
    cache = TokenCache(1000)
    cache.add({"a": array("I", [1])})

    assert copy.deepcopy(cache).find("a") == {}
