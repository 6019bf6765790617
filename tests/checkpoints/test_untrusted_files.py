"""A checkpoint by strangers: transformers reads no other files than those that were checked, none without bounds."""

import json
import logging
import resource
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from onelogit import CheckpointError, InputError, OnelogitError, Reranker
from onelogit.checkpoints.card import read_licence, read_model_card
from onelogit.checkpoints.fingerprint import model_label
from onelogit.checkpoints.hub import read_small_files
from onelogit.checkpoints.untrusted_files import MAX_TEXT_BYTES, MAX_VOCABULARY_BYTES, is_plain_path
from onelogit.cli.main import main
from onelogit.export.probe import read_probe
from onelogit.model_spec import ModelSpec
from support.tiny import Tiny
from support.untrusted import MAX_BYTES, MAX_S, change, refused_at_once

INDEX = "model.safetensors.index.json"


@pytest.fixture
def folder(tiny_qwen: Tiny, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_qwen.folder, tmp_path / "Qwen3-Reranker-tiny"))


def sparse(file: Path, size: int) -> None:
    """A file of zeros that takes no room on the disk."""
    file.parent.mkdir(exist_ok=True)
    with file.open("wb") as stream:
        stream.truncate(size)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("configuration_files", ["config.4.0.0.json"]),
        ("transformers_weights", "other.safetensors"),
        ("text_config", {"transformers_weights": "../other.safetensors"}),
    ],
)
def test_a_config_that_names_other_files_in_its_place_is_refused(name: str, value: object, folder: Path):
    shutil.copy(folder / "config.json", folder / "config.4.0.0.json")
    change(folder / "config.4.0.0.json", attn_implementation="someone/kernel")
    change(folder / "config.json", **{name: value})

    refused_at_once(folder, r"names other files of the model \((configuration_files|transformers_weights)=")


@pytest.mark.parametrize("field", ["_attn_implementation_internal", "_experts_implementation_internal"])
def test_a_kernel_under_an_internal_name_is_not_downloaded(field: str, folder: Path):
    change(folder / "config.json", text_config={field: "someone/kernel"})

    refused_at_once(folder, "names code to download from the hub")


def test_a_model_with_one_file_and_an_index_of_others_is_refused(folder: Path):
    """transformers would read the single file, and onelogit the head in the others."""
    tensors = load_file(folder / "model.safetensors")
    save_file({name: value * 2 for name, value in tensors.items()}, folder / "other.safetensors")
    (folder / INDEX).write_text(json.dumps({"weight_map": dict.fromkeys(tensors, "other.safetensors")}))

    refused_at_once(folder, "has both model.safetensors and model.safetensors.index.json")
    (folder / INDEX).write_text(json.dumps({"weight_map": dict.fromkeys(tensors, "model.safetensors")}))
    Reranker.load(folder).close()


def test_an_index_of_files_that_may_be_pickled_is_refused(folder: Path):
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").rename(folder / "model.bin")
    (folder / INDEX).write_text(json.dumps({"weight_map": dict.fromkeys(tensors, "model.bin")}))

    refused_at_once(folder, "names 'model.bin', which is not a safetensors file")


def test_a_tensor_in_two_files_is_refused(folder: Path):
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").rename(folder / "a.safetensors")
    save_file({next(iter(tensors)): np.zeros((2, 2), "float32")}, folder / "b.safetensors")
    weight_map = {**dict.fromkeys(tensors, "a.safetensors"), "b": "b.safetensors"}
    (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))

    refused_at_once(folder, "b.safetensors has a tensor '.*' that another file of the model has, too")


def test_a_part_of_a_distributed_checkpoint_is_not_read_in_place_of_the_weights(folder: Path):
    shutil.copy(folder / "model.safetensors", folder / "shard-00001-model-00001-of-00001.safetensors")

    refused_at_once(folder, "has a part of a distributed checkpoint, shard-00001-model")


