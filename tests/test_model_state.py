"""The weights that answer are those of the folder that was named, as it is now."""

import logging
import os
import pickle
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from onelogit import DEMO_MODEL, CheckpointError, ModelSpec, Reranker, open_reranker
from onelogit.bulk.job import run
from onelogit.bulk.part_files import read_part
from onelogit.checkpoints.fingerprint import model_label, portable_spec
from support.adapters import ADAPTERS, Adapter, make
from support.evaluation_data import write_lines
from support.tiny import Tiny

QUERY, TEXTS = "What is the capital of China?", ["The capital of China is Beijing.", "No."]
NAME = "Qwen3-Reranker-tiny"
MakeCheckpoint = Callable[..., Tiny]


@pytest.fixture(params=ADAPTERS, ids=lambda adapter: type(adapter).__name__)
def framework(request: pytest.FixtureRequest) -> Adapter:
    return request.param


def trained(tiny: Tiny, folder: Path) -> list[float]:
    """Save another model in the folder; returns its logits."""
    with_other_weights = {name: 1.5 * tensor for name, tensor in tiny.model.state_dict().items()}
    tiny.model.save_pretrained(folder, state_dict=with_other_weights)
    return logits_of(folder)


def logits_of(folder: Path) -> list[float]:
    with Reranker.load(folder) as reranker:
        return reranker.logits(QUERY, TEXTS)


def logits(framework: Adapter, adapter: Any) -> list[float]:
    found = {result.text: result.logit for result in framework.run(adapter, QUERY, framework.documents(TEXTS))}
    return [found[text] for text in TEXTS]


def two_folders(checkpoint: MakeCheckpoint, tmp_path: Path) -> tuple[list[float], list[float]]:
    """Two folders with models of one name; returns the logits of each."""
    tiny = checkpoint(f"first/{NAME}")
    checkpoint(f"second/{NAME}")
    return logits_of(tmp_path / "first" / NAME), trained(tiny, tmp_path / "second" / NAME)


