"""A checkpoint by strangers: what leads out of its folder, runs code, or asks for absurd sizes is refused at once."""

import json
import os
import shutil
import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from onelogit import OnelogitError, Reranker
from onelogit.checkpoints.card import read_licence, read_model_card
from onelogit.checkpoints.untrusted_files import MAX_TEXT_BYTES
from support.metadata_files import logit_score_files
from support.tiny import Tiny
from support.untrusted import MAX_S, change, refused_at_once

CHAIN = [
    {"idx": 0, "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    {"idx": 2, "path": "2_Dense", "type": "sentence_transformers.models.Dense"},
]


@pytest.fixture
def folder(tiny_qwen: Tiny, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_qwen.folder, tmp_path / "Qwen3-Reranker-tiny"))


@pytest.mark.parametrize(
    "path", ["../other", "/etc", "1_Dense/../..", "C:\\models", "~/models", "..\\other", 3, "a\0b"]
)
def test_a_module_outside_the_folder_is_refused(path: object, folder: Path):
    modules = [{**each, "path": path} if each["idx"] == 2 else each for each in CHAIN]
    (folder / "modules.json").write_text(json.dumps(modules))

    refused_at_once(folder, "modules.json .*, which is not a folder of the model")


def test_a_module_that_is_a_link_out_of_the_folder_is_refused(folder: Path, tmp_path: Path):
    (tmp_path / "elsewhere").mkdir()
    (folder / "2_Dense").symlink_to(tmp_path / "elsewhere")
    (folder / "modules.json").write_text(json.dumps(CHAIN))

    refused_at_once(folder, "2_Dense leads out of the model's folder, to .*elsewhere")


def split_into_shards(folder: Path, shard: str = "model-00001-of-00001.safetensors") -> Path:
    from safetensors import safe_open

    with safe_open(folder / "model.safetensors", framework="np") as tensors:
        names = [*tensors.keys()]
    (folder / "model.safetensors").rename(folder / shard)
    index = {"metadata": {}, "weight_map": dict.fromkeys(names, shard)}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder / shard


@pytest.mark.parametrize("name", ["../other.safetensors", "/etc/passwd", "a/b.safetensors", "..", "a\\b", 3, None])
def test_an_index_that_names_files_outside_the_folder_is_refused(name: object, folder: Path):
    split_into_shards(folder)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))

    refused_at_once(folder, "names files outside the folder|is damaged")


def test_a_shard_that_is_a_link_out_of_the_folder_is_refused(folder: Path, tmp_path: Path):
    shard = split_into_shards(folder)
    shard.rename(tmp_path / "elsewhere.safetensors")
    shard.symlink_to(tmp_path / "elsewhere.safetensors")

    refused_at_once(folder, "leads out of the model's folder, to .*elsewhere.safetensors, and a model's files must not")


def as_cached(folder: Path, cache: Path, blobs: Path) -> Path:
    """The folder as the hub's cache has it: each file of the snapshot is a link to a blob."""
    snapshot = cache / "models--someone--Qwen3-Reranker-tiny" / "snapshots" / "abc123"
    for number, file in enumerate(sorted(folder.rglob("*"))):
        if file.is_file():
            blobs.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, blobs / f"{number}")
            link = snapshot / file.relative_to(folder)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(
                os.path.relpath(cache / "models--someone--Qwen3-Reranker-tiny/blobs" / f"{number}", link.parent)
            )
    return snapshot


@pytest.mark.parametrize("has_own_disk", [False, True])
def test_the_links_of_the_hubs_cache_are_followed(has_own_disk: bool, folder: Path, tmp_path: Path):
    split_into_shards(folder)
    blobs = tmp_path / "models--someone--Qwen3-Reranker-tiny" / "blobs"
    if has_own_disk:
        (tmp_path / "disk").mkdir()
        blobs.parent.mkdir()
        blobs.symlink_to(tmp_path / "disk")
    snapshot = as_cached(folder, tmp_path, blobs)

    with Reranker.load(snapshot) as reranker:
        assert reranker.logits("a", ["b"])
        reranker.save(tmp_path / "converted")

    probe = json.loads((tmp_path / "converted" / "reranker_probe.json").read_text())
    assert probe["revision"] == "abc123"