def test_an_index_of_thousands_of_files_is_one_short_sentence(folder: Path):
    (folder / "model.safetensors").unlink()
    weight_map = {f"t{number}": f"{number:06}.safetensors" for number in range(9_000)}
    (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))

    with pytest.raises(CheckpointError, match="lacks 000000.safetensors, .* and 8,997 more files") as raised:
        Reranker.load(folder)
    assert len(str(raised.value)) < 400
    (folder / INDEX).write_text(json.dumps({"weight_map": {f"t{n}": f"{n}.safetensors" for n in range(100_000)}}))
    refused_at_once(folder, "names 100,000 files, of at most 10,000")


DENSE = {
    "in_features": 64,
    "out_features": 1,
    "bias": False,
    "module_output_name": "scores",
    "activation_function": "torch.nn.modules.linear.Identity",
}


def chain_in(folder: Path, outside: Path) -> None:
    """Modules for a logit, whose last one is a folder with links to files elsewhere."""
    kinds = ["models.Transformer", "models.Pooling", "models.Dense"]
    paths = ["", "1_Pooling", "2_Dense"]
    chain = [
        {"idx": n, "path": path, "type": f"sentence_transformers.{kind}"}
        for n, (path, kind) in enumerate(zip(paths, kinds, strict=True))
    ]
    (folder / "modules.json").write_text(json.dumps(chain))
    for path, content in (("1_Pooling", {}), ("2_Dense", DENSE)):
        (folder / path).mkdir()
        (folder / path / "config.json").write_text(json.dumps(content))
    outside.mkdir()
    save_file({"linear.weight": np.ones((1, 64), "float32")}, outside / "model.safetensors")
    shutil.copy(folder / "2_Dense" / "config.json", outside / "config.json")


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_file_of_a_module_that_is_a_link_out_of_the_folder_is_refused(name: str, folder: Path, tmp_path: Path):
    chain_in(folder, tmp_path / "outside")
    shutil.copy(tmp_path / "outside" / "model.safetensors", folder / "2_Dense")
    Reranker.load(folder).close()
    (folder / "2_Dense" / name).unlink()
    (folder / "2_Dense" / name).symlink_to(tmp_path / "outside" / name)

    refused_at_once(folder, f"2_Dense/{name} leads out of the model's folder, to .*outside")


@pytest.mark.parametrize(
    "path", ["..", ".. ", "a/... /b", ". .", "a/ ..", "//server/share", "c:a", "a\\b", "~", "\ud800"]
)
def test_paths_that_any_system_reads_as_outside_are_not_plain(path: str):
    assert not is_plain_path(path)


@pytest.mark.parametrize("path", ["", ".", "1_Dense", "./1_Dense/", "a.b/c d", "...a"])
def test_usual_paths_are_plain(path: str):
    assert is_plain_path(path)


@pytest.mark.parametrize(
    "name", ["special_tokens_map.json", "added_tokens.json", "generation_config.json", "chat_template.jinja"]
)
def test_a_large_file_that_transformers_would_read_is_refused(name: str, folder: Path):
    sparse(folder / name, 2**30)

    refused_at_once(folder, f"{name} has 1,073,741,824 bytes")


@pytest.mark.parametrize("name", ["tokenizer.json", "vocab.json", "tokenizer.model"])
def test_a_large_vocabulary_is_refused(name: str, folder: Path):
    sparse(folder / name, MAX_VOCABULARY_BYTES + 1)

    refused_at_once(folder, f"{name} has .* bytes, of at most")


def test_many_files_together_are_not_read(folder: Path):
    for number in range(64):
        sparse(folder / f"{number}.json", MAX_TEXT_BYTES)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    assert sum(map(len, read_small_files(folder).values())) <= 64 * 2**20
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < MAX_BYTES
    for number in range(5):
        sparse(folder / f"{number}" / "config.json", MAX_TEXT_BYTES)
    refused_at_once(folder, "bytes with the small files before it, of at most")


