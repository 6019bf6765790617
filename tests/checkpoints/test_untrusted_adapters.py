"""An adapter by strangers: what its settings ask for is compared with its weights before PEFT allocates it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from onelogit import CheckpointError, ModelSpec, Reranker
from onelogit.checkpoints.fingerprint import model_label
from support.tiny import Tiny
from support.untrusted import refused_at_once

pytest.importorskip("peft")

CARD = {"README.md": "---\nbase_model: Qwen/Qwen3-Reranker-0.6B\n---\n"}
SETTINGS = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM"}


@pytest.fixture
def adapter(checkpoint: Callable[..., Tiny], tmp_path: Path) -> Path:
    base, folder = checkpoint("base", files=CARD).folder, tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({**SETTINGS, "base_model_name_or_path": str(base)}))
    names = [f"base_model.model.model.layers.{layer}.self_attn.q_proj.lora_" for layer in range(2)]
    tensors = {f"{name}A.weight": np.ones((4, 64), "float32") for name in names}
    tensors |= {f"{name}B.weight": np.ones((64, 4), "float32") for name in names}
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


def change(folder: Path, **fields: object) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


def test_the_adapter_itself_is_merged(adapter: Path):
    with Reranker.load(adapter) as reranker:
        assert reranker.logits("a", ["b"])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("r", 9_999_999),
        ("r", 10**12),
        ("r", 65),
        ("rank_pattern", {"q_proj": 10**9}),
        ("rank_pattern", {"q_proj": 1e30}),
        ("oft_block_size", 10**9),
    ],
)
def test_a_rank_beyond_the_weights_is_refused_before_it_is_allocated(name: str, value: object, adapter: Path):
    change(adapter, **{name: value})

    refused_at_once(adapter, rf"declares {name}=|of at most 10,000,000")


@pytest.mark.parametrize("tokens", [[10**9], {"embed_tokens": [10**9]}, ["a"], [-1], 10**9, {"embed_tokens": 10**9}])
def test_a_token_beyond_any_vocabulary_is_refused(tokens: object, adapter: Path):
    change(adapter, trainable_token_indices=tokens)

    refused_at_once(adapter, "trains the token .*adapter_config.json is damaged")


@pytest.mark.parametrize("name", ["score.weight", "lm_head.weight", "model.embed_tokens.weight"])
@pytest.mark.parametrize("shape", [(), (0, 64)])
def test_a_whole_head_without_rows_is_damaged(name: str, shape: tuple[int, ...], adapter: Path):
    file = adapter / "adapter_model.safetensors"
    save_file({**load_file(file), f"base_model.model.{name}": np.ones(shape, "float32")}, file)

    refused_at_once(adapter, f"is damaged: its tensor .*{name}")


def test_a_label_does_not_read_a_header_without_bounds(adapter: Path):
    with (adapter / "adapter_model.safetensors").open("wb") as stream:
        stream.write((2**32).to_bytes(8, "little"))
        stream.truncate(2**33)

    with pytest.raises(CheckpointError, match="its header has 4,294,967,296 bytes"):
        model_label(ModelSpec(str(adapter)))


def test_an_adapter_from_the_hub_chooses_no_folder_of_this_machine(adapter: Path, tmp_path: Path):
    cache, commit = tmp_path / "cache", "a" * 40
    snapshot = cache / "models--org--adapter" / "snapshots" / commit
    shutil.copytree(adapter, snapshot)
    (cache / "models--org--adapter" / "refs").mkdir()
    (cache / "models--org--adapter" / "refs" / "main").write_text(commit)
    base = json.loads((adapter / "adapter_config.json").read_text())["base_model_name_or_path"]
    options = {"cache_dir": cache, "local_files_only": True}

    with pytest.raises(CheckpointError, match="from the hub that names a folder of this machine, .* with base_model="):
        Reranker.load("org/adapter", **options)
    Reranker.load("org/adapter", base_model=base, **options).close()
