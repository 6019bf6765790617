"""Where an adapter's base model is found, and what an adapter without a usable one, or with unusable files, says."""

import json
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from huggingface_hub.errors import GatedRepoError
from safetensors.torch import load_file, save_file

from onelogit import (
    CheckpointError,
    InputError,
    ModelSpec,
    RemoteReranker,
    Reranker,
)
from onelogit.checkpoints import hub
from onelogit.checkpoints.fingerprint import model_label, portable_spec
from onelogit.checkpoints.resolve import resolve_model
from support.tiny import Tiny

CARD = {"README.md": "---\nbase_model: Qwen/Qwen3-Reranker-0.6B\nlicense: apache-2.0\n---\n"}
QUERY, DOCUMENTS = "What is the capital of China?", ["The capital of China is Beijing.", "서울", ""]
SETTINGS = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM"}


def write_adapter(folder: Path, base: object, *, scale: float = 0.1, **fields: object) -> Path:
    """An adapter of a tiny Qwen3, written without peft."""
    import torch

    folder.mkdir(parents=True)
    settings = {**SETTINGS, "base_model_name_or_path": base if base is None else str(base), **fields}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    generator = torch.Generator().manual_seed(1)
    tensors = {}
    for layer in range(2):
        name = f"base_model.model.model.layers.{layer}.self_attn.q_proj"
        tensors[f"{name}.lora_A.weight"] = torch.randn((4, 64), generator=generator)
        tensors[f"{name}.lora_B.weight"] = torch.randn((64, 4), generator=generator) * scale
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture
def base(checkpoint: Callable[..., Tiny]) -> Path:
    return checkpoint("base", files=CARD).folder


def refused(folder: Path, reason: str, kind: type[Exception] = CheckpointError, **options: Any) -> None:
    with pytest.raises(kind, match=reason):
        Reranker.load(folder, **options)


def test_a_relative_base_begins_in_the_working_directory_or_beside_the_adapter(base: Path, monkeypatch, tmp_path: Path):
    absolute = resolve_model(ModelSpec(write_adapter(tmp_path / "a", base)))
    monkeypatch.chdir(tmp_path)

    in_directory = resolve_model(ModelSpec(write_adapter(tmp_path / "b", "base")))
    monkeypatch.chdir("/")
    beside = resolve_model(ModelSpec(write_adapter(tmp_path / "c", "../base")))

    assert {found.recipe.family for found in (absolute, in_directory, beside)} == {"qwen3-reranker"}
    assert absolute.folder == base
    assert beside.folder.samefile(base)


def test_the_caller_names_the_base_that_the_adapter_cannot(base: Path, tmp_path: Path):
    folder = write_adapter(tmp_path / "adapter", "/home/trainer/models/Qwen3-Reranker-0.6B")

    refused(folder, r"is a PEFT adapter of '/home/trainer/.*there is no folder .*with base_model= \(for a command: --b")
    found = resolve_model(ModelSpec(folder, options={"base_model": base}))

    assert found.recipe.family == "qwen3-reranker"
    assert found.folder == base


@pytest.mark.parametrize("named", [None, "", 3])
def test_an_adapter_that_names_no_base_is_refused(named: object, tmp_path: Path):
    folder = write_adapter(tmp_path / "adapter", None)
    (folder / "adapter_config.json").write_text(json.dumps({**SETTINGS, "base_model_name_or_path": named}))

    refused(folder, r"names no base model; name its base model, a hub id or a folder, with base_model=")


def test_a_base_that_is_not_in_the_cache_is_named(tmp_path: Path):
    folder = write_adapter(tmp_path / "adapter", "nobody/none")

    refused(folder, r"adapter of 'nobody/none', which it needs: .*nor in the cache", local_files_only=True)


def test_a_base_whose_path_cannot_be_read_is_named(tmp_path: Path):
    folder = write_adapter(tmp_path / "adapter", "x" * 3000)

    refused(folder, r"which it needs: .*cannot be read: File name too long; if it is elsewhere, name .* base_model=")


def test_a_gated_base_is_named_with_its_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = write_adapter(tmp_path / "adapter", "meta-llama/Llama-2-7b-hf")
    response = httpx.Response(403, request=httpx.Request("GET", "https://huggingface.co"))

    def refuse(*_: object, **__: object) -> None:
        raise GatedRepoError("403 Client Error. (Request ID: x)\n\nCannot access gated repo", response=response)

    monkeypatch.setattr(hub, "snapshot_download", refuse)
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", False)

    refused(folder, r"adapter of 'meta-llama/Llama-2-7b-hf', which .*: it is gated; ask for access at .*/Llama-2-7b-hf")