def test_a_relative_path_in_another_working_directory_is_another_model(
    checkpoint: MakeCheckpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    first, second = two_folders(checkpoint, tmp_path)
    monkeypatch.chdir(tmp_path / "first")
    kept, spec = open_reranker(f"./{NAME}"), ModelSpec(f"./{NAME}")
    monkeypatch.chdir(tmp_path / "second")

    assert open_reranker(f"./{NAME}").logits(QUERY, TEXTS) == second
    assert kept.logits(QUERY, TEXTS) == first
    assert ModelSpec(f"./{NAME}") != spec != ModelSpec(NAME)
    for same in (spec, pickle.loads(pickle.dumps(spec)), portable_spec(spec)):
        assert Reranker.load(same).logits(QUERY, TEXTS) == first
    assert model_label(spec) != model_label(ModelSpec(f"./{NAME}"))
    assert model_label(spec) == model_label(portable_spec(spec))


@pytest.mark.parametrize("name", [f"./{NAME}", NAME, f"../first/{NAME}/", f".//{NAME}"])
def test_an_adapters_relative_path_means_the_folder_at_its_construction(
    framework: Adapter, name: str, checkpoint: MakeCheckpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    first, second = two_folders(checkpoint, tmp_path)
    monkeypatch.chdir(tmp_path / "first")
    adapter = make(framework, name, options={"recipe": None})
    dumped = framework.dumped(adapter)
    monkeypatch.chdir(tmp_path / "second")

    assert logits(framework, pickle.loads(pickle.dumps(adapter))) == first
    assert logits(framework, adapter) == first
    assert name in dumped
    assert str(tmp_path) not in dumped
    if not name.startswith(".."):
        assert logits(framework, framework.loaded(dumped)) == second
    adapter.model = "./" + NAME
    assert logits(framework, adapter) == (first if name == "./" + NAME else second)


def test_a_living_adapter_uses_a_folder_that_was_trained_anew(
    framework: Adapter, checkpoint: MakeCheckpoint, tmp_path: Path
):
    tiny = checkpoint(NAME)
    adapter, other = make(framework, str(tiny.folder)), make(framework, str(tiny.folder))
    before = logits(framework, adapter)
    assert adapter._handle._held is open_reranker(tiny.folder)  # type: ignore[arg-type]

    after = trained(tiny, tiny.folder)

    assert before != after
    assert [logits(framework, each) for each in (adapter, other, make(framework, str(tiny.folder)))] == [after] * 3
    assert adapter._handle._held is other._handle._held


def test_a_given_reranker_stays_what_it_is(framework: Adapter, checkpoint: MakeCheckpoint):
    tiny = checkpoint(NAME)
    with Reranker.load(tiny.folder) as reranker:
        adapter = framework.kind.from_reranker(reranker)
        before = logits(framework, adapter)

        trained(tiny, tiny.folder)

        assert logits(framework, adapter) == before


CHANGES: dict[str, Callable[[Path], object]] = {
    "the chat template": lambda folder: (folder / "chat_template.jinja").write_text(
        "{{ messages[0].content }} {{ messages[1].content }}", encoding="utf-8"
    ),
    "a weight file of the same size and time": lambda folder: _overwrite(folder / "model.safetensors"),
    "a file beside the weights": lambda folder: (folder / "generation_config.json").write_text("{}", encoding="utf-8"),
    "a file in a subfolder": lambda folder: ((folder / "1_Dense").mkdir(), _write(folder / "1_Dense" / "config.json")),
    "a removed file": lambda folder: (folder / "generation_config.json").unlink(),
    "a renamed folder": lambda folder: (shutil.copytree(folder, f"{folder}-2"), shutil.rmtree(folder),
                                        Path(f"{folder}-2").rename(folder)),
}  # fmt: skip


def _write(file: Path) -> None:
    file.write_text("{}", encoding="utf-8")


def _overwrite(file: Path) -> None:
    times = (file.stat().st_atime_ns, file.stat().st_mtime_ns)
    content = bytearray(file.read_bytes())
    content[-3:] = b"\x00\x00\x3f"
    new = file.with_name("new")
    new.write_bytes(content)
    new.replace(file)
    os.utime(file, ns=times)


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_folder_is_opened_anew(change: str, checkpoint: MakeCheckpoint):
    folder = checkpoint(NAME).folder
    kept = open_reranker(str(folder))

    CHANGES[change](folder)

    assert open_reranker(str(folder)) is not kept


def test_an_unchanged_folder_is_opened_once_however_it_is_spelled(
    checkpoint: MakeCheckpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = checkpoint(NAME).folder
    (tmp_path / "link").symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    kept = open_reranker(str(folder))

    for name in (
        NAME,
        f"./{NAME}",
        f"{folder}/",
        f"link/{NAME}",
        f"{NAME}/../{NAME}",
        f"~/{NAME}",
        f"{tmp_path}//{NAME}",
    ):
        assert open_reranker(name) is kept
    (folder / "notes.txt").write_text("unrelated", encoding="utf-8")
    (folder / ".hidden.json").write_text("{}", encoding="utf-8")
    assert open_reranker(str(folder)) is kept


def test_the_demo_model_is_opened_once(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(Path(DEMO_MODEL).parent)

    assert open_reranker(DEMO_MODEL) is open_reranker("demo") is open_reranker("./demo/")


def test_a_symlink_that_is_switched_is_another_model(framework: Adapter, checkpoint: MakeCheckpoint, tmp_path: Path):
    first, second = two_folders(checkpoint, tmp_path)
    link = tmp_path / NAME
    link.symlink_to(tmp_path / "first" / NAME)
    adapter = make(framework, str(link))
    assert logits(framework, adapter) == first

    (tmp_path / "new").symlink_to(tmp_path / "second" / NAME)
    (tmp_path / "new").replace(link)

    assert logits(framework, adapter) == second


def test_a_link_of_another_name_has_its_own_recipe(checkpoint: MakeCheckpoint, tmp_path: Path):
    kept = open_reranker(str(checkpoint(NAME).folder))
    (tmp_path / "mxbai-rerank-base-v2").symlink_to(tmp_path / NAME)

    assert open_reranker(str(tmp_path / "mxbai-rerank-base-v2")).recipe.family != kept.recipe.family


def test_a_folder_that_is_gone_is_reported_once_and_one_that_is_damaged_each_time(
    framework: Adapter, checkpoint: MakeCheckpoint, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    folder = checkpoint(NAME).folder
    adapter = make(framework, str(folder))
    before = logits(framework, adapter)
    folder.rename(tmp_path / "aside")
    with caplog.at_level(logging.WARNING):
        assert logits(framework, adapter) == logits(framework, adapter) == before
    assert [record.getMessage() for record in caplog.records if "are gone" in record.getMessage()] == [
        f"the files of {folder} are gone; the weights that were loaded are still used"
    ]

    (tmp_path / "aside").rename(folder)
    assert logits(framework, adapter) == before
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").write_bytes(weights[:1000])

    for _ in range(2):
        with pytest.raises(CheckpointError, match="damaged or incomplete"):
            framework.run(adapter, QUERY, framework.documents(TEXTS))
    (folder / "model.safetensors").write_bytes(weights)
    assert logits(framework, adapter) == before


def test_a_folder_that_changes_while_it_is_read_is_read_again(
    checkpoint: MakeCheckpoint, monkeypatch: pytest.MonkeyPatch
):
    tiny = checkpoint(NAME)
    load, loads = Reranker.load, []

    def load_and_change(*arguments: Any, **options: Any) -> Reranker:
        reranker = load(*arguments, **options)
        loads.append(reranker)
        if len(loads) <= changes:
            _write(tiny.folder / f"{len(loads)}.json")
        return reranker

    monkeypatch.setattr(Reranker, "load", load_and_change)
    changes = 1
    assert open_reranker(str(tiny.folder)) is loads[1]
    assert loads[0].is_closed

    changes = 100
    _write(tiny.folder / "another.json")
    with pytest.raises(CheckpointError, match="changed while they were read, 3 times"):
        open_reranker(str(tiny.folder))


def test_threads_that_see_a_change_at_the_same_time_share_the_new_model(framework: Adapter, checkpoint: MakeCheckpoint):
    tiny = checkpoint(NAME)
    adapter = make(framework, str(tiny.folder))
    logits(framework, adapter)
    after = trained(tiny, tiny.folder)
    found: list[list[float]] = []
    threads = [threading.Thread(target=lambda: found.append(logits(framework, adapter))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert found == [after] * 6


def test_a_revision_that_moved_in_the_hubs_cache_is_another_model(
    framework: Adapter, checkpoint: MakeCheckpoint, tmp_path: Path
):
    first, second = two_folders(checkpoint, tmp_path)
    home = tmp_path / "cache" / f"models--org--{NAME}"
    for commit, name in (("a" * 40, "first"), ("b" * 40, "second")):
        shutil.copytree(tmp_path / name / NAME, home / "snapshots" / commit)
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text("a" * 40, encoding="utf-8")
    options = {"cache_dir": str(tmp_path / "cache"), "local_files_only": True}
    adapter = make(framework, f"org/{NAME}", options=options)
    pinned = make(framework, f"org/{NAME}", options={**options, "revision": "a" * 40})
    assert logits(framework, adapter) == logits(framework, pinned) == first
    kept = pinned._handle._held

    (home / "refs" / "main").write_text("b" * 40, encoding="utf-8")

    assert logits(framework, adapter) == second
    assert logits(framework, pinned) == first
    assert pinned._handle._held is kept


def test_a_bulk_run_reads_the_folder_that_was_named(
    checkpoint: MakeCheckpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    first, second = two_folders(checkpoint, tmp_path)
    documents = [{"document_id": str(number), "text": text} for number, text in enumerate(TEXTS)]
    rows = write_lines(tmp_path / "rows.jsonl", [{"query_id": "1", "query": QUERY, "documents": documents}])
    for name, expected in (("first", first), ("second", second)):
        monkeypatch.chdir(tmp_path / name)
        run(rows, tmp_path / "out" / name, f"./{NAME}")
        table = read_part(next((tmp_path / "out" / name).glob("part-*.parquet")))
        found = dict(zip(table["document_id"].to_pylist(), table["logit"].to_pylist(), strict=True))
        assert [found["0"], found["1"]] == pytest.approx(expected, abs=1e-5)


def test_a_label_depends_on_each_tensor_and_on_the_vocabulary(checkpoint: MakeCheckpoint, tmp_path: Path):
    tiny = checkpoint(NAME)
    labels = [model_label(ModelSpec(tiny.folder))]  # type: ignore[arg-type]
    for name in tiny.model.state_dict():
        tensors = {each: 2 * tensor if each == name else tensor for each, tensor in tiny.model.state_dict().items()}
        tiny.model.save_pretrained(tiny.folder, state_dict=tensors)
        labels.append(model_label(ModelSpec(tiny.folder)))  # type: ignore[arg-type]
    tokenizer = tiny.folder / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text(encoding="utf-8").replace("Beijing", "Nanjing"), encoding="utf-8")
    labels.append(model_label(ModelSpec(tiny.folder)))  # type: ignore[arg-type]
    assert len({*labels}) == len(labels)

    shutil.copytree(tiny.folder, tmp_path / "elsewhere" / NAME)
    assert model_label(ModelSpec(str(tmp_path / "elsewhere" / NAME))) == labels[-1]


@pytest.mark.parametrize("name", ["./model", "someone/model"])
def test_a_model_is_not_found_from_a_working_directory_that_was_removed(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "removed").mkdir()
    monkeypatch.chdir(tmp_path / "removed")
    (tmp_path / "removed").rmdir()

    with pytest.raises(CheckpointError, match=r"there is no folder|neither a local folder"):
        open_reranker(name, local_files_only=True)
