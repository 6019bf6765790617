"""Heads that cannot rank, of zeros or of NaN, are refused by name when they are loaded."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, ModernBertConfig, Qwen3Config, RobertaConfig

from onelogit import CheckpointError, ReadOut, Recipe, RecipeError, Reranker
from onelogit.recipes.templates import QWEN3_TEMPLATE
from support.tiny import Tiny, byte_level_tokenizer, native_checkpoint, pair_tokenizer

NAME = "Qwen3-Reranker-tiny"
ZERO, NOT_A_NUMBER = "is zero, so every document would get the same logit", "has weights that are NaN or infinite"


def change(folder: Path, name: str, act: Callable[[torch.Tensor], object]) -> Path:
    tensors = load_file(folder / "model.safetensors")
    act(tensors[name])
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


def fill(value: float) -> Callable[[torch.Tensor], object]:
    return lambda tensor: tensor.fill_(value)


@pytest.mark.parametrize(
    ("value", "complaint"), [(0.0, ZERO), (1.0, ZERO), (math.nan, NOT_A_NUMBER), (math.inf, NOT_A_NUMBER)]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_equal_rows_of_a_language_model_head_are_refused(
    value: float, complaint: str, dtype: torch.dtype, checkpoint: Callable[..., Tiny]
):
    tiny = checkpoint(NAME, is_tied=False)
    yes, no = (tiny.tokenizer.encode(word)[0] for word in ("yes", "no"))
    folder = change(tiny.folder, "lm_head.weight", fill(value))
    tensors = {name: tensor.to(dtype) for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})

    with pytest.raises(CheckpointError, match=rf"row of token {yes} minus that of token {no} {complaint}"):
        Reranker.load(folder)


def test_one_row_that_is_not_a_number_is_refused_only_if_it_is_used(checkpoint: Callable[..., Tiny]):
    tiny = checkpoint(NAME, is_tied=False)
    no = tiny.tokenizer.encode("no")[0]
    folder = change(tiny.folder, "lm_head.weight", lambda tensor: tensor[no].fill_(math.nan))
    recipe = Recipe(family="mine", chat_template=QWEN3_TEMPLATE, read_out=ReadOut(true="yes"), source="this test")

    assert len(Reranker.load(folder, recipe=recipe).logits("q", ["d"])) == 1
    with pytest.raises(CheckpointError, match=NOT_A_NUMBER):
        Reranker.load(folder)


def test_tied_embeddings_that_are_equal_are_refused(checkpoint: Callable[..., Tiny]):
    tiny = checkpoint(NAME)
    yes, no = (tiny.tokenizer.encode(word)[0] for word in ("yes", "no"))
    folder = change(tiny.folder, "model.embed_tokens.weight", lambda tensor: tensor[no].copy_(tensor[yes]))

    with pytest.raises(CheckpointError, match=ZERO):
        Reranker.load(folder)


def test_a_scale_of_zero_is_refused(checkpoint: Callable[..., Tiny]):
    read_out = {"true": "yes", "scale": 0.0}
    recipe = {"family": "mine", "chat_template": QWEN3_TEMPLATE, "read_out": read_out, "source": "this test"}

    with pytest.raises(RecipeError, match="scale cannot be 0.0: write a number other than 0"):
        Reranker.load(checkpoint(NAME).folder, recipe=recipe)


def decoder(folder: Path, labels: int = 1) -> Path:
    shape = {"num_key_value_heads": 1, "head_dim": 32, "use_sep_token": False}
    return native_checkpoint(folder, Qwen3Config, byte_level_tokenizer(), num_labels=labels, **shape)


@pytest.mark.parametrize("has_template", [True, False])
@pytest.mark.parametrize(("value", "complaint"), [(0.0, ZERO), (math.nan, NOT_A_NUMBER), (-math.inf, NOT_A_NUMBER)])
def test_a_decoders_own_head_that_cannot_rank_is_refused(
    value: float, complaint: str, has_template: bool, template: str, tmp_path: Path
):
    folder = change(decoder(tmp_path / "model"), "score.weight", fill(value))
    recipe = Recipe(family="mine", chat_template=template if has_template else None, read_out=None, source="this test")

    with pytest.raises(CheckpointError, match=rf"cannot rank: score.* {complaint}"):
        Reranker.load(folder, recipe=recipe)


def test_two_labels_with_equal_rows_are_refused(tmp_path: Path):
    folder = change(decoder(tmp_path / "decoder", 2), "score.weight", fill(1.0))
    with pytest.raises(CheckpointError, match=ZERO):
        Reranker.load(folder)

    tokenizer = pair_tokenizer("[CLS]", "[SEP]", "[SEP]")
    encoder = native_checkpoint(tmp_path / "encoder", BertConfig, tokenizer, num_labels=2)
    with pytest.raises(CheckpointError, match=rf"cannot rank: classifier {ZERO}"):
        Reranker.load(change(encoder, "classifier.weight", fill(0.5)))


@pytest.mark.parametrize(
    ("config_class", "name"),
    [
        (BertConfig, "classifier.weight"),  # only its bias is left
        (BertConfig, "bert.pooler.dense.weight"),
        (RobertaConfig, "classifier.dense.weight"),
        (RobertaConfig, "classifier.out_proj.weight"),
        (ModernBertConfig, "head.norm.weight"),
        (ModernBertConfig, "classifier.weight"),
    ],
)
@pytest.mark.parametrize(("value", "complaint"), [(0.0, ZERO), (math.nan, NOT_A_NUMBER)])
def test_an_encoders_head_that_cannot_rank_is_refused(
    config_class: type, name: str, value: float, complaint: str, tmp_path: Path
):
    tokenizer = pair_tokenizer("[CLS]", "[SEP]", "[SEP]")
    folder = native_checkpoint(tmp_path / "encoder", config_class, tokenizer, num_labels=1)

    with pytest.raises(CheckpointError, match=rf"cannot rank: {name.removesuffix('.weight')} {complaint}"):
        Reranker.load(change(folder, name, fill(value)))


@pytest.mark.parametrize("has_template", [True, False])
def test_a_missing_own_head_is_named_and_never_random(has_template: bool, template: str, tmp_path: Path):
    folder = decoder(tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    del tensors["score.weight"]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    recipe = Recipe(family="mine", chat_template=template if has_template else None, read_out=None, source="this test")

    with pytest.raises(CheckpointError, match=r"score\.weight"):
        Reranker.load(folder, recipe=recipe)
