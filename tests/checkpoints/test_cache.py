"""Where a model of the hub is looked for: `cache_dir` and `local_files_only`, for models and servers' tokenizers."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import constants
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from onelogit import CheckpointError, InputError, ModelSpec, RecipeError, RemoteReranker, Reranker, open_reranker
from onelogit.checkpoints import hub
from onelogit.checkpoints.fingerprint import model_label, portable_spec
from onelogit.cli.main import main
from onelogit.option_checks import plain_options
from support.adapters import ADAPTERS, Adapter
from support.servers import FakeServer, serving
from support.tiny import causal_checkpoint

QUERY, DOCUMENTS = "What is the capital of China?", ["The capital of China is Beijing.", "서울"]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
MODEL = "someone/Qwen3-Reranker-cached"
RESPONSE = SimpleNamespace(headers={}, request=None, status_code=404)
TOKENS = ("--classifier-from-tokens", '["no", "yes"]', "--method")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with one model, which is not the hub's own cache."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "the hub's own"))
    repository = tmp_path / "home" / "hub" / "models--someone--Qwen3-Reranker-cached"
    causal_checkpoint(repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    return repository.parent


@pytest.mark.parametrize("kind", [str, Path])
@pytest.mark.parametrize("further", [{}, {"local_files_only": True}, {"revision": COMMIT}], ids=str)
def test_a_model_is_loaded_from_the_given_cache(kind: Callable[[Path], Any], further: dict[str, Any], cache: Path):
    with pytest.raises(CheckpointError, match="not found on the hub|nor found on the hub"):
        Reranker.load(MODEL)

    with Reranker.load(MODEL, cache_dir=kind(cache), **further) as reranker:
        assert len(reranker.logits(QUERY, DOCUMENTS)) == 2


def test_a_cache_below_the_home_folder_is_found(cache: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(cache.parent))

    assert Reranker.load(MODEL, cache_dir="~/hub").recipe.family == "qwen3-reranker"


def test_the_hub_is_never_asked_for_local_files_only(cache: Path, monkeypatch: pytest.MonkeyPatch):
    calls: list[Any] = []

    def noted(name: str, **options: Any) -> str:
        calls.append(options["local_files_only"])
        return str(hub_download(name, **options))

    hub_download = hub.snapshot_download
    monkeypatch.setattr(hub, "snapshot_download", noted)
    Reranker.load(MODEL, cache_dir=cache, local_files_only=True)

    assert calls == [True, True]  # the small files, and the weights


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "the hub's own; load it once without local_files_only, or name another cache_dir"),
        ({"cache_dir": "{home}/hub", "revision": "v9"}, "with the revision 'v9' is neither"),
        ({"cache_dir": "{home}"}, "name the folder of the hub's cache itself, cache_dir='.*/home/hub'"),
        ({"cache_dir": "{home}/nowhere"}, "nor in the cache .*/home/nowhere; load it once"),
    ],
    ids=str,
)
def test_a_model_that_is_not_in_the_cache_is_an_error_with_the_way_out(
    options: dict[str, str], message: str, cache: Path
):
    given = {name: value.format(home=cache.parent) for name, value in options.items()}

    with pytest.raises(CheckpointError, match=f"the model '{MODEL}'.*{message}"):
        Reranker.load(MODEL, local_files_only=True, **given)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (None, "it is not like owner/name, the form of a hub id; check the spelling"),
        (
            GatedRepoError,
            "it is gated; ask for access at https://huggingface.co/{name}, and log in or pass token=",
        ),
        (RevisionNotFoundError, "it has no revision 'v9'; name a branch, a tag or a commit"),
        (RepositoryNotFoundError, "there is no such model, or it is private; check the spelling, or log in"),
        (LocalEntryNotFoundError, "the hub cannot be reached; check the network, or download the model beforehand"),
        (HfHubHTTPError, "the hub said something; try again later, or download the model beforehand"),
    ],
)
def test_each_error_of_the_hub_is_a_short_sentence(
    kind: type[Exception] | None, message: str, monkeypatch: pytest.MonkeyPatch
):
    def refuse(*_: object, **__: object) -> None:
        text = "the hub said something\nand much more"
        raise kind(text) if kind is LocalEntryNotFoundError else kind(text, response=RESPONSE)

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    if kind is not None:
        monkeypatch.setattr(hub, "snapshot_download", refuse)
    name = "no such model" if kind is None else "no-such/model"

    with pytest.raises(CheckpointError) as error:
        Reranker.load(name, revision="v9")
    assert str(error.value) == (
        f"the model {name!r} is neither a local folder nor found on the hub: {message.format(name=name)}"
    )


def test_a_model_that_is_not_downloaded_is_named_while_the_hub_is_off(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    with pytest.raises(
        CheckpointError, match="found on the hub: HF_HUB_OFFLINE is set, and the model was not.* folder$"
    ):
        Reranker.load("no-such/model")


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("cache_dir", 3, "cache_dir must be the path of a folder, not 3"),
        ("cache_dir", "", "cache_dir must be the path of a folder, not ''"),
        ("cache_dir", True, "cache_dir must be the path of a folder, not True"),
        ("local_files_only", "yes", "local_files_only must be True or False, not 'yes'"),
        ("local_files_only", 1, "local_files_only must be True or False, not 1"),
    ],
)
@pytest.mark.parametrize("url", [None, "http://127.0.0.1:9"])
def test_an_option_of_a_wrong_type_is_refused_when_the_spec_is_made(
    url: str | None, option: str, value: object, message: str
):
    with pytest.raises(InputError, match=message):
        ModelSpec(MODEL, url, {option: value})


def test_the_tokenizer_of_a_servers_model_is_read_from_the_given_cache(cache: Path):
    local = Reranker.load(MODEL, cache_dir=cache)

    with (
        serving(FakeServer(reranker=local)) as server,
        RemoteReranker(server.url, MODEL, cache_dir=cache, local_files_only=True) as remote,
    ):
        assert remote.logits(QUERY, DOCUMENTS) == pytest.approx(local.logits(QUERY, DOCUMENTS), abs=1e-5)


def test_a_path_is_plain_in_dumps_and_absolute_for_other_processes(cache: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(cache.parent)
    spec = ModelSpec(MODEL, options={"cache_dir": Path("hub"), "local_files_only": True})

    assert json.loads(json.dumps(plain_options(spec.options))) == {"cache_dir": "hub", "local_files_only": True}
    assert portable_spec(spec).options == {"cache_dir": str(cache), "local_files_only": True}
    assert spec == ModelSpec(MODEL, options={"cache_dir": "hub", "local_files_only": True})


def test_the_place_of_the_files_is_not_part_of_a_models_label(cache: Path, monkeypatch: pytest.MonkeyPatch):
    elsewhere = model_label(ModelSpec(MODEL, options={"cache_dir": cache, "local_files_only": True}))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))

    assert model_label(ModelSpec(MODEL)) == elsewhere


@pytest.mark.parametrize("framework", ADAPTERS, ids=lambda framework: type(framework).__name__)
def test_an_adapter_forwards_the_cache(framework: Adapter, cache: Path):
    options = {"cache_dir": str(cache), "local_files_only": True}
    adapter = framework.kind(model=MODEL, options=options)

    assert len(framework.run(adapter, QUERY, framework.documents(DOCUMENTS))) == 2
    adapter.close()


def test_callers_that_name_the_same_cache_share_a_reranker(cache: Path):
    one = open_reranker(MODEL, cache_dir=str(cache))

    assert open_reranker(MODEL, cache_dir=cache) is one
    one.close()


@pytest.mark.parametrize(
    "command",
    [
        ("recipes", MODEL),
        ("rank", QUERY, *DOCUMENTS, "--model", MODEL),
        ("convert", MODEL, "-o", "{out}"),
        ("convert", MODEL, "-o", "{out}", *TOKENS, "from_2_way_softmax"),
        ("convert", MODEL, "-o", "{out}", *TOKENS, "no_post_processing"),
    ],
    ids=["recipes", "rank", "convert", "convert-tokens", "convert-labels"],
)
def test_every_command_uses_the_given_cache(command: tuple[str, ...], cache: Path, tmp_path: Path):
    arguments = [each.replace("{out}", str(tmp_path / "out")) for each in command]

    assert main([*arguments, "--cache-dir", str(cache), "--local-files-only"]) == 0
    assert main([*[each.replace("/out", "/other") for each in arguments], "--local-files-only"]) == 2


def test_a_cache_without_the_weights_says_how_to_get_them(cache: Path):
    next(cache.glob("*/snapshots/*/model.safetensors")).unlink()

    with pytest.raises(
        CheckpointError, match=r"only the small files .* access to the hub \(without local_files_only\)"
    ):
        Reranker.load(MODEL, cache_dir=cache, local_files_only=True)
    assert main(["recipes", MODEL, "--cache-dir", str(cache)]) == 0


def test_a_snapshot_with_weights_is_not_said_to_lack_them(cache: Path):
    (model,) = cache.glob("models--*")
    snapshot = next(model.rename(cache / "models--org--unknown").glob("snapshots/*"))

    with pytest.raises(RecipeError, match="no recipe is known"):
        Reranker.load(snapshot)


@pytest.mark.parametrize(
    "page",
    [
        "https://huggingface.co/{}",
        "https://hf.co/{}/tree/main",
        "huggingface.co/{}",
        "http://www.huggingface.co/{}?x=1",
    ],
)
def test_a_models_page_on_the_hub_is_neither_a_server_nor_a_folder(page: str):
    with pytest.raises(InputError, match=f"is a page of the hub, not a server; give the model's id, '{MODEL}'"):
        open_reranker(page.format(MODEL))
