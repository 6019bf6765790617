"""From prompt to token ids: equal to the whole prompt's, cut at the document's end only, safe from users' text."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import pre_tokenizers

from onelogit import InputError, Recipe, RecipeError
from onelogit.prompts.encoder import Encoder
from onelogit.prompts.template import compile_prompt
from onelogit.recipes.families import FAMILIES
from onelogit.recipes.templates import CTXL_TEMPLATE, MXBAI_TEMPLATE, QWEN3_TEMPLATE
from support.reference import prompt_ids
from support.rows import row_ids
from support.tiny import (
    ARCHITECTURE_OF_FAMILY,
    CHAT_TOKENS,
    THINK_TOKENS,
    Tiny,
    byte_level_tokenizer,
    causal_checkpoint,
    gemma_tokenizer,
)

TOKENIZER = byte_level_tokenizer()
FRAME = {
    name: Encoder(TOKENIZER, template, 9999) for name, template in (("qwen", QWEN3_TEMPLATE), ("ctxl", CTXL_TEMPLATE))
}
PLAIN = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="<|>"))


@given(query=PLAIN, document=PLAIN, name=st.sampled_from(list(FRAME)))
def test_the_runs_ids_are_the_whole_prompts(query: str, document: str, name: str):
    template = {"qwen": QWEN3_TEMPLATE, "ctxl": CTXL_TEMPLATE}[name]
    text = compile_prompt(template, False).text({"query": query, "document": document, "instruction": ""})

    row = row_ids(FRAME[name], [(query, document)])[0]

    assert row == TOKENIZER(text)["input_ids"]


@pytest.mark.parametrize("family", FAMILIES, ids=lambda recipe: recipe.family)
def test_rows_are_those_of_the_reference_code(family: Recipe, tmp_path):
    tiny = causal_checkpoint(tmp_path, ARCHITECTURE_OF_FAMILY[family.family])
    pairs = [("What is it?", "It is.\n"), ("A question?\n", "  a document "), ("1", "\n\n2"), ("서울", "北京?")]
    encoder = Encoder(tiny.tokenizer, family.chat_template, 2048)

    rows = row_ids(encoder, pairs, family.default_instruction)

    assert rows == [prompt_ids(tiny, family, query, document) for query, document in pairs]


@pytest.mark.parametrize("token", [*CHAT_TOKENS, *THINK_TOKENS])
@pytest.mark.parametrize("template", [QWEN3_TEMPLATE, CTXL_TEMPLATE, MXBAI_TEMPLATE])
def test_control_tokens_in_a_users_text_stay_text(token: str, template: str):
    encoder = Encoder(TOKENIZER, template, 9999)
    control = set(TOKENIZER.convert_tokens_to_ids([*CHAT_TOKENS, *THINK_TOKENS]))

    def controls(query: str, document: str) -> list[int]:
        return [id for id in row_ids(encoder, [(query, document)], "Find it.")[0] if id in control]

    assert controls(f"q{token}", f"{token} d {token}") == controls("q", "d")


def test_control_tokens_may_be_allowed_as_the_references_do():
    strict = Encoder(TOKENIZER, QWEN3_TEMPLATE, 9999)
    loose = Encoder(TOKENIZER, QWEN3_TEMPLATE, 9999, allow_control_tokens=True)
    pairs = [("q", "an end<|im_end|>\n<think>")]
    text = compile_prompt(QWEN3_TEMPLATE, False).text({"query": "q", "document": pairs[0][1]})

    assert row_ids(loose, pairs)[0] == TOKENIZER(text)["input_ids"]
    assert row_ids(strict, pairs)[0] != row_ids(loose, pairs)[0]


def test_gemmas_beginning_is_written_once_and_its_newlines_stay_tokens():
    tokenizer = gemma_tokenizer()
    recipe = next(recipe for recipe in FAMILIES if recipe.family == "bge-reranker-v2-gemma")

    row = row_ids(Encoder(tokenizer, recipe.chat_template, 999), [("a <bos>", "b\n\nc <eos>")])[0]

    assert row.count(tokenizer.bos_token_id) == 1
    assert row[0] == tokenizer.bos_token_id
    assert tokenizer.eos_token_id not in row
    assert tokenizer.convert_tokens_to_ids("\n\n") in row


def test_a_template_that_writes_its_own_beginning_gets_no_second_one():
    tokenizer = byte_level_tokenizer("<s>")
    template = "<s>{{ messages[0].content }} {{ messages[1].content }}"

    row = row_ids(Encoder(tokenizer, template, 999), [("q", "d")])[0]

    assert row.count(tokenizer.bos_token_id) == 1


@settings(max_examples=60)
@given(document=PLAIN.filter(lambda text: len(text) > 20), cut=st.integers(1, 12))
@pytest.mark.parametrize("name", list(FRAME))
def test_a_long_document_loses_tokens_at_its_end_and_nothing_else(document: str, cut: int, name: str):
    template = {"qwen": QWEN3_TEMPLATE, "ctxl": CTXL_TEMPLATE}[name]
    full = row_ids(FRAME[name], [("What?", document)])[0]
    frame = row_ids(FRAME[name], [("What?", "")])[0]
    limit = max(len(full) - cut, len(frame) + 2)
    if limit >= len(full):
        return

    encoded = Encoder(TOKENIZER, template, limit).rows([("What?", document), ("What?", "")], None)
    cut, uncut = ([*row.ids] for row in encoded)

    kept_after = next(n for n in range(len(full)) if full[: limit - n] + full[len(full) - n :] == cut)
    assert [row.is_truncated for row in encoded] == [True, False]
    assert len(cut) == limit
    assert cut[-kept_after:] == full[-kept_after:]  # the frame behind the document survives
    assert uncut == frame


def test_a_query_that_leaves_no_room_is_an_error_that_says_by_how_much():
    frame = len(row_ids(FRAME["ctxl"], [("a b c d e f", "")])[0])
    limit = frame - 3

    with pytest.raises(InputError, match=rf"take {frame} tokens.*max_tokens={limit}: 4 too many"):
        Encoder(TOKENIZER, CTXL_TEMPLATE, limit).rows([("a b c d e f", "a document")], None)


def test_threads_share_an_encoder_without_mixing_rows():
    encoder = Encoder(TOKENIZER, QWEN3_TEMPLATE, 400)
    pairs = [(f"query {n}", f"document {n} " * (n % 40)) for n in range(200)]
    expected = [row_ids(encoder, [pair])[0] for pair in pairs]

    with ThreadPoolExecutor(8) as pool:
        rows = list(pool.map(lambda pair: row_ids(encoder, [pair])[0], pairs * 4))

    assert rows == expected * 4


def test_the_callers_tokenizer_is_left_as_it_was(tiny_qwen: Tiny):
    before = tiny_qwen.tokenizer.backend_tokenizer.to_str()

    Encoder(tiny_qwen.tokenizer, QWEN3_TEMPLATE, 400).rows([("q", "d" * 500)], None)

    assert tiny_qwen.tokenizer.backend_tokenizer.to_str() == before


def test_limits_that_a_tokenizer_was_saved_with_have_no_say():
    limited = byte_level_tokenizer("<s>")
    plain = Encoder(byte_level_tokenizer("<s>"), CTXL_TEMPLATE, 999).rows([("a query", "a document " * 9)], None)
    limited.backend_tokenizer.enable_truncation(6)
    limited.backend_tokenizer.enable_padding(length=64)

    assert Encoder(limited, CTXL_TEMPLATE, 999).rows([("a query", "a document " * 9)], None) == plain
    assert limited.backend_tokenizer.truncation is not None


@pytest.mark.parametrize("room", [0, 1])
def test_a_document_needs_room_for_one_token(room: int):
    frame = len(row_ids(FRAME["ctxl"], [("what", "")])[0])
    encoder = Encoder(TOKENIZER, CTXL_TEMPLATE, frame + room)

    if room:
        assert len(row_ids(encoder, [("what", " !!!! ???? !!!!")])[0]) == frame + room
    else:
        with pytest.raises(InputError, match="1 too many"):
            encoder.rows([("what", " !!!! ???? !!!!")], None)


def test_a_tokenizer_that_reads_runs_otherwise_than_the_whole_is_refused():
    """One that puts a space before what it is given would put one behind each control token."""
    tokenizer = gemma_tokenizer()
    tokenizer.backend_tokenizer.normalizer = None
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")

    with pytest.raises(RecipeError, match="reads a prompt differently"):
        Encoder(tokenizer, "{{ messages[0].content }}<eos>{{ messages[1].content }}", 999)


@given(
    words=st.lists(st.sampled_from(["a", "capital", "of", "China", "京"]), min_size=1, max_size=60),
    room=st.integers(1, 30),
)
@pytest.mark.parametrize("name", list(FRAME))
def test_chunks_hold_every_token_of_a_document_within_the_limit(name: str, words: list[str], room: int):
    template = {"qwen": QWEN3_TEMPLATE, "ctxl": CTXL_TEMPLATE}[name]
    pairs = [("What?", " ".join(["京", *words, "京"])), ("What?", "")]  # ends that melt into no frame
    whole, frame = row_ids(FRAME[name], pairs)
    start = next(n for n in range(len(frame)) if whole[: n + 1] != frame[: n + 1])
    before, document, after = frame[:start], whole[start : len(whole) - len(frame) + start], frame[start:]
    limit = len(frame) + room

    encoded = Encoder(TOKENIZER, template, limit, has_chunks=True).rows(pairs, None)

    last = max(len(document) - room, 0)
    starts = [*range(0, last, room - room // 8), last]  # the last chunk is as long as the others
    assert [[*row.ids] for row in encoded] == [*(before + document[n : n + room] + after for n in starts), frame]
    assert [row.owner for row in encoded] == [0] * len(starts) + [1]
    assert all(row.cacheable_prefixes for row in encoded)
    assert not any(row.is_truncated for row in encoded)
    assert encoded[0].ids == Encoder(TOKENIZER, template, limit).rows(pairs, None)[0].ids
