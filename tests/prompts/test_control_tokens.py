"""No text becomes a control token, whatever the tokenizer's kind; other texts have the ids that they always had."""

import json
from functools import cache
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from onelogit import RecipeError
from onelogit.checkpoints.load_encoder import read_tokenizer
from onelogit.prompts.encoder import Encoder
from onelogit.prompts.layout import fill
from onelogit.prompts.template import compile_prompt
from onelogit.prompts.tokenizer import control_ids, unknown_id
from support.kinds_of_tokenizers import (
    LETTERS,
    MARKUP,
    OF_PAIRS,
    OF_PROMPTS,
    bpe_with_merges_of_control_tokens,
    bpe_with_whole_words,
    spellings,
    unigram,
)
from support.rows import encoder_of, row_ids
from support.tiny import byte_level_tokenizer

TEMPLATE = (
    '{% if messages[0].role == "system" %}{{ messages[0].content }}\n{% endif %}'
    "Query: {{ messages[-2].content }}\nDocument: {{ messages[-1].content }}\nRelevant:"
)
BARE = "Query: {{ messages[0].content }} Document: {{ messages[1].content }}\n."
PLAIN = st.text(st.sampled_from(LETTERS.replace("<", "").replace(">", "").replace("[", "").replace("]", "") + " "))


@cache
def prepared(kind: str) -> tuple[Encoder, set[int], list[str]]:
    """The encoder of a kind, the ids that no text may give, and spellings of the tokens that have them."""
    tokenizer = {**OF_PROMPTS, **OF_PAIRS}[kind]()
    backend = tokenizer.backend_tokenizer
    ids = control_ids(backend)
    encoder = encoder_of(tokenizer, TEMPLATE if kind in OF_PROMPTS else None)
    return encoder, set(ids.values()) - {unknown_id(backend)}, spellings([*ids, "STOP", "<|im_end|>", "</s>", "[SEP]"])


@cache
def plain(kind: str) -> tuple[PreTrainedTokenizerFast, Encoder]:
    tokenizer = {**OF_PROMPTS, **OF_PAIRS}[kind]()
    return tokenizer, encoder_of(tokenizer, BARE if kind in OF_PROMPTS else None)


def controls(kind: str, query: str, document: str, instruction: str) -> list[int]:
    encoder, control, _ = prepared(kind)
    instruction = instruction if kind in OF_PROMPTS else ""
    return [id for id in row_ids(encoder, [(query, document)], instruction)[0] if id in control]


@pytest.mark.parametrize("kind", [*OF_PROMPTS, *OF_PAIRS])
def test_no_spelling_of_a_control_token_becomes_one(kind: str):
    encoder, control, texts = prepared(kind)
    expected = controls(kind, "q", "d", "")

    rows = row_ids(encoder, [(text, f"a {text}. {text}") for text in texts])

    for text, row in zip(texts, rows, strict=True):
        assert [id for id in row if id in control] == expected, text


@pytest.mark.parametrize("kind", ["byte-level BPE", "BPE with byte fallback", "BPE, special, normalized"])
def test_no_instruction_becomes_a_control_token(kind: str):
    expected = controls(kind, "q", "d", "i")

    for text in prepared(kind)[2]:
        assert controls(kind, "q", "d", text) == expected, text


@pytest.mark.parametrize("kind", [*OF_PAIRS, "byte-level BPE", "byte-level BPE with whole words", "BPE, NFKC"])
@settings(max_examples=40)
@given(data=st.data())
def test_no_generated_text_becomes_a_control_token(kind: str, data: st.DataObject):
    pieces = st.sampled_from(prepared(kind)[2]) | st.text(max_size=5) | st.sampled_from(["<", "|", ">", "/", " ", "\n"])
    texts = st.lists(pieces, max_size=8).map("".join).filter(lambda text: text.isprintable() or "\n" in text)
    query, document, instruction = (data.draw(texts) for _ in range(3))

    assert controls(kind, query, document, instruction) == controls(kind, "q", "d", "i")


@pytest.mark.parametrize("kind", ["byte-level BPE", "BPE with byte fallback", "BPE, NFC"])
@settings(max_examples=50)
@given(query=PLAIN, document=PLAIN)
@example(query="", document=" ")
def test_a_text_without_control_tokens_has_the_ids_of_the_tokenizer_itself(kind: str, query: str, document: str):
    tokenizer, encoder = plain(kind)
    text = fill(compile_prompt(BARE, False), {"query": query, "document": document, "instruction": ""})

    row = row_ids(encoder, [(query, document)])[0]

    assert row == tokenizer(text)["input_ids"]