def test_a_link_of_the_cache_to_anything_but_a_blob_is_refused(folder: Path, tmp_path: Path):
    shard = split_into_shards(folder).name
    snapshot = as_cached(folder, tmp_path, tmp_path / "models--someone--Qwen3-Reranker-tiny" / "blobs")
    (snapshot / shard).unlink()
    (snapshot / shard).symlink_to(tmp_path / "models--someone--Qwen3-Reranker-tiny" / "blobs" / ".." / "other")
    shutil.copy(folder / shard, tmp_path / "models--someone--Qwen3-Reranker-tiny" / "other")

    refused_at_once(snapshot, "leads out of the model's folder")


def test_a_tokenizer_outside_the_folder_is_refused(folder: Path):
    change(folder / "tokenizer_config.json", fast_tokenizer_files=["../../tokenizer.4.0.0.json"])

    refused_at_once(folder, "tokenizer_config.json .* names '../../tokenizer.4.0.0.json', which is not a file")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("hidden_size", 10**9),
        ("hidden_size", 10**7),
        ("intermediate_size", 10**7),
        ("num_hidden_layers", 10**6),
        ("num_hidden_layers", 1_000),
        ("vocab_size", 10**9),
        ("vocab_size", 10**6),
        ("num_attention_heads", 10**9),
        ("num_key_value_heads", 10**9),
        ("head_dim", 10**9),
        ("num_labels", 10**9),
        ("num_experts", 10**9),
        ("max_position_embeddings", 10**12),
        ("hidden_size", 10**400),
        ("hidden_size", 1e30),
    ],
)
def test_an_absurd_size_is_refused_before_anything_is_allocated(name: str, value: float, folder: Path):
    change(folder / "config.json", **{name: value})

    refused_at_once(folder, f"declares {name}=|cannot read .*config.json")  # transformers counts layer types, too


def test_an_absurd_size_of_a_part_is_refused(folder: Path):
    change(folder / "config.json", text_config={"num_hidden_layers": 10**6})

    refused_at_once(folder, "declares num_hidden_layers=1000000, of at most 10,000")


def header_of(content: object, length: int | None = None) -> bytes:
    header = content if isinstance(content, bytes) else json.dumps(content).encode()
    return struct.pack("<Q", len(header) if length is None else length) + header


TENSOR = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}
HEADERS = {
    "a header of 2 ** 60 bytes": header_of({"a": TENSOR}, 2**60),
    "a header beyond the file": header_of({"a": TENSOR}, 2**20),
    "offsets beyond the file": header_of({"a": {**TENSOR, "data_offsets": [0, 2**40], "shape": [2**38]}}),
    "an offset of 2 ** 63": header_of({"a": {**TENSOR, "data_offsets": [0, 2**63]}}),
    "negative offsets": header_of({"a": {**TENSOR, "data_offsets": [-16, 0]}}),
    "tensors that overlap": header_of({"a": TENSOR, "b": TENSOR}) + bytes(16),
    "a shape that does not fit": header_of({"a": {**TENSOR, "shape": [9, 9]}}) + bytes(16),
    "a shape that overflows": header_of({"a": {**TENSOR, "shape": [2**40, 2**40]}}) + bytes(16),
    "an unknown dtype": header_of({"a": {**TENSOR, "dtype": "F12"}}) + bytes(16),
    "no JSON": header_of(b"{") + bytes(16),
    "deeply nested JSON": header_of(b'{"a":' * 90_000) + bytes(16),
    "nothing": b"",
    "seven bytes": b"\0" * 7,
}


@pytest.mark.parametrize("kind", HEADERS)
def test_a_damaged_header_of_weights_is_refused(kind: str, folder: Path):
    (folder / "model.safetensors").write_bytes(HEADERS[kind])

    refused_at_once(folder, "model.safetensors is damaged or incomplete")


SIDE_FILES = ["config.json", "tokenizer_config.json", "modules.json", "model.safetensors.index.json"]
BOMBS = {
    "nested lists": b"[" * 500_000,
    "nested objects": b'{"a":' * 200_000,
    "a number of many digits": b'{"a": ' + b"9" * 100_000 + b"}",
    "a large file": b" " * (MAX_TEXT_BYTES + 1),
}


