"""Weights that training code saved: with adapters, with wrappers in their names, in shards without an index."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, BertConfig, Qwen3Config

from onelogit import CheckpointError, Reranker
from onelogit.checkpoints.tensor_names import without_wrappers
from onelogit.checkpoints.weights import load_model
from onelogit.export.multi_label import save_labels
from onelogit.io.sample_pairs import bundled_pairs
from onelogit.verification.parity import measure_parity
from support.tiny import Tiny, native_checkpoint, pair_tokenizer

NAME = "Qwen3-Reranker-tiny"
QUERY, DOCUMENTS = "What is the capital of China?", ["The capital of China is Beijing.", "서울", ""]
ADAPTER = '{"peft_type": "LORA", "base_model_name_or_path": "org/base", "r": 8}'


def rename(folder: Path, new_name: Callable[[str], str]) -> Path:
    tensors = load_file(folder / "model.safetensors")
    save_file({new_name(name): tensor for name, tensor in tensors.items()}, folder / "model.safetensors")
    return folder


WRAPPED = {
    "torch.compile": lambda name: f"_orig_mod.{name}",
    "DDP": lambda name: f"module.{name}",
    "DDP of torch.compile": lambda name: f"module._orig_mod.{name}",
    "torch.compile of DDP": lambda name: f"_orig_mod.module.{name}",
    "torch.compile of the backbone": lambda name: name.replace("model.", "model._orig_mod.", 1),
    "torch.compile of each layer": lambda name: name.replace(".0.", ".0._orig_mod.").replace(".1.", ".1._orig_mod."),
    "DDP of the backbone": lambda name: name.replace("model.", "model.module.", 1),
    "FSDP": lambda name: f"_fsdp_wrapped_module.{name}".replace("self_attn", "_checkpoint_wrapped_module.self_attn"),
    "PEFT": lambda name: f"base_model.model.{name}",
    "DDP of PEFT": lambda name: f"module.base_model.model.{name}",
}


@pytest.mark.parametrize("is_tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("wrapper", WRAPPED)
def test_wrappers_in_tensor_names_are_removed(
    wrapper: str, is_tied: bool, checkpoint: Callable[..., Tiny], tmp_path: Path
):
    folder = checkpoint(NAME, is_tied=is_tied).folder
    expected = Reranker.load(folder).logits(QUERY, DOCUMENTS)

    reranker = Reranker.load(rename(folder, WRAPPED[wrapper]))
    reranker.save(tmp_path / "exported")

    assert reranker.logits(QUERY, DOCUMENTS) == expected
    assert Reranker.load(tmp_path / "exported").logits(QUERY, DOCUMENTS) == expected
    stored = load_file(tmp_path / "exported" / "model.safetensors")
    assert [*stored] == [*map(without_wrappers, stored)]


@pytest.mark.parametrize("wrapper", ["torch.compile", "DDP of PEFT"])
def test_verify_reads_wrapped_weights_of_the_original(wrapper: str, checkpoint: Callable[..., Tiny]):
    folder = rename(checkpoint(NAME).folder, WRAPPED[wrapper])

    assert measure_parity(str(folder), bundled_pairs()[:4], {"device": "cpu"}).agrees


def test_an_encoders_wrapped_weights_load_and_are_saved_without_the_wrapper(tmp_path: Path):
    tokenizer = pair_tokenizer("[CLS]", "[SEP]", "[SEP]", has_types=True)
    folder = native_checkpoint(tmp_path / "bert", BertConfig, tokenizer, num_labels=1)
    expected = pytest.approx(Reranker.load(folder).logits(QUERY, DOCUMENTS), abs=1e-5)

    reranker = Reranker.load(rename(folder, WRAPPED["torch.compile"]))
    reranker.save(tmp_path / "exported")

    assert reranker.logits(QUERY, DOCUMENTS) == expected
    assert Reranker.load(tmp_path / "exported").logits(QUERY, DOCUMENTS) == expected
    assert "bert.embeddings.word_embeddings.weight" in load_file(tmp_path / "exported" / "model.safetensors")


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        ("model.norm.weight", "base_model.model.model.layers.0.mlp.up_proj.base_layer.weight"),
        ("model.norm.weight", "base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight"),
        ("lm_head.weight", "lm_head.modules_to_save.default.weight"),
        ("lm_head.weight", "base_model.model.lm_head.original_module.weight"),
    ],
)
def test_weights_of_an_unmerged_adapter_are_refused(name: str, stored: str, checkpoint: Callable[..., Tiny]):
    folder = rename(checkpoint(NAME, is_tied=False).folder, lambda each: stored if each == name else each)

    with pytest.raises(CheckpointError, match=r"beside its model \(.*\); merge it with"):
        Reranker.load(folder)


def test_two_tensors_of_one_name_are_refused(checkpoint: Callable[..., Tiny]):
    folder = rename(
        checkpoint(NAME, is_tied=False).folder,
        lambda name: "_orig_mod.lm_head.weight" if name == "model.embed_tokens.weight" else name,
    )

    with pytest.raises(CheckpointError, match=r"two tensors for lm_head\.weight: .*_orig_mod\.lm_head\.weight"):
        Reranker.load(folder)


def test_shards_without_an_index_are_named(checkpoint: Callable[..., Tiny]):
    folder = checkpoint(NAME, max_shard_size="50KB").folder
    (folder / "model.safetensors.index.json").unlink()

    with pytest.raises(CheckpointError, match=r"shards \(model-00001-of-\d+\.safetensors \.\.\.\), but no model\.saf"):
        Reranker.load(folder)


def test_weights_of_another_file_name_are_named(checkpoint: Callable[..., Tiny]):
    folder = checkpoint(NAME).folder
    (folder / "model.safetensors").rename(folder / "final.safetensors")

    with pytest.raises(CheckpointError, match=r"no weights \(model\.safetensors\); final\.safetensors is another file"):
        Reranker.load(folder)


@pytest.mark.parametrize("content", [ADAPTER, "", "{"])
def test_an_adapter_beside_a_model_is_refused(content: str, checkpoint: Callable[..., Tiny]):
    folder = checkpoint(NAME, files={"adapter_config.json": content}).folder
    of_base = "of org/base " if content == ADAPTER else ""

    with pytest.raises(
        CheckpointError, match=rf"adapter \(LoRA\) {of_base}beside a model.*remove adapter_config\.json;"
    ):
        Reranker.load(folder)


def test_weights_of_an_adapter_beside_a_model_are_refused_by_all_that_read_it(
    checkpoint: Callable[..., Tiny], tmp_path: Path
):
    folder = checkpoint(NAME).folder
    save_file({}, folder / "adapter_model.safetensors")
    actions = [
        lambda: Reranker.load(folder),
        lambda: measure_parity(str(folder), bundled_pairs()[:1], {}),
        lambda: save_labels(str(folder), ["yes", "no"], tmp_path / "labels", {}),
    ]

    for act in actions:
        with pytest.raises(CheckpointError, match=r"remove adapter_model\.safetensors; if not, put them into"):
            act()


def test_an_adapter_in_a_folder_of_its_own_changes_nothing(checkpoint: Callable[..., Tiny]):
    expected = Reranker.load(checkpoint(NAME).folder).logits(QUERY, DOCUMENTS)
    folder = checkpoint(f"{NAME}-2", files={"lora/adapter_config.json": ADAPTER}).folder

    assert Reranker.load(folder).logits(QUERY, DOCUMENTS) == expected


@pytest.mark.parametrize("blocked", ["peft", "nothing"])
def test_an_adapter_is_refused_with_peft_and_without_it(blocked: str, checkpoint: Callable[..., Tiny]):
    folder = checkpoint(NAME, Qwen3Config, files={"adapter_config.json": ADAPTER}).folder
    program = (
        f"import sys; sys.modules[{blocked!r}] = None\n"
        "from onelogit import CheckpointError, Reranker\n"
        f"try: Reranker.load({str(folder)!r})\n"
        "except CheckpointError as error: print(error)\n"
    )

    ran = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)

    assert "contains a PEFT adapter (LoRA) of org/base beside a model" in ran.stdout


def test_layers_that_the_configuration_lacks_are_warned_of(tiny_qwen: Tiny, tmp_path: Path, caplog):
    folder = shutil.copytree(tiny_qwen.folder, tmp_path / tiny_qwen.folder.name)
    tensors = load_file(folder / "model.safetensors")
    extra = {"model.layers.2.mlp.up_proj.weight": tensors["model.layers.1.mlp.up_proj.weight"].clone()}
    head = {"lm_head.weight": torch.ones(2, 2), "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(2)}
    for further in (head, {**head, **extra}):
        save_file({**tensors, **further}, folder / "model.safetensors", metadata={"format": "pt"})
        caplog.clear()
        load_model(folder, AutoConfig.from_pretrained(folder), {}, is_backbone=True)
        warnings = [message for message in caplog.messages if "that its config.json does not declare" in message]
        assert len(warnings) == (further is not head)
    assert "1 weight in its layers" in warnings[0]
    assert "such as model.layers.2.mlp.up_proj.weight" in warnings[0]


def test_missing_weights_are_shown_with_the_names_that_are_there(tiny_qwen: Tiny, tmp_path: Path):
    folder = shutil.copytree(tiny_qwen.folder, tmp_path / tiny_qwen.folder.name)
    tensors = load_file(folder / "model.safetensors")
    renamed = {f"llm.{name}": tensor for name, tensor in tensors.items()}
    save_file(renamed, folder / "model.safetensors", metadata={"format": "pt"})

    with pytest.raises(CheckpointError, match=r"such as embed_tokens.weight; its weights .* such as llm\.model\.emb"):
        Reranker.load(folder)


@pytest.mark.parametrize("content", [{"weight_map": {"a": 3}}, {"weight_map": []}, []])
def test_a_damaged_index_is_named(tiny_qwen: Tiny, tmp_path: Path, content: object):
    folder = shutil.copytree(tiny_qwen.folder, tmp_path / tiny_qwen.folder.name)
    (folder / "model.safetensors.index.json").write_text(json.dumps(content))

    with pytest.raises(CheckpointError, match=r"model\.safetensors\.index\.json is damaged"):
        Reranker.load(folder)
