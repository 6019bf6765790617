"""Rows have the ids of the whole prompt, lose only a document's end, and keep control tokens in texts as text."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import pre_tokenizers

from onelogit import InputError, Recipe, RecipeError
from onelogit.prompts.layout import fill
from onelogit.prompts.template import compile_prompt
from onelogit.recipes.families import FAMILIES
from onelogit.recipes.templates import CTXL_TEMPLATE, MXBAI_TEMPLATE, QWEN3_TEMPLATE
from support.reference import prompt_ids
from support.rows import encoder_of, row_ids
from support.tiny import (
    CHAT_TOKENS,
    THINK_TOKENS,
    Tiny,
    byte_level_tokenizer,
    causal_checkpoint,
    gemma_tokenizer,
    tiny_parts,
)

TOKENIZER = byte_level_tokenizer()
TEMPLATES = {"qwen": QWEN3_TEMPLATE, "ctxl": CTXL_TEMPLATE}
ENCODERS = {name: encoder_of(TOKENIZER, template) for name, template in TEMPLATES.items()}
PLAIN = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="<|>"))


@given(query=PLAIN, document=PLAIN, name=st.sampled_from(list(ENCODERS)))
def test_the_ids_of_a_row_are_those_of_the_whole_prompt(query: str, document: str, name: str):
    template = TEMPLATES[name]
    text = fill(compile_prompt(template, False), {"query": query, "document": document, "instruction": ""})

    row = row_ids(ENCODERS[name], [(query, document)])[0]

    assert row == TOKENIZER(text)["input_ids"]


def test_rows_equal_those_of_the_reference_code(family: Recipe, tmp_path):
    tiny = causal_checkpoint(tmp_path, **tiny_parts(family))
    pairs = [("What is it?", "It is.\n"), ("A question?\n", "  a document "), ("1", "\n\n2"), ("서울", "北京?")]
    encoder = encoder_of(tiny.tokenizer, family.chat_template, 2048)

    rows = row_ids(encoder, pairs, family.default_instruction)

    assert rows == [prompt_ids(tiny, family, query, document) for query, document in pairs]


@pytest.mark.parametrize("token", [*CHAT_TOKENS, *THINK_TOKENS])
@pytest.mark.parametrize("template", [QWEN3_TEMPLATE, CTXL_TEMPLATE, MXBAI_TEMPLATE])
def test_control_tokens_in_the_callers_text_stay_text(token: str, template: str):
    encoder = encoder_of(TOKENIZER, template)
    control = set(TOKENIZER.convert_tokens_to_ids([*CHAT_TOKENS, *THINK_TOKENS]))

    def controls(query: str, document: str) -> list[int]:
        return [id for id in row_ids(encoder, [(query, document)], "Find it.")[0] if id in control]

    assert controls(f"q{token}", f"{token} d {token}") == controls("q", "d")


def test_control_tokens_can_be_allowed_as_in_the_reference_code():
    strict = encoder_of(TOKENIZER, QWEN3_TEMPLATE)
    loose = encoder_of(TOKENIZER, QWEN3_TEMPLATE, allow_control_tokens=True)
    pairs = [("q", "an end<|im_end|>\n<think>")]
    text = fill(compile_prompt(QWEN3_TEMPLATE, False), {"query": "q", "document": pairs[0][1]})

    assert row_ids(loose, pairs)[0] == TOKENIZER(text)["input_ids"]
    assert row_ids(strict, pairs)[0] != row_ids(loose, pairs)[0]


def test_gemma_gets_one_bos_token_and_keeps_its_newline_tokens():
    tokenizer = gemma_tokenizer()
    recipe = next(recipe for recipe in FAMILIES if recipe.family == "bge-reranker-v2-gemma")

    row = row_ids(encoder_of(tokenizer, recipe.chat_template, 999), [("a <bos>", "b\n\nc <eos>")])[0]

    assert row.count(tokenizer.bos_token_id) == 1
    assert row[0] == tokenizer.bos_token_id
    assert tokenizer.eos_token_id not in row
    assert tokenizer.convert_tokens_to_ids("\n\n") in row


def test_a_template_that_writes_the_bos_token_gets_no_second_one():
    tokenizer = byte_level_tokenizer("<s>")
    template = "<s>{{ messages[0].content }} {{ messages[1].content }}"

    row = row_ids(encoder_of(tokenizer, template, 999), [("q", "d")])[0]

    assert row.count(tokenizer.bos_token_id) == 1


@settings(max_examples=60)
@given(document=PLAIN.filter(lambda text: len(text) > 20), excess=st.integers(1, 12))
@pytest.mark.parametrize("name", list(ENCODERS))
def test_a_long_document_loses_only_tokens_at_its_end(document: str, excess: int, name: str):
    template = TEMPLATES[name]
    full = row_ids(ENCODERS[name], [("What?", document)])[0]
    without_document = row_ids(ENCODERS[name], [("What?", "")])[0]
    limit = max(len(full) - excess, len(without_document) + 2)
    if limit >= len(full):
        return

    encoded = encoder_of(TOKENIZER, template, limit).rows([("What?", document), ("What?", "")], None)
    cut, uncut = ([*row.ids] for row in encoded)

    # Constant text after the document, which does not join this one; the end that it may have joined is cut off.
    other = row_ids(ENCODERS[name], [("What?", "京")])[0]
    kept_after = next(n for n in range(len(other)) if full[: limit - n] + other[len(other) - n :] == cut)
    assert [row.is_truncated for row in encoded] == [True, False]
    assert len(cut) == limit
    assert cut[-kept_after:] == other[-kept_after:]  # the constant ids after the document are kept
    assert uncut == without_document


def test_the_error_for_a_query_that_leaves_no_room_says_by_how_much():
    without_document = len(row_ids(ENCODERS["ctxl"], [("a b c d e f", "")])[0])
    limit = without_document - 3

    figures = rf"take {without_document} tokens.*max_tokens={limit}: 4 too many. Shorten the query or the instruction"
    with pytest.raises(InputError, match=figures):
        encoder_of(TOKENIZER, CTXL_TEMPLATE, limit).rows([("a b c d e f", "a document")], None)
    with pytest.raises(InputError, match=figures):
        encoder_of(TOKENIZER, CTXL_TEMPLATE, limit).prompts([("a b c d e f", "a document")], None)


def test_threads_that_share_an_encoder_get_their_own_rows():
    encoder = encoder_of(TOKENIZER, QWEN3_TEMPLATE, 400)
    pairs = [(f"query {n}", f"document {n} " * (n % 40)) for n in range(200)]
    expected = [row_ids(encoder, [pair])[0] for pair in pairs]

    with ThreadPoolExecutor(8) as pool:
        rows = list(pool.map(lambda pair: row_ids(encoder, [pair])[0], pairs * 4))

    assert rows == expected * 4


def test_the_callers_tokenizer_is_not_changed(tiny_qwen: Tiny):
    before = tiny_qwen.tokenizer.backend_tokenizer.to_str()

    encoder_of(tiny_qwen.tokenizer, QWEN3_TEMPLATE, 400).rows([("q", "d" * 500)], None)

    assert tiny_qwen.tokenizer.backend_tokenizer.to_str() == before


def test_truncation_and_padding_of_a_saved_tokenizer_have_no_effect():
    limited = byte_level_tokenizer("<s>")
    plain = encoder_of(byte_level_tokenizer("<s>"), CTXL_TEMPLATE, 999).rows([("a query", "a document " * 9)], None)
    limited.backend_tokenizer.enable_truncation(6)
    limited.backend_tokenizer.enable_padding(length=64)

    assert encoder_of(limited, CTXL_TEMPLATE, 999).rows([("a query", "a document " * 9)], None) == plain
    assert limited.backend_tokenizer.truncation is not None


@pytest.mark.parametrize("room", [0, 1])
def test_a_document_needs_room_for_at_least_one_token(room: int):
    without_document = len(row_ids(ENCODERS["ctxl"], [("what", "")])[0])
    encoder = encoder_of(TOKENIZER, CTXL_TEMPLATE, without_document + room)

    if room:
        assert len(row_ids(encoder, [("what", " !!!! ???? !!!!")])[0]) == without_document + room
    else:
        with pytest.raises(InputError, match="1 too many"):
            encoder.rows([("what", " !!!! ???? !!!!")], None)


def test_a_tokenizer_that_gives_spans_other_ids_than_the_whole_prompt_is_refused():
    """A tokenizer that puts a space before each text would put one after each control token."""
    tokenizer = gemma_tokenizer()
    tokenizer.backend_tokenizer.normalizer = None
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")

    with pytest.raises(RecipeError, match=r"gives other ids .*: from token \d+ on, \[\d+, .*\], not \["):
        encoder_of(tokenizer, "{{ messages[0].content }}<eos>{{ messages[1].content }}", 999)


@given(
    words=st.lists(st.sampled_from(["a", "capital", "of", "China", "京"]), min_size=1, max_size=60),
    room=st.integers(1, 30),
)
@pytest.mark.parametrize("name", list(ENCODERS))
def test_chunks_contain_every_token_of_a_document_within_the_limit(name: str, words: list[str], room: int):
    template = TEMPLATES[name]
    pairs = [("What?", " ".join(["京", *words, "京"])), ("What?", "")]  # ends that do not merge with constant text
    whole, empty = row_ids(ENCODERS[name], pairs)
    start = next(n for n in range(len(empty)) if whole[: n + 1] != empty[: n + 1])
    before, document, after = empty[:start], whole[start : len(whole) - len(empty) + start], empty[start:]
    limit = len(empty) + room

    encoded = encoder_of(TOKENIZER, template, limit, long_documents="chunk_max").rows(pairs, None)

    last = max(len(document) - room, 0)
    starts = [*range(0, last, room - room // 8), last]  # the last chunk is as long as the others
    assert [[*row.ids] for row in encoded] == [*(before + document[n : n + room] + after for n in starts), empty]
    assert [row.owner for row in encoded] == [0] * len(starts) + [1]
    assert all(row.cacheable_lengths for row in encoded)
    assert not any(row.is_truncated for row in encoded)
    assert encoded[0].ids == encoder_of(TOKENIZER, template, limit).rows(pairs, None)[0].ids
