"""Checkpoints that cannot be used: one clear error for each, before weights are read if possible."""

import json
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models
from transformers import Qwen3Config, Qwen3ForCausalLM

from onelogit import CheckpointError, InputError, ReadOut, Recipe, RecipeError, Reranker, UnsupportedModelError
from onelogit.local import reranker as reranker_module
from onelogit.prompts.tokenizer import token_id
from onelogit.recipes.templates import QWEN3_TEMPLATE
from support.tiny import Tiny

NAME = "Qwen3-Reranker-tiny"


def recipe(true: int | str, false: int | str | None = None) -> Recipe:
    return Recipe(
        family="mine", chat_template=QWEN3_TEMPLATE, read_out=ReadOut(true=true, false=false), source="this test"
    )


@pytest.mark.parametrize("model", ["no-such/model", "./nowhere", "/nowhere/at/all", "a/b/c", "what is this?"])
def test_an_unknown_model_is_not_found(model: str):
    with pytest.raises(CheckpointError, match=r"no folder|neither a local folder nor found"):
        Reranker.load(model)


def test_the_home_folder_of_an_unknown_user_is_refused():
    with pytest.raises(InputError, match="cannot expand '~nobody-of-that-name/x': no such user"):
        Reranker.load("~nobody-of-that-name/x")


def test_a_folder_without_a_config_is_not_a_checkpoint(tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        Reranker.load(tmp_path)


def test_a_causal_model_without_a_recipe_is_refused(checkpoint: Callable[..., Tiny]):
    with pytest.raises(RecipeError, match="no recipe is known"):
        Reranker.load(checkpoint("some-chat-model").folder)


@pytest.mark.parametrize(
    ("true", "false", "complaint"),
    [
        (10**6, None, "token id 1000000 is outside the vocabulary"),
        (-1, None, "token id -1 is outside the vocabulary"),
        ("yes and no", None, "must be one token"),
        ("", None, "must be one token"),
        ("yes", "yes", "a different false token"),
    ],
)
def test_a_read_out_without_valid_tokens_is_refused(
    true: int | str, false: str | None, complaint: str, tiny_qwen: Tiny
):
    with pytest.raises(RecipeError, match=complaint):
        Reranker.load(tiny_qwen.folder, recipe=recipe(true, false))


def test_a_truncated_weights_file_is_damaged(checkpoint: Callable[..., Tiny]):
    folder = checkpoint(NAME).folder
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])

    with pytest.raises(CheckpointError, match="damaged or incomplete"):
        Reranker.load(folder)


def test_a_missing_shard_is_named(checkpoint: Callable[..., Tiny]):
    folder = checkpoint(NAME, max_shard_size="50KB").folder
    shard = sorted(folder.glob("*.safetensors"))[1]
    shard.unlink()

    with pytest.raises(CheckpointError, match=f"lacks {shard.name}"):
        Reranker.load(folder)


@pytest.mark.parametrize("lost", ["model.layers.1.mlp.up_proj.weight", "lm_head.weight"])
def test_missing_weights_are_an_error_and_never_random(lost: str, checkpoint: Callable[..., Tiny]):
    folder = checkpoint(NAME, is_tied=False).folder
    tensors = load_file(folder / "model.safetensors")
    del tensors[lost]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})

    with pytest.raises(CheckpointError, match=lost.removeprefix("model.")):
        Reranker.load(folder)


def test_pickled_weights_are_refused_with_advice(checkpoint: Callable[..., Tiny]):
    tiny = checkpoint(NAME)
    (tiny.folder / "model.safetensors").unlink()
    torch.save(tiny.model.state_dict(), tiny.folder / "pytorch_model.bin")

    with pytest.raises(CheckpointError, match=r"\.bin.*save_pretrained"):
        Reranker.load(tiny.folder)


@pytest.mark.parametrize("index", ["{", "{}", "[]"])
def test_a_damaged_index_is_a_clear_error(index: str, checkpoint: Callable[..., Tiny]):
    folder = checkpoint(NAME, max_shard_size="50KB").folder
    (folder / "model.safetensors.index.json").write_text(index)

    with pytest.raises(CheckpointError, match=r"index\.json is damaged"):
        Reranker.load(folder)


def test_weights_of_other_shapes_are_a_clear_error(checkpoint: Callable[..., Tiny]):
    folder = checkpoint(NAME).folder
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 128}))

    with pytest.raises(CheckpointError, match="the shapes of weights in"):
        Reranker.load(folder)


def test_a_checkpoint_without_a_tokenizer_is_a_clear_error(checkpoint: Callable[..., Tiny]):
    folder = checkpoint(NAME).folder
    for file in folder.glob("tokenizer*"):
        file.unlink()

    with pytest.raises(CheckpointError, match="tokenizer"):
        Reranker.load(folder)


@pytest.mark.parametrize("model", ["", None, 5])
def test_a_model_must_be_a_name_or_a_path(model: object):
    with pytest.raises(InputError, match=r"name is empty|must be a hub id or a path"):
        Reranker.load(model)  # type: ignore[arg-type]


def test_a_folder_has_no_revision(tiny_qwen: Tiny):
    with pytest.raises(InputError, match="has no revision 'v9'"):
        Reranker.load(tiny_qwen.folder, revision="v9")


def test_a_folder_without_weights_is_a_clear_error(checkpoint: Callable[..., Tiny]):
    folder = checkpoint(NAME).folder
    (folder / "model.safetensors").unlink()

    with pytest.raises(CheckpointError, match="has no weights"):
        Reranker.load(folder)