def test_a_base_in_the_hubs_cache_is_found_with_its_revision(base: Path, tmp_path: Path):
    cache = tmp_path / "cache" / "models--org--Qwen3-Reranker-ft"
    for commit in ("a" * 40, "b" * 40):
        shutil.copytree(base, cache / "snapshots" / commit)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("a" * 40)
    options: dict[str, Any] = {"cache_dir": tmp_path / "cache", "local_files_only": True}

    of_main = write_adapter(tmp_path / "main", "org/Qwen3-Reranker-ft")
    of_commit = write_adapter(tmp_path / "commit", "org/Qwen3-Reranker-ft", revision="b" * 40)

    assert resolve_model(ModelSpec(of_main, options=options)).folder.name == "a" * 40
    assert resolve_model(ModelSpec(of_commit, options=options)).folder.name == "b" * 40


def test_a_base_for_a_whole_model_is_refused(base: Path):
    refused(base, "base_model is for a PEFT adapter, but .* is a whole model", InputError, base_model="org/base")


def test_an_adapter_of_an_adapter_is_refused(base: Path, tmp_path: Path):
    first = write_adapter(tmp_path / "first", base)

    refused(write_adapter(tmp_path / "second", first), "is or contains an adapter itself; merge that one first")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "adapter_config.json is empty"),
        ("{", "adapter_config.json is not JSON"),
        ("[]", "must contain a JSON dict"),
        ("{}", "names no peft_type"),
    ],
)
def test_damaged_settings_are_named(content: str, reason: str, base: Path, tmp_path: Path):
    folder = write_adapter(tmp_path / "adapter", base)
    (folder / "adapter_config.json").write_text(content)

    refused(folder, reason)


def test_pickled_and_lost_weights_are_refused(base: Path, tmp_path: Path):
    folder = write_adapter(tmp_path / "adapter", base)
    (folder / "adapter_model.safetensors").unlink()
    refused(folder, r"without adapter_model\.safetensors; copy it from the training's output")

    (folder / "adapter_model.bin").write_bytes(pickle.dumps({}))
    refused(folder, r"pickled weights \(adapter_model\.bin\) are not supported because they can run code; .*save_pretr")


def test_settings_without_weights_and_weights_without_settings_are_told_apart(base: Path, tmp_path: Path):
    folder = write_adapter(tmp_path / "adapter", base)
    (folder / "adapter_config.json").unlink()

    refused(folder, r"without adapter_config\.json; copy it from the training's output")


def test_several_adapters_in_one_folder_are_listed(base: Path, tmp_path: Path):
    for name in ("b", "a"):
        write_adapter(tmp_path / "both" / name, base)

    refused(tmp_path / "both", r"contains folders of adapters \(a, b\): name one, .*both/a")


def test_without_peft_the_error_says_how_to_install_it(base: Path, tmp_path: Path):
    folder = write_adapter(tmp_path / "adapter", base)
    program = (
        "import sys\n"
        "import importlib.util\n"
        "find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *more: None if name == 'peft' else find(name, *more)\n"
        "from onelogit import InputError, Reranker\n"
        f"try: Reranker.load({str(folder)!r})\n"
        "except InputError as error: print(error)\n"
    )

    ran = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)

    assert ran.stdout.startswith("this needs peft (the extra 'lora'): pip install ")


def test_a_server_needs_no_peft_for_the_prompts_of_an_adapter(base: Path, tmp_path: Path):
    folder = write_adapter(tmp_path / "adapter", base)

    with RemoteReranker("http://127.0.0.1:9", str(folder)) as remote, Reranker.load(base) as local:
        assert remote.prompt(QUERY, DOCUMENTS[0]).ids == local.prompt(QUERY, DOCUMENTS[0]).ids


def test_labels_follow_the_weights_of_the_adapter_and_of_its_base(base: Path, tmp_path: Path):
    folder = write_adapter(tmp_path / "adapter", base)
    moved = write_adapter(tmp_path / "moved" / "adapter", "/elsewhere/base")
    other = write_adapter(tmp_path / "other" / "adapter", base, scale=0.2)
    label = model_label(ModelSpec(folder))

    assert model_label(ModelSpec(moved, options={"base_model": base})) == label
    assert model_label(ModelSpec(other)) != label
    assert model_label(ModelSpec(base)) != label
    tensors = load_file(base / "model.safetensors")
    save_file({**tensors, "model.norm.weight": tensors["model.norm.weight"] * 2}, base / "model.safetensors")
    assert model_label(ModelSpec(folder)) != label


def test_another_process_finds_a_relative_base(base: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    write_adapter(tmp_path / "adapter", "base")
    monkeypatch.chdir(tmp_path)

    spec = portable_spec(ModelSpec("adapter"))

    monkeypatch.chdir("/")
    assert resolve_model(spec).folder == base