@pytest.mark.parametrize("name", ["checkpoint-1/trainer_state.json", "models--a--b/refs/main"])
def test_a_large_file_beside_no_model_is_not_read(name: str, tmp_path: Path):
    file = tmp_path / "folder" / name
    file.parent.mkdir(parents=True)
    sparse(file, 2**32)
    if "refs" in name:
        snapshot = file.parent.parent / "snapshots" / "abc"
        snapshot.mkdir(parents=True)
        (snapshot / "config.json").write_text("{}")

    refused_at_once(file.parent.parent, "name a checkpoint|name its snapshot|has a trainer")


def test_a_label_does_not_read_a_header_without_bounds(folder: Path):
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    sparse(folder / "a.safetensors", 2**33)
    with (folder / "a.safetensors").open("r+b") as stream:
        stream.write((2**32).to_bytes(8, "little"))
    (folder / INDEX).write_text(json.dumps({"weight_map": dict.fromkeys(tensors, "a.safetensors")}))

    with pytest.raises(CheckpointError, match="its header has 4,294,967,296 bytes"):
        model_label(ModelSpec(str(folder)))


@pytest.mark.parametrize("shape", [(), (0, 32), (7,)])
def test_a_head_of_another_shape_is_a_clear_error(shape: tuple[int, ...], folder: Path):
    tensors = load_file(folder / "model.safetensors")
    name = next(each for each in tensors if "embed_tokens" in each)
    save_file({**tensors, "lm_head.weight": np.ones(shape, "float32")}, folder / "model.safetensors")
    assert name

    with pytest.raises(OnelogitError):
        Reranker.load(folder)