@pytest.mark.parametrize("field", ["final_logit_softcapping", "logit_scale"])
def test_logits_changed_after_the_head_are_refused(field: str, checkpoint: Callable[..., Tiny]):
    folder = checkpoint(NAME).folder
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, field: 30.0}))

    with pytest.raises(UnsupportedModelError, match=f"{field}=30.0"):
        Reranker.load(folder)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"recipe": 3}, "not a int"),
        ({"dtype": "int3"}, "unknown dtype 'int3'"),
        ({"max_tokens": 0}, "max_tokens must be a whole number from 1 up"),
        ({"max_tokens": 10**6}, "exceeds the 2048 tokens"),
        ({"batch_tokens": -5}, "batch_tokens must be"),
        ({"activation": "softmax"}, "unknown activation 'softmax'"),
        ({"instruction": 3}, "the instruction must be a string"),
        ({"topn": 5}, "unknown option 'topn': topn is top_n here, and top_n is an argument of rank"),
        ({"depth": 5}, "unknown option 'depth'; the options are .*device"),
    ],
)
def test_an_option_out_of_range_is_refused(options: dict, complaint: str, tiny_qwen: Tiny):
    with pytest.raises(InputError, match=complaint):
        Reranker.load(tiny_qwen.folder, **options)


def test_loading_without_problems_logs_nothing(checkpoint: Callable[..., Tiny], capfd: pytest.CaptureFixture[str]):
    folder = checkpoint(NAME, Qwen3Config, is_tied=False).folder
    capfd.readouterr()

    Reranker.load(folder)

    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("licence", ["cc-by-nc-sa-4.0", "acme-noncommercial", "[mit, cc-by-nc-4.0]"])
def test_a_non_commercial_licence_is_mentioned(
    licence: str, checkpoint: Callable[..., Tiny], caplog: pytest.LogCaptureFixture
):
    folder = checkpoint(NAME, files={"README.md": f"---\nlicense: {licence}\n---\n"}).folder

    with caplog.at_level(logging.WARNING):
        reranker = Reranker.load(folder)

    assert reranker.licence == licence.strip("[]")
    assert f"{reranker.licence}: not for commercial use" in caplog.text


def test_a_model_that_attends_in_both_directions_is_refused(checkpoint: Callable[..., Tiny]):
    folder = checkpoint(NAME).folder
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "use_bidirectional_attention": True}))

    with pytest.raises(UnsupportedModelError, match="both directions"):
        Reranker.load(folder)


def test_a_checkpoint_whose_config_names_no_dtype_keeps_the_stored_one(checkpoint: Callable[..., Tiny]):
    folder = checkpoint(NAME).folder
    tensors = {name: tensor.bfloat16() for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config.pop("dtype")
    (folder / "config.json").write_text(json.dumps(config))

    assert Reranker.load(folder).classifier.dtype == torch.bfloat16


def test_an_index_cannot_point_outside_the_folder(checkpoint: Callable[..., Tiny]):
    folder = checkpoint(NAME, max_shard_size="50KB").folder
    index = folder / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["weight_map"]["lm_head.weight"] = "../../elsewhere.safetensors"
    index.write_text(json.dumps(content))

    with pytest.raises(CheckpointError, match="outside the folder"):
        Reranker.load(folder)


def test_float16_is_computed_as_float32_on_a_cpu(checkpoint: Callable[..., Tiny]):
    folder = checkpoint(NAME).folder
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "dtype": "float16"}))

    assert Reranker.load(folder, device="cpu").classifier.dtype == torch.float32
    assert Reranker.load(folder, device="cpu", dtype="float16").classifier.dtype == torch.float16


def test_an_answer_that_the_tokenizer_does_not_know_is_refused():
    tokenizer = Tokenizer(models.WordLevel({"yes": 0, "[UNK]": 1}, unk_token="[UNK]"))

    assert token_id("yes", tokenizer, "[UNK]") == 0
    with pytest.raises(RecipeError, match=r"must be one token.*reads it as \[1\]"):
        token_id("maybe", tokenizer, "[UNK]")


def test_bfloat16_is_used_if_the_hardware_supports_it(checkpoint: Callable[..., Tiny], monkeypatch: pytest.MonkeyPatch):
    folder = checkpoint("Qwen3-Reranker-half").folder
    Qwen3ForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).save_pretrained(folder)
    dtypes = []
    for can in (True, False):
        monkeypatch.setattr("onelogit.checkpoints.device.has_bfloat16", lambda device, can=can: can)
        dtypes.append(Reranker.load(folder).classifier.dtype)

    assert dtypes == [torch.bfloat16, torch.float32]


def test_models_are_loaded_one_at_a_time(tiny_qwen: Tiny, monkeypatch: pytest.MonkeyPatch):
    """transformers patches torch while it loads; two loads at the same time would leave the patches in place."""
    loading, most_loading = [], []
    load = reranker_module.load_checkpoint

    def noted(*args: object) -> object:
        loading.append(1)
        most_loading.append(len(loading))
        time.sleep(0.05)
        try:
            return load(*args)
        finally:
            loading.pop()

    monkeypatch.setattr(reranker_module, "load_checkpoint", noted)
    with ThreadPoolExecutor(4) as pool:
        rerankers = list(pool.map(lambda _: Reranker.load(tiny_qwen.folder), range(4)))

    assert most_loading == [1, 1, 1, 1]
    assert len({tuple(reranker.logits("q", ["d"])) for reranker in rerankers}) == 1
