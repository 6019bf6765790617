"""Folders and files that are not checkpoints: each is named for what it is, with the way out."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from transformers import BertConfig

from onelogit import CheckpointError, RemoteReranker, Reranker, UnsupportedModelError
from onelogit.cli.main import main
from support.tiny import Tiny, native_checkpoint, pair_tokenizer

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:01\nsize 5\n"


def write(folder: Path, name: str, content: object = "x") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return folder


def linked(folder: Path, name: str) -> Path:
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to("../../blobs/0123")
    return folder


def removed(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).unlink()
    return folder


def cached(folder: Path) -> Path:
    root = folder / "models--me--reranker"
    for commit in ("aaa", "bbb"):
        write(root, f"snapshots/{commit}/config.json", {})
    return write(root, "refs/main", "aaa\n")


def of_trainer(folder: Path) -> Path:
    for step in (500, 1000, 90):
        write(folder, f"checkpoint-{step}/config.json", {"architectures": ["Qwen3ForCausalLM"]})
    return write(folder, "checkpoint-1000/trainer_state.json", {"best_model_checkpoint": "/gone/out/checkpoint-500"})


PATHS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "an empty folder": (lambda folder: folder, "is empty"),
    "a gguf file": (
        lambda folder: write(folder, "m.gguf") / "m.gguf",
        r"m\.gguf is GGUF.*llama-server and name its url",
    ),
    "a folder of gguf": (lambda folder: write(folder, "m.Q8_0.gguf"), r"\(m\.Q8_0\.gguf\) are GGUF.*name its url"),
    "weights": (
        lambda folder: write(folder, "model.safetensors") / "model.safetensors",
        "one file .*name its folder, /",
    ),
    "a config": (lambda folder: write(folder, "config.json") / "config.json", "one file of a model; name its folder"),
    "another file": (lambda folder: write(folder, "a.txt") / "a.txt", "is a file, not the folder"),
    "a zip": (lambda folder: write(folder, "a.zip") / "a.zip", "is an archive; unpack it"),
    "a tar": (lambda folder: write(folder, "a.tar.gz") / "a.tar.gz", "is an archive; unpack it"),
    "a link": (lambda folder: linked(folder, "link") / "link", r"link to \.\./\.\./blobs/0123, which does not exist"),
    "a linked config": (lambda folder: linked(folder, "config.json"), "config.json is a link to .* download"),
    "a pointer": (
        lambda folder: write(folder, "config.json", POINTER),
        "only a pointer of Git LFS; run `git lfs pull`",
    ),
    "a cached model": (cached, "hub's cache; name its snapshot, .*/snapshots/aaa .there are 2 snapshots"),
    "its snapshots": (lambda folder: cached(folder) / "snapshots", "name its snapshot, .*/snapshots/aaa "),
    "no snapshot": (lambda folder: write(folder / "models--a--b", "refs/main"), "has no snapshot; download"),
    "the cache": (lambda folder: cached(folder).parent, "such as me/reranker, with cache_dir='.*cache'"),
    "the hub's home": (lambda folder: cached(folder / "hub").parent.parent, "me/reranker, with cache_dir='.*/hub'"),
    "a trainer's folder": (
        of_trainer,
        "no final model; .*the latest, .*/checkpoint-1000, or the best, .*/checkpoint-500",
    ),
    "the folder above": (
        lambda folder: write(folder, "mine/config.json", {"architectures": ["X"]}),
        "contains folders of models: name one, .*/mine",
    ),
    "a part": (
        lambda folder: write(write(folder, "config.json"), "onnx/a.json") / "onnx",
        "name the folder above it, /",
    ),
    "weights alone": (lambda folder: write(folder, "model.safetensors"), "no config.json; copy it and the tokenizer"),
    "onnx": (
        lambda folder: write(folder, "model.onnx"),
        r"\(model.onnx\) are ONNX; use the version .*for transformers",
    ),
    "pickles": (lambda folder: write(folder, "pytorch_model.bin"), r"are pickled weights \(\.bin\), .*save_pretrained"),
    "the vendor's format": (
        lambda folder: write(folder, "consolidated.00.pth"),
        "vendor's own format; use the version",
    ),
    "something else": (lambda folder: write(folder, "notes.txt"), "has no config.json, so it is not a checkpoint"),
    "a name that is too long": (lambda folder: folder / ("x" * 3000), "cannot be read: File name too long"),
}


@pytest.mark.parametrize("name", PATHS)
def test_a_path_that_is_no_checkpoint_is_named_for_what_it_is(name: str, tmp_path: Path):
    make, message = PATHS[name]
    folder = tmp_path / "cache"
    folder.mkdir()

    with pytest.raises(CheckpointError, match=message):
        Reranker.load(make(folder))


MODELS: dict[str, tuple[Callable[[Path], object], str]] = {
    "gguf": (lambda folder: write(removed(folder, "model.safetensors"), "m.gguf"), "are GGUF.*llama-server"),
    "onnx": (
        lambda folder: write(removed(folder, "model.safetensors"), "onnx/model.onnx"),
        r"\(onnx/model.onnx\) are ONNX",
    ),
    "pickles": (lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"), "pickled weights"),
    "pt": (lambda folder: (folder / "model.safetensors").rename(folder / "model.pt"), r"pickled weights \(\.pt\)"),
    "consolidated": (
        lambda folder: (folder / "model.safetensors").rename(folder / "consolidated.safetensors"),
        r"\(consolidated.safetensors\) are in the vendor's own format",
    ),
    "DeepSpeed": (
        lambda folder: write(removed(folder, "model.safetensors"), "zero_to_fp32.py"),
        "python zero_to_fp32.py",
    ),
    "FSDP": (lambda folder: write(removed(folder, "model.safetensors"), "fsdp_0/a.distcp"), "accelerate merge-weights"),
    "linked weights": (lambda folder: linked(folder, "model.safetensors"), "safetensors is a link to .* download"),
    "a linked tokenizer": (lambda folder: linked(folder, "tokenizer.json"), "tokenizer.json is a link to .* download"),
    "weights as a pointer": (lambda folder: write(folder, "model.safetensors", POINTER), "pointer of Git LFS; run"),
    "a tokenizer as a pointer": (lambda folder: write(folder, "tokenizer.json", POINTER), "pointer of Git LFS; run"),
    "a template as a pointer": (
        lambda folder: write(folder, "chat_template.jinja", POINTER),
        "pointer of Git LFS; run",
    ),
    "no tokenizer": (
        lambda folder: removed(folder, "tokenizer.json", "tokenizer_config.json"),
        "no tokenizer .*; copy",
    ),
    "not JSON": (lambda folder: write(folder, "config.json", "{"), "cache': config.json is not JSON"),
    "an empty config": (lambda folder: write(folder, "config.json", ""), "config.json is empty; copy it again"),
    "a list": (lambda folder: write(folder, "config.json", "[]"), "config.json must contain a JSON dict, not a list"),
    "a BOM": (lambda folder: write(folder, "config.json", "\ufeff{}"), "byte order mark .BOM.; save it as UTF-8"),
    "a strange form": (lambda folder: changed(folder, text_config=3), "a JSON file has an unexpected form"),
    "MLX": (
        lambda folder: changed(folder, quantization={"bits": 4, "group_size": 64}),
        "for MLX .4 bits., which only MLX",
    ),
    "own code": (
        lambda folder: changed(folder, model_type="mine", auto_map={"AutoConfig": "code.Config"}),
        "needs its own Python code .*trust_remote_code=True .for a command: --trust-remote-code",
    ),
}


def changed(folder: Path, **fields: object) -> Path:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return write(folder, "config.json", {**config, **fields})


@pytest.mark.parametrize("name", MODELS)
def test_a_model_that_cannot_be_loaded_is_named_for_what_it_is(name: str, tiny_qwen: Tiny, tmp_path: Path):
    make, message = MODELS[name]
    folder = shutil.copytree(tiny_qwen.folder, tmp_path / "cache")
    make(folder)

    with pytest.raises(CheckpointError, match=message):
        Reranker.load(folder)


def test_missing_files_are_reported_before_a_missing_recipe(checkpoint: Callable[..., Tiny]):
    folder = checkpoint("run/checkpoint-1000").folder
    (folder / "model.safetensors").rename(folder / "model.gguf")
    with pytest.raises(CheckpointError, match="are GGUF"):
        Reranker.load(folder)

    removed(folder, "tokenizer.json", "tokenizer_config.json")
    with pytest.raises(CheckpointError, match=r"a trainer's checkpoint without a tokenizer .*; copy .* from the model"):
        Reranker.load(folder)

    write(write(folder.parent, "tokenizer.json"), "model.safetensors")
    with pytest.raises(CheckpointError, match=r"copy .* from .*/run, or name that folder, which has the final model"):
        Reranker.load(folder)


def test_weights_are_not_needed_for_a_servers_tokenizer(tiny_qwen: Tiny, tmp_path: Path):
    folder = shutil.copytree(tiny_qwen.folder, tmp_path / "model")
    (folder / "model.safetensors").rename(folder / "model.gguf")

    with RemoteReranker("http://127.0.0.1:9", str(folder)) as remote:
        assert remote.recipe is not None


@pytest.mark.parametrize(
    "names", [["Pooling"], ["Pooling", "Normalize"], ["Pooling", "Dense"], ["Pooling", "Dense", "Normalize"]], ids=str
)
@pytest.mark.parametrize("kind", ["decoder", "encoder"])
def test_an_embedding_model_is_refused_as_one(kind: str, names: list[str], tiny_qwen: Tiny, tmp_path: Path):
    folder = tmp_path / "embedder"
    if kind == "decoder":
        shutil.copytree(tiny_qwen.folder, folder)
    else:
        native_checkpoint(folder, BertConfig, pair_tokenizer("[CLS]", "[SEP]", "[SEP]"), num_labels=1)
    chain = enumerate(["Transformer", *names])
    path = "sentence_transformers.models"
    modules = [{"path": f"{index}_{name}" if index else "", "type": f"{path}.{name}"} for index, name in chain]
    write(folder, "modules.json", modules)
    write(folder, "2_Dense/config.json", {"in_features": 64, "out_features": 32})

    with pytest.raises(
        UnsupportedModelError, match="it is an embedding model, which reads query and document separately"
    ):
        Reranker.load(folder)


@pytest.fixture
def _another_user(tmp_path: Path) -> Iterator[None]:
    if os.geteuid() == 0:  # may read everything
        for each in (tmp_path, *tmp_path.parents[:2]):
            each.chmod(0o711)
        os.seteuid(65534)
    yield
    if os.getuid() == 0:
        os.seteuid(0)


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="Windows has other permissions")
@pytest.mark.parametrize("closed", [".", "config.json", ".."])
def test_a_path_that_may_not_be_read_is_an_error(closed: str, tmp_path: Path, request: pytest.FixtureRequest):
    folder = write(tmp_path / "above" / "model", "config.json", {})
    request.addfinalizer(lambda: (folder.parent.chmod(0o755), folder.chmod(0o755)))
    (folder / closed).resolve().chmod(0)
    request.getfixturevalue("_another_user")

    with pytest.raises(CheckpointError, match="cannot be read: Permission denied"):
        Reranker.load(folder)


def test_a_command_names_an_odd_path_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    write(tmp_path, "m.gguf")

    assert main(["rank", "q", "a", "b", "--model", str(tmp_path / "m.gguf")]) == 2
    assert capsys.readouterr().err.count("llama-server") == 1
