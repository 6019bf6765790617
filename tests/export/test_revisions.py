"""An export records the commits of the hub that it was made from: the model's, or an adapter's and its base's."""

import json
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from huggingface_hub import constants

from onelogit import Reranker
from support.adapters import ADAPTERS, Adapter
from support.commands import output
from support.peft_adapters import save_adapter
from support.tiny import causal_checkpoint

peft = pytest.importorskip("peft")

MAIN, PINNED, BASE, OLD_BASE = "a" * 40, "b" * 40, "c" * 40, "d" * 40
MODEL, LORA, ORIGINAL = "someone/Qwen3-Reranker-ft", "someone/qwen3-reranker-lora", "owner/Qwen3-Reranker-base"
TOKENS = ("--classifier-from-tokens", '["no", "yes"]', "--method", "no_post_processing")


class Recorded(NamedTuple):
    """What an exported folder says about its origin."""

    source: str
    revision: str | None
    base: str | None = None
    base_revision: str | None = None


def recorded(folder: Path) -> Recorded:
    """The fields of the probe file, which the model card repeats."""
    probe = json.loads((folder / "reranker_probe.json").read_text())
    found = Recorded(*(probe.get(name) for name in Recorded._fields))
    card = " ".join((folder / "README.md").read_text().split())
    for name, commit in ((found.source, found.revision), (found.base, found.base_revision)):
        assert commit is None or f"[{name}](https://huggingface.co/{name}/tree/{commit})" in card
    return found


def snapshot(cache: Path, model: str, commit: str) -> Path:
    return cache / f"models--{model.replace('/', '--')}" / "snapshots" / commit


def set_fields(folder: Path, **fields: object) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


def add(cache: Path, model: str, folder: Path, **commits: str) -> None:
    """Copy a model into the cache, with a commit for each branch."""
    for branch, commit in commits.items():
        shutil.copytree(folder, snapshot(cache, model, commit))
        references = cache / f"models--{model.replace('/', '--')}" / "refs"
        references.mkdir(exist_ok=True)
        (references / branch).write_text(commit)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with a model, an adapter and its base, each with a commit of `main` and one of `v9`."""
    folder = tmp_path_factory.mktemp("written")
    whole = causal_checkpoint(folder / "whole").folder
    save_adapter(folder / "lora", whole, peft.LoraConfig(r=4, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    set_fields(folder / "lora", base_model_name_or_path=ORIGINAL)
    add(folder / "hub", MODEL, whole, main=MAIN, v9=PINNED)
    add(folder / "hub", ORIGINAL, whole, main=BASE, v9=OLD_BASE)
    add(folder / "hub", LORA, folder / "lora", main=MAIN, v9=PINNED)
    return folder / "hub"


@pytest.fixture
def cache(written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy, which is the hub's cache."""
    shutil.copytree(written, tmp_path / "hub")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize(("revision", "commit"), [(None, MAIN), ("v9", PINNED), (PINNED, PINNED)])
def test_the_commit_of_a_model_is_recorded(revision: str | None, commit: str, tmp_path: Path):
    with Reranker.load(MODEL, revision=revision) as reranker:
        reranker.save(tmp_path / "out")

    assert recorded(tmp_path / "out") == (MODEL, commit, None, None)


def test_a_folder_of_the_cache_is_recorded_by_the_models_id(cache: Path, tmp_path: Path):
    with Reranker.load(snapshot(cache, MODEL, PINNED)) as reranker:
        reranker.save(tmp_path / "out")

    assert recorded(tmp_path / "out") == (MODEL, PINNED, None, None)
    front = yaml.safe_load((tmp_path / "out" / "README.md").read_text().split("---")[1])
    assert front["base_model"] == MODEL


def test_a_folder_elsewhere_has_no_commit(cache: Path, tmp_path: Path):
    folder = tmp_path / "snapshots" / "Qwen3-Reranker-mine"
    shutil.copytree(snapshot(cache, MODEL, MAIN), folder)

    with Reranker.load(folder) as reranker:
        reranker.save(tmp_path / "out")

    assert recorded(tmp_path / "out") == ("Qwen3-Reranker-mine", None, None, None)


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("tokens", [(), TOKENS], ids=["reranker", "labels"])
def test_a_command_records_the_pinned_commit(
    tokens: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    output(capsys, "convert", MODEL, "-o", tmp_path / "out", "--revision", "v9", "--device", "cpu", *tokens)

    assert recorded(tmp_path / "out") == (MODEL, PINNED, None, None)


@pytest.mark.parametrize(
    ("fields", "options", "revision", "base_revision"),
    [
        ({}, {}, MAIN, BASE),
        ({}, {"revision": "v9"}, PINNED, BASE),  # of the adapter, not of its base
        ({"revision": "v9"}, {}, MAIN, OLD_BASE),
        ({"revision": OLD_BASE}, {"revision": PINNED}, PINNED, OLD_BASE),
        ({"revision": "v9"}, {"base_model": ORIGINAL}, MAIN, OLD_BASE),  # the same base, which the adapter pins
    ],
)
def test_the_commits_of_an_adapter_and_of_its_base_are_recorded(
    fields: dict, options: dict, revision: str, base_revision: str, cache: Path, tmp_path: Path
):
    for commit in (MAIN, PINNED):
        set_fields(snapshot(cache, LORA, commit), **fields)

    with Reranker.load(LORA, **options) as reranker:
        reranker.save(tmp_path / "out")

    assert recorded(tmp_path / "out") == (LORA, revision, ORIGINAL, base_revision)


def test_of_a_local_adapter_or_base_only_the_others_commit_is_recorded(cache: Path, tmp_path: Path):
    adapter = snapshot(cache, LORA, MAIN).rename(tmp_path / "my-adapter")
    base = snapshot(cache, ORIGINAL, OLD_BASE).rename(tmp_path / "my-base")

    Reranker.load(adapter).save(tmp_path / "out")
    Reranker.load(LORA, revision="v9", base_model=base, recipe="qwen3-reranker").save(tmp_path / "other")

    assert recorded(tmp_path / "out") == ("my-adapter", None, ORIGINAL, BASE)
    assert recorded(tmp_path / "other") == (LORA, PINNED, "my-base", None)


@pytest.mark.parametrize("framework", ADAPTERS, ids=lambda adapter: type(adapter).__name__)
def test_the_revision_of_a_frameworks_adapter_is_the_one_that_is_recorded(
    framework: Adapter, cache: Path, tmp_path: Path
):
    given = framework.kind(model=LORA, revision="v9", options={"cache_dir": str(cache), "base_model": ORIGINAL})
    adapter = framework.loaded(framework.dumped(given))
    adapter.warm_up()

    adapter._handle._held.save(tmp_path / "out")
    adapter.close()

    assert recorded(tmp_path / "out") == (LORA, PINNED, ORIGINAL, BASE)