def test_code_for_the_model_alone_is_not_asked_about(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Without an answer, transformers would ask on stdin, for 15 seconds, whether to run it."""
    asked: list[Any] = []
    monkeypatch.setattr("builtins.input", lambda *text: asked.append(text) or "y")
    (folder / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    change(
        folder / "config.json",
        model_type="vit",
        architectures=["Qwen3ForCausalLM"],
        auto_map={"AutoModel": "mine.Mine", "AutoModelForSequenceClassification": "mine.Mine"},
    )

    with pytest.raises(OnelogitError):
        Reranker.load(folder)

    assert not asked
    assert not (tmp_path / "ran").exists()


VALUES = [-5, 0, 1, True, False, None, "64", 64.0, 1e9, 1e400, float("nan"), [64], {"a": 1}, 10**19, 2**63]
NAMES = ["hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size", "max_position_embeddings"]


@pytest.mark.parametrize("name", [*NAMES, "num_key_value_heads", "head_dim", "intermediate_size", "text_config"])
def test_a_strange_value_of_a_size_is_an_error_of_ours_or_none(name: str, folder: Path):
    original = (folder / "config.json").read_text()
    for value in VALUES:
        (folder / "config.json").write_text(original)
        change(folder / "config.json", **{name: value})
        before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.thread_time()
        with suppress(OnelogitError), Reranker.load(folder) as reranker:
            reranker.logits("a", ["b"])
        assert time.thread_time() - started < MAX_S, value
        assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < MAX_BYTES, value


@pytest.mark.parametrize("times", [2, 8, 31])
def test_sizes_within_the_limits_allocate_no_more_than_the_weights(times: int, folder: Path):
    tensors = load_file(folder / "model.safetensors")
    largest = max(max(value.shape) for value in tensors.values())
    sizes = dict.fromkeys(("hidden_size", "intermediate_size", "head_dim"), times * largest // 64 * 64)
    change(folder / "config.json", **sizes)

    refused_at_once(folder, "weights|tensor|shape", OnelogitError)


def test_names_in_errors_cannot_control_the_terminal(folder: Path, capsys: pytest.CaptureFixture[str]):
    (folder / "model.safetensors").unlink()
    (folder / INDEX).write_text(json.dumps({"weight_map": {"a": "\x1b[31m\x1b]0;owned\x07\x9b2J.safetensors"}}))

    assert main(["rank", "--model", str(folder), "a", "b"]) == 2

    assert "lacks \\x1b[31m" in capsys.readouterr().err


def test_names_in_warnings_cannot_control_the_terminal():
    assert main(["recipes"]) == 0
    record = logging.LogRecord("onelogit", logging.WARNING, "", 0, "%s is \x1b[31m", ("a\x9bb",), None)

    assert logging.lastResort is not None
    assert logging.lastResort.format(record) == "a\\x9bb is \\x1b[31m"


def test_a_long_model_card_is_ignored_within_a_second():
    card = {"README.md": "---\nlicense: mit\nx:\n" + "- {a: b}\n" * 100_000 + "---\n"}
    started = time.thread_time()

    assert read_model_card(card) == {}
    assert time.thread_time() - started < MAX_S


def test_a_card_with_the_results_of_many_benchmarks_has_a_licence():
    """They take most of a card, and are not needed; the licence is often written after them."""
    results = "- name: a\n  results:\n" + "  - task: {type: Reranking}\n    value: 1.5\n" * 20_000
    card = {"README.md": f"---\ntags:\n- mteb\nmodel-index:\n{results}license: apache-2.0\n---\n"}
    started = time.thread_time()

    assert read_licence(card) == "apache-2.0"
    assert time.thread_time() - started < MAX_S


def test_a_revision_of_a_folder_is_refused(folder: Path):
    with pytest.raises(InputError, match="is a local folder, which has no revision"):
        Reranker.load(folder, revision="abc")


PROBE = {"query": "a", "document": "b", "token_ids": [1], "logit": 0.5}


@pytest.mark.parametrize(
    "content",
    [
        "[" * 990 + "]" * 990,
        json.dumps({"instruction": None, "tolerance": 0.1, "prompts": []}),
        json.dumps({"instruction": 3, "tolerance": 0.1, "prompts": [PROBE]}),
        json.dumps({"instruction": None, "tolerance": float("nan"), "prompts": [PROBE]}),
        json.dumps({"instruction": None, "tolerance": 0.1, "prompts": [{**PROBE, "logit": 10**400}]}),
        json.dumps({"instruction": None, "tolerance": 0.1, "prompts": [{**PROBE, "query": 3}]}),
        json.dumps({"instruction": None, "tolerance": 0.1, "prompts": [{**PROBE, "token_ids": "1"}]}),
        json.dumps({"instruction": None, "tolerance": 0.1, "prompts": [{**PROBE, "token_ids": []}]}),
    ],
)
def test_a_probe_of_strange_values_is_damaged(content: str):
    with pytest.raises(CheckpointError, match=r"reranker_probe\.json in it is damaged"):
        read_probe({"reranker_probe.json": content}, "it")


@pytest.mark.parametrize("depth", [150, 900, 950, 970, 980, 985, 990, 995])
def test_json_nested_to_any_depth_is_an_error_of_ours_or_is_ignored(depth: int, folder: Path):
    nested = '{"a": ' * depth + "1" + "}" * depth
    for name, text in [
        ("config.json", (folder / "config.json").read_text().replace("{", f'{{"attn_implementation": {nested},', 1)),
        ("modules.json", f'[{{"path": {nested}, "type": "a"}}]'),
        ("tokenizer_config.json", f'{{"chat_template": {nested}}}'),
        (INDEX, f'{{"weight_map": {{"a": {nested}}}}}'),
        ("adapter_config.json", f'{{"peft_type": "LORA", "base_model_name_or_path": {nested}}}'),
        ("README.md", f"---\nlicense: {'[' * depth}{']' * depth}\n---\n"),
    ]:
        copy = Path(shutil.copytree(folder, folder.parent / f"{name}-{depth}"))
        (copy / name).write_text(text)
        if name.startswith("adapter"):
            (copy / "model.safetensors").unlink()
        with suppress(OnelogitError):
            Reranker.load(copy, recipe="qwen3-reranker").close()