@pytest.mark.parametrize("file", SIDE_FILES)
@pytest.mark.parametrize("bomb", BOMBS)
def test_a_side_file_that_explodes_is_refused(bomb: str, file: str, folder: Path):
    (folder / file).write_bytes(BOMBS[bomb])

    refused_at_once(folder, rf"{file}.*(is not JSON|is damaged|so it is damaged)")


def test_a_large_file_that_the_model_does_not_need_is_not_read(folder: Path):
    (folder / "training_log.json").write_bytes(b" " * (MAX_TEXT_BYTES + 1))
    (folder / "README.md").write_text((folder / "README.md").read_text() + "." * (MAX_TEXT_BYTES + 1))

    with Reranker.load(folder) as reranker:  # by its name
        assert reranker.recipe.family == "qwen3-reranker"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names")
@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"])
def test_a_pipe_is_not_read(file: str, folder: Path):
    (folder / file).unlink(missing_ok=True)
    os.mkfifo(folder / file)

    refused_at_once(folder, f"{file} is not a regular file")


CARDS = {
    "aliases": "a: &a [x, x]\n"
    + "".join(f"{chr(98 + i)}: &{chr(98 + i)} [*{chr(97 + i)}, *{chr(97 + i)}]\n" for i in range(24)),
    "merged keys": "a: &a {k: v}\n"
    + "".join(f"{chr(98 + i)}: &{chr(98 + i)} {{<<: [*{chr(97 + i)}, *{chr(97 + i)}]}}\n" for i in range(24)),
    "nested lists": "a: " + "[" * 5_000,
    "a date that does not exist": "a: 2024-99-99",
    "Python": "a: !!python/object/apply:os.system ['echo']",
    "a number": "a: !!int x",
    "keys": "{[1]: 2}",
}


@pytest.mark.parametrize("name", CARDS)
def test_a_model_card_that_explodes_is_ignored(name: str):
    started = time.thread_time()

    card = {"README.md": f"---\n{CARDS[name]}\nlicense: mit\n---\n"}

    assert read_model_card(card) == {}
    assert read_licence(card) is None
    assert time.thread_time() - started < MAX_S


def test_lines_without_an_end_are_no_metadata():
    started = time.thread_time()

    assert read_model_card({"README.md": "---" + "\n" * 1_000_000}) == {}
    assert time.thread_time() - started < MAX_S


@pytest.mark.parametrize("name", ["a b", "(a+)+$", "x %}{{ 1 }}{%- set y", ""])
def test_a_variable_that_is_no_name_is_refused(name: str, folder: Path):
    files = logit_score_files(17, 4)
    files["sentence_bert_config.json"]["processing_kwargs"]["chat_template"][name] = "a"
    for path, content in files.items():
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text(content if isinstance(content, str) else json.dumps(content))

    refused_at_once(folder, "which is not a name", OnelogitError)


@pytest.mark.parametrize("field", ["attn_implementation", "_attn_implementation", "experts_implementation"])
def test_a_kernel_that_only_the_model_names_is_not_downloaded(field: str, folder: Path):
    change(folder / "config.json", **{field: "someone/kernel"})

    refused_at_once(folder, "names code to download from the hub .*pass attn_implementation= yourself")


def test_code_in_the_folder_does_not_run(folder: Path, tmp_path: Path, checkpoint: Callable[..., Tiny]):
    change(folder / "config.json", model_type="mine", auto_map={"AutoConfig": "mine.Mine", "AutoModel": "mine.Mine"})
    (folder / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")

    refused_at_once(folder, "needs its own Python code .*trust_remote_code=True")
    assert not (tmp_path / "ran").exists()


def test_an_adapter_that_makes_peft_import_a_module_is_refused(folder: Path):
    for file in folder.iterdir():
        file.unlink()
    change(folder / "adapter_config.json", peft_type="LORA", megatron_config={"a": 1}, megatron_core="mine")
    (folder / "adapter_model.safetensors").write_bytes(header_of({"a": TENSOR}) + bytes(16))

    refused_at_once(folder, "has a megatron_config, which makes PEFT import other code")
