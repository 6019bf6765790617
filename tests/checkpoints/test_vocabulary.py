"""A tokenizer that does not fit its model is refused when it is loaded; padding and unused tokens are no fault."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken
from transformers import AutoTokenizer, BertConfig, LlamaConfig, MistralConfig

from onelogit import CheckpointError, ReadOut, Recipe, RecipeError, Reranker
from onelogit.recipes.templates import QWEN3_TEMPLATE
from support.reference import causal_logit, prompt_ids
from support.tiny import Tiny, byte_level_tokenizer, native_checkpoint, pair_tokenizer

NAME = "Qwen3-Reranker-tiny"
QUERY, DOCUMENTS = "What is the capital of China?", ["The capital of China is Beijing.", "서울", ""]


def with_embeddings(folder: Path, count: int) -> Path:
    """The checkpoint with so many embeddings: fewer, or more of zeros."""
    tensors = load_file(folder / "model.safetensors")
    for name, tensor in tensors.items():
        if "embed_tokens" in name or "lm_head" in name or "word_embeddings" in name:
            more = torch.zeros(max(0, count - len(tensor)), tensor.shape[1])
            tensors[name] = torch.cat([tensor[:count], more]).clone()
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": count}))
    return folder


def add_tokens(folder: Path, *tokens: str, **special: str) -> Path:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([AddedToken(token, special=True) for token in tokens])
    tokenizer.add_special_tokens(special)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("is_tied", [True, False], ids=["tied", "untied"])
def test_more_embeddings_than_tokens_are_padding(is_tied: bool, checkpoint: Callable[..., Tiny]):
    folder = checkpoint(NAME, is_tied=is_tied).folder
    expected = Reranker.load(folder).logits(QUERY, DOCUMENTS)

    assert Reranker.load(with_embeddings(folder, 512)).logits(QUERY, DOCUMENTS) == expected


@pytest.mark.parametrize("is_tied", [True, False], ids=["tied", "untied"])
def test_a_prompt_whose_control_tokens_have_no_embedding_is_refused(is_tied: bool, checkpoint: Callable[..., Tiny]):
    tiny = checkpoint(NAME, is_tied=is_tied)
    first_control = tiny.tokenizer.convert_tokens_to_ids("<|endoftext|>")

    with pytest.raises(
        CheckpointError, match=rf"does not fit the model: the prompt .*embeddings for {first_control} ids"
    ):
        Reranker.load(with_embeddings(tiny.folder, first_control))


def test_a_vocabulary_that_is_larger_than_the_embeddings_is_refused(checkpoint: Callable[..., Tiny]):
    with pytest.raises(CheckpointError, match="does not fit the model: .*embeddings for 200 ids"):
        Reranker.load(with_embeddings(checkpoint(NAME).folder, 200))


def test_an_encoder_with_a_smaller_vocabulary_is_refused(tmp_path: Path):
    folder = native_checkpoint(tmp_path / "bert", BertConfig, pair_tokenizer("[CLS]", "[SEP]", "[SEP]"), num_labels=1)

    with pytest.raises(CheckpointError, match=r"the prompt may have the id \d+ \('\[SEP\]'\), but .* ids"):
        Reranker.load(with_embeddings(folder, len(AutoTokenizer.from_pretrained(folder)) - 1))


def test_added_tokens_that_no_prompt_contains_are_no_fault(checkpoint: Callable[..., Tiny]):
    tiny = checkpoint(NAME)
    expected = Reranker.load(tiny.folder).logits(QUERY, DOCUMENTS)
    add_tokens(tiny.folder, "<|unused|>")
    assert len(AutoTokenizer.from_pretrained(tiny.folder)) == tiny.model.config.vocab_size + 1

    reranker = Reranker.load(tiny.folder)

    assert reranker.logits(QUERY, DOCUMENTS) == expected
    assert len(reranker.logits("<|unused|>", ["<|unused|>"])) == 1
    with pytest.raises(CheckpointError, match=r"a text may have the id \d+ \('<\|unused\|>'\)"):
        Reranker.load(tiny.folder, allow_control_tokens=True)


@pytest.mark.parametrize("config_class", [LlamaConfig, MistralConfig])
def test_a_padding_token_without_an_embedding_is_replaced(
    config_class: type, checkpoint: Callable[..., Tiny], template: str, tmp_path: Path
):
    tiny = checkpoint("model", config_class)
    add_tokens(tiny.folder, pad_token="[PAD]")
    recipe = Recipe(family="mine", chat_template=template, read_out=ReadOut(true="yes"), source="this test")

    reranker = Reranker.load(tiny.folder, recipe=recipe)

    expected = [causal_logit(tiny, ReadOut(true="yes"), prompt_ids(tiny, recipe, QUERY, each)) for each in DOCUMENTS]
    assert reranker.logits(QUERY, DOCUMENTS) == pytest.approx(expected, abs=1e-5)
    assert reranker.classifier.config.pad_token_id < tiny.model.config.vocab_size


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (10**6, "token id 1000000 is outside the vocabulary of"),
        (400, "token id 400 is outside the vocabulary of"),  # of the padding of the embeddings
        (-1, "token id -1 is outside the vocabulary of"),
        ("maybe so", "must be one token"),
    ],
)
def test_an_answer_that_is_no_token_is_refused(answer: int | str, complaint: str, checkpoint: Callable[..., Tiny]):
    folder = with_embeddings(checkpoint(NAME).folder, 512)
    read_out = ReadOut(true="yes", false=answer)
    recipe = Recipe(family="mine", chat_template=QWEN3_TEMPLATE, read_out=read_out, source="this test")

    with pytest.raises(RecipeError, match=complaint):
        Reranker.load(folder, recipe=recipe)


def test_an_answer_without_an_embedding_is_refused(checkpoint: Callable[..., Tiny]):
    tiny = checkpoint(NAME)
    add_tokens(tiny.folder, "<|score|>")
    recipe = Recipe(family="mine", chat_template=QWEN3_TEMPLATE, read_out=ReadOut(true="<|score|>"), source="this test")

    with pytest.raises(CheckpointError, match=r"an answer may have the id \d+ \('<\|score\|>'\)"):
        Reranker.load(tiny.folder, recipe=recipe)


def test_a_bos_token_without_an_embedding_is_refused(checkpoint: Callable[..., Tiny]):
    tiny = checkpoint(NAME)
    byte_level_tokenizer("<s>").save_pretrained(tiny.folder)

    with pytest.raises(CheckpointError, match="does not fit the model"):
        Reranker.load(with_embeddings(tiny.folder, len(byte_level_tokenizer("<s>")) - 5))
