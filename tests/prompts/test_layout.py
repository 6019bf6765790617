"""Which prefixes of a row other rows may share."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onelogit.recipes.templates import CTXL_TEMPLATE, QWEN3_TEMPLATE, ZERANK_2_TEMPLATE
from support.rows import TEXTS, cacheable_lengths, encoder_of
from support.tiny import byte_level_tokenizer, gemma_tokenizer, pair_tokenizer

TOKENIZER = byte_level_tokenizer()
TEMPLATES = {"qwen3": QWEN3_TEMPLATE, "ctxl": CTXL_TEMPLATE, "zerank-2": ZERANK_2_TEMPLATE}
ENCODERS = {name: encoder_of(TOKENIZER, template) for name, template in TEMPLATES.items()}


def ids_of(text: str) -> list[int]:
    return TOKENIZER(text)["input_ids"]


def test_cacheable_prefixes_end_where_the_next_text_begins():
    pairs = [("What is it?", "It is 1.\n"), ("Who?", "")]
    before_query, between = (
        "Check whether a given document contains information helpful to answer the query.\n<Document>",
        "<Query>",
    )

    found = cacheable_lengths(ENCODERS["ctxl"], pairs)

    constant = len(ids_of(before_query))
    assert found == [(constant, constant + len(ids_of(f" {document}\n" + between))) for _, document in pairs]


@given(queries=st.tuples(TEXTS, TEXTS), documents=st.tuples(TEXTS, TEXTS), name=st.sampled_from(list(TEMPLATES)))
def test_a_cacheable_prefix_does_not_depend_on_later_tokens(
    queries: tuple[str, str], documents: tuple[str, str], name: str
):
    pairs = list(product(queries, documents))

    rows = ENCODERS[name].rows(pairs, "Find it.")

    heads = {}
    for (query, document), row in zip(pairs, rows, strict=True):
        first_text = document if name == "ctxl" else query
        shorter, longer = row.cacheable_lengths
        assert 0 < shorter < longer < len(row.ids)
        assert heads.setdefault("", row.ids[:shorter]) == row.ids[:shorter]
        assert heads.setdefault(f"of {first_text}", row.ids[:longer]) == row.ids[:longer]


@pytest.mark.parametrize("name", list(TEMPLATES))
def test_cacheable_prefixes_of_a_truncated_row_are_shorter(name: str):
    (full,) = ENCODERS[name].rows([("What?", "a document " * 9)], None)
    short = encoder_of(TOKENIZER, TEMPLATES[name], len(full.ids) - 5)

    (cut,) = short.rows([("What?", "a document " * 9)], None)

    lost = 5 if name == "ctxl" else 0
    assert cut.cacheable_lengths == (full.cacheable_lengths[0], full.cacheable_lengths[1] - lost)
    assert cut.ids[cut.cacheable_lengths[1] :][:3] == full.ids[full.cacheable_lengths[1] :][:3]


def test_neither_nothing_nor_a_whole_row_is_a_cacheable_prefix():
    template = "{{ messages[0].content }}<|im_end|>{{ messages[1].content }}"

    found = cacheable_lengths(encoder_of(TOKENIZER, template, 99), [("q", ""), ("q", "d"), ("", "d")])

    assert found == [(), (2,), (1,)]


def test_two_texts_that_begin_at_the_same_place_give_one_cacheable_prefix():
    template = "<|im_end|>{{ messages[0].content }}{{ seam }}{{ messages[1].content }}"

    found = cacheable_lengths(encoder_of(TOKENIZER, template, 99), [("", "d"), ("q", "d")])

    assert found == [(1,), (1, 2)]


def test_spans_that_cannot_be_cut_have_fewer_cacheable_prefixes():
    encoder = encoder_of(gemma_tokenizer(), "A: {{ messages[0].content }} B: {{ messages[1].content }}", 99)

    assert cacheable_lengths(encoder, [("q", "d")]) == [(1,)]  # <bos>


def test_rows_of_pairs_have_no_cacheable_prefixes():
    encoder = encoder_of(pair_tokenizer("[CLS]", "[SEP]", "[SEP]"), None, 99)

    assert cacheable_lengths(encoder, [("q", "d"), ("q", "e")]) == [(), ()]