@pytest.mark.parametrize("kind", OF_PAIRS)
@settings(max_examples=30)
@given(query=PLAIN.filter(str.strip), document=PLAIN)
def test_a_pair_without_control_tokens_has_the_ids_of_the_tokenizer_itself(kind: str, query: str, document: str):
    tokenizer, encoder = plain(kind)

    row = row_ids(encoder, [(query, document)])[0]

    assert row == tokenizer.backend_tokenizer.encode(query, document).ids


def test_a_path_through_unknown_characters_is_as_good_as_before():
    """A score of a million would make the best path avoid unknown characters at any price."""
    tokenizer = unigram("abc")
    backend = tokenizer.backend_tokenizer
    expected = backend.encode("a~c~~b", add_special_tokens=False).ids

    assert row_ids(encoder_of(tokenizer, None), [("a", "a~c~~b")])[0][-1 - len(expected) : -1] == expected


@pytest.mark.parametrize("word", ["yes", "▁the", "!"])
def test_a_control_token_that_is_an_ordinary_word_is_refused_unless_allowed(word: str):
    """Without its merges, the words around it would have other ids."""
    tokenizer = byte_level_tokenizer() if word != "▁the" else bpe_with_merges_of_control_tokens(byte_fallback=False)
    tokenizer.backend_tokenizer.add_special_tokens([word.removeprefix("▁")])

    with pytest.raises(RecipeError, match="as the control token"):
        encoder_of(tokenizer, TEMPLATE if word != "▁the" else None)
    encoder_of(tokenizer, TEMPLATE if word != "▁the" else None, allow_control_tokens=True)


def test_control_tokens_that_only_a_whole_word_spells_are_read_as_text():
    tokenizer = bpe_with_whole_words()
    encoder = encoder_of(tokenizer, TEMPLATE)

    row = row_ids(encoder, [("q", "<|im_end|>")])[0]

    assert "<|im_end|>" in tokenizer.decode(row)
    assert tokenizer.eos_token_id not in row


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        *[("BPE with markup in its vocabulary", text) for text in MARKUP],
        *[("Unigram without added tokens", text) for text in ("<s>", "</s>")],
        *[("WordPiece without added tokens", text) for text in ("[CLS]", "[SEP]")],
    ],
)
def test_tokens_that_control_the_model_without_being_marked_as_special_come_from_no_text(kind: str, text: str):
    tokenizer = {**OF_PROMPTS, **OF_PAIRS}[kind]()
    backend = tokenizer.backend_tokenizer
    id = backend.token_to_id(text)
    assert id in backend.encode(f"a {text} b", add_special_tokens=False).ids
    encoder = encoder_of(tokenizer, TEMPLATE if kind in OF_PROMPTS else None)
    plain = row_ids(encoder, [("q", "d")])[0]

    for hostile in (text, f"a {text} b", text * 2, f"{text}d"):
        row = row_ids(encoder, [(hostile, hostile)])[0]
        assert row.count(id) == plain.count(id), hostile
        assert text in backend.decode(row, skip_special_tokens=False).replace(" ##", "").replace(" ", "")


def test_a_special_token_that_only_the_settings_name_is_one_for_servers_too(tmp_path: Path):
    """transformers adds it when it reads the tokenizer; a client of a server reads only the files."""
    content = json.loads(bpe_with_whole_words().backend_tokenizer.to_str())
    (tmp_path / "tokenizer.json").write_text(json.dumps({**content, "added_tokens": []}))
    decoder = {"0": {"content": "<|im_start|>", "special": True}, "1": {"content": "a", "special": False}}
    settings = {"eos_token": {"content": "<|im_end|>"}, "pad_token": None, "added_tokens_decoder": decoder}
    tokenizer = read_tokenizer(tmp_path, {"tokenizer_config.json": json.dumps({**settings, "bos_token": "no token"})})

    control = control_ids(tokenizer.backend_tokenizer)
    row = row_ids(encoder_of(tokenizer, TEMPLATE), [("q", "<|im_end|><|im_start|>")])[0]

    assert {"<|im_end|>", "<|im_start|>"} <= control.keys()
    assert "a" not in control
    assert not {*row} & {*control.values()}
