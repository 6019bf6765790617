"""A prompt to look at: its text, tokens, parts and answers are those of the rows that are scored."""

from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models
from transformers import BertConfig, GemmaConfig, MistralConfig

from onelogit import DEMO_MODEL, InputError, ReadOut, Recipe, Reranker
from onelogit.prompts.encoder import Encoder
from onelogit.prompts.tokenizer import token_text
from support.rows import encoder_of
from support.tiny import Tiny, byte_level_tokenizer, gemma_tokenizer, native_checkpoint, pair_tokenizer, tiny_parts

QUERY, DOCUMENT, INSTRUCTION = "What is <|im_end|> it?", " It is 1.\n", "Say <think>."


def test_a_familys_prompt_has_the_rows_ids_and_its_parts_make_the_text(family: Any, tmp_path: Path):
    parts = tiny_parts(family)
    bos = "<s>" if parts["config_class"] is MistralConfig else None
    is_gemma = parts["config_class"] is GemmaConfig
    answers = parts["answers"]
    tokenizer = gemma_tokenizer(answers) if is_gemma else byte_level_tokenizer(bos, answers, parts["largest_id"])
    encoder = Encoder(family, tokenizer, {})
    instruction = INSTRUCTION if encoder.takes_instruction else None

    prompt = encoder.describe(QUERY, DOCUMENT, instruction)

    (row,) = encoder.rows([(QUERY, DOCUMENT)], instruction)
    assert prompt.ids == row.ids
    assert str(prompt) == prompt.text == "".join(part.text for part in prompt.parts)
    assert [part.text for part in prompt.parts if part.kind == "query"] == [QUERY]
    assert [part.text.strip() for part in prompt.parts if part.kind == "document"] == [DOCUMENT.strip()]
    assert [part.text for part in prompt.parts if part.kind == "instruction"] == [INSTRUCTION] * bool(instruction)
    control = [part.text for part in prompt.parts if part.kind == "control"]
    assert {*control} <= {*tokenizer.get_added_vocab()}
    assert not prompt.is_cut
    assert prompt.unread == ""
    tokens = [family.read_out.true, *([] if family.read_out.false is None else [family.read_out.false])]
    assert len(prompt.answers) == len(tokens)
    for token, answer in zip(tokens, prompt.answers, strict=True):
        assert token in (answer.text, answer.id)


@pytest.mark.parametrize("long_documents", ["cut", "chunk_max"])
def test_the_cut_is_where_the_row_is_cut(long_documents: str, template: str):
    encoder = encoder_of(byte_level_tokenizer(), template, max_tokens=80, long_documents=long_documents)
    document = " The capital of China is Beijing." * 9

    prompt = encoder.describe("What?", document, None)

    rows = encoder.rows([("What?", document)], None)
    (read,) = [part.text for part in prompt.parts if part.kind == "document"]
    assert prompt.is_cut
    assert prompt.ids == rows[0].ids
    assert len(prompt.ids) == prompt.max_tokens == 80 < prompt.whole_token_count
    assert read + prompt.unread == document
    assert (prompt.chunk_count > 1) == (long_documents == "chunk_max")
    assert prompt.chunk_count == len(rows)
    ids = byte_level_tokenizer().backend_tokenizer.encode(prompt.text, add_special_tokens=False).ids
    assert ids == [*prompt.ids]


def test_a_pair_has_the_tokenizers_tokens_around_the_texts():
    encoder = encoder_of(pair_tokenizer("[CLS]", "[SEP]", "[SEP]"), None)

    prompt = encoder.describe(QUERY, DOCUMENT, None)

    kinds = [part.kind for part in prompt.parts]
    assert kinds == ["control", "query", "control", "document", "control"]
    assert prompt.text == f"[CLS]{QUERY}[SEP]{DOCUMENT}[SEP]"
    assert prompt.ids == encoder.rows([(QUERY, DOCUMENT)], None)[0].ids
    assert prompt.answers == ()


@pytest.mark.parametrize("document", ["", " ", "\n\n", "😀", "a\u0301"])
def test_any_document_is_shown_whole(document: str, template: str):
    encoder = encoder_of(byte_level_tokenizer(), template)

    prompt = encoder.describe("q", document, None)

    assert "".join(part.text for part in prompt.parts if part.kind == "document") == document
    assert prompt.ids == encoder.rows([("q", document)], None)[0].ids


def test_the_space_of_a_token_is_part_of_its_text():
    """Llama's decoder drops the space at the beginning of a text, but the token has it."""
    llama = Tokenizer(models.WordLevel({"▁yes": 0, "yes": 1}, unk_token="yes"))
    llama.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    qwen = byte_level_tokenizer().backend_tokenizer

    assert [token_text(id, llama) for id in (0, 1)] == [" yes", "yes"]
    assert token_text(qwen.encode("yes").ids[0], qwen) == "yes"
    assert token_text(qwen.token_to_id("<|im_end|>"), qwen) == "<|im_end|>"
    assert token_text(10**6, qwen) == ""


def test_a_reranker_shows_its_prompt_with_its_own_instruction(reranker: Reranker):
    prompt = reranker.prompt("What?", "This.")
    other = reranker.prompt("What?", "This.", instruction="Find it.")

    assert reranker.recipe.default_instruction in str(prompt)
    assert "Find it." in str(other)
    assert [answer.text for answer in prompt.answers] == ["yes", "no"]
    assert reranker.recipe.read_out is not None
    assert [answer.id for answer in prompt.answers] == [reranker.recipe.read_out.true, reranker.recipe.read_out.false]
    for wrong in (("", "d"), (3, "d"), ("q", None), ("q", "d", 4)):
        with pytest.raises(InputError):
            reranker.prompt(*wrong)  # type: ignore[arg-type]


def test_control_tokens_in_a_text_stay_text(reranker: Reranker, tiny_qwen: Tiny):
    prompt = reranker.prompt("<|im_end|>", "<|im_start|>assistant")

    assert [part.text for part in prompt.parts if part.kind == "control"].count("<|im_end|>") == 2
    with Reranker.load(tiny_qwen.folder, allow_control_tokens=True) as lenient:
        assert len(lenient.prompt("<|im_end|>", "<|im_start|>assistant").ids) < len(prompt.ids)


def test_an_encoder_has_a_prompt(tmp_path: Path):
    tokenizer = pair_tokenizer("[CLS]", "[SEP]", "[SEP]")
    folder = native_checkpoint(tmp_path / "encoder", BertConfig, tokenizer, num_labels=1)

    with Reranker.load(folder) as reranker:
        assert str(reranker.prompt("a", "b")) == "[CLS]a[SEP]b[SEP]"


def test_answers_by_id_have_their_texts():
    tokenizer = byte_level_tokenizer()
    yes = tokenizer.get_vocab()["yes"]
    template = "{{ messages[-2].content }} {{ messages[-1].content }}"
    recipe = Recipe(family="mine", chat_template=template, read_out=ReadOut(true=yes), source="a test")

    assert Encoder(recipe, tokenizer, {}).describe("q", "d", None).answers == (("yes", yes),)


def test_the_demo_models_prompt_is_plain_data_for_json():
    with Reranker.load(DEMO_MODEL) as reranker:
        content = reranker.prompt("q", "d").to_json()

    assert content["token_count"] == len(content["ids"])
    assert content["answers"][0]["text"] == "yes"
    assert content["parts"][0] == {"kind": "control", "text": "<|im_start|>"}
