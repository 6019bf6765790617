"""Rerankers in pickles: opened again where they are read, or refused in one sentence; secrets are never in them."""

import copy
import multiprocessing
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from ray import cloudpickle

from onelogit import DEMO_MODEL, CheckpointError, InputError, RemoteReranker, Reranker, open_reranker
from onelogit.base_reranker import BaseReranker
from support.adapters import ADAPTERS, Adapter
from support.servers import FakeServer, serving
from support.tiny import Tiny

QUERY, TEXTS = "What is the capital of China?", ["The capital of China is Beijing.", "No."]
SECRET = "a-secret-value"
URL = "http://127.0.0.1:9"

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")


def through_pickle(reranker: Any) -> Any:
    return pickle.loads(pickle.dumps(reranker))


def in_a_spawned_process(reranker: Any) -> list[float]:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply_async(BaseReranker.logits, (reranker, QUERY, TEXTS)).get(120)


@pytest.mark.parametrize("open_it", [Reranker.load, open_reranker], ids=["load", "open"])
def test_a_reranker_is_opened_again_in_another_process(open_it: Callable[..., Reranker]):
    reranker = open_it(DEMO_MODEL, max_tokens=500)

    assert in_a_spawned_process(reranker) == pytest.approx(reranker.logits(QUERY, TEXTS), abs=1e-5)


@pytest.mark.parametrize("copied", [through_pickle, lambda each: pickle.loads(cloudpickle.dumps(each))])
def test_a_pickled_reranker_is_a_private_one_with_the_same_options(copied: Callable[[Any], Any]):
    reranker = open_reranker(DEMO_MODEL, max_tokens=500, activation="identity", instruction="Find lies.")
    reranker.activation = "sigmoid"

    with copied(reranker) as other:
        assert other is not reranker
        assert other.spec == reranker.spec
        assert other.max_tokens == 500
        assert other.rank(QUERY, TEXTS) == reranker.rank(QUERY, TEXTS)
    assert not reranker.is_closed


def test_a_relative_path_in_a_pickle_means_the_folder_that_was_loaded(
    checkpoint: Callable[..., Tiny], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    checkpoint("Qwen3-Reranker-tiny")
    monkeypatch.chdir(tmp_path)
    reranker = Reranker.load("Qwen3-Reranker-tiny")
    pickled = pickle.dumps(reranker)
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")

    assert pickle.loads(pickled).logits(QUERY, TEXTS) == reranker.logits(QUERY, TEXTS)
    (tmp_path / "Qwen3-Reranker-tiny").rename(tmp_path / "gone")
    with pytest.raises(CheckpointError):
        pickle.loads(pickled)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_a_copy_is_the_reranker_itself(copied: Callable[[Any], Any], reranker: Reranker):
    assert copied(reranker) is reranker
    with RemoteReranker(URL, DEMO_MODEL, api_key=SECRET) as remote:
        assert copied({"inside": remote})["inside"] is remote


def test_a_remote_reranker_is_opened_again(reranker: Reranker, tiny_qwen: Tiny, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ONELOGIT_API_KEY", SECRET)
    with serving(FakeServer(reranker=reranker)) as server, RemoteReranker(server.url, str(tiny_qwen.folder)) as remote:
        expected = remote.logits(QUERY, TEXTS)
        assert SECRET.encode() not in pickle.dumps(remote)

        assert in_a_spawned_process(remote) == expected
        with through_pickle(remote) as other:
            assert other.rank(QUERY, TEXTS) == remote.rank(QUERY, TEXTS)
        assert {headers["Authorization"] for headers in server.requests.headers} == {f"Bearer {SECRET}"}


SECRETS: dict[str, Callable[[], Any]] = {
    "a pickle would contain token in plain text; set HF_TOKEN": lambda: Reranker.load(DEMO_MODEL, token=SECRET),
    "a pickle would contain api_key": lambda: RemoteReranker(URL, DEMO_MODEL, api_key=SECRET),
    "a pickle would contain token, api_key": lambda: RemoteReranker(URL, DEMO_MODEL, token=SECRET, api_key=SECRET),
    "the header X-Api-Key": lambda: RemoteReranker(URL, DEMO_MODEL, headers={"X-Api-Key": SECRET, "X-Route": "gpu"}),
    "the header X-Route": lambda: RemoteReranker(URL, DEMO_MODEL, headers={"X-Route": f"Bearer {SECRET}"}),
    "a custom HTTP client": lambda: RemoteReranker(URL, DEMO_MODEL, client=httpx2.AsyncClient()),
}


@pytest.mark.parametrize("message", SECRETS)
@pytest.mark.parametrize("dumps", [pickle.dumps, cloudpickle.dumps])
def test_a_reranker_with_a_secret_cannot_be_pickled(message: str, dumps: Callable[[Any], bytes]):
    with SECRETS[message]() as reranker, pytest.raises(InputError, match=message) as refused:
        dumps(reranker)

    assert SECRET not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_what_is_not_secret_can_be_pickled():
    with Reranker.load(DEMO_MODEL, token=False) as reranker:
        assert through_pickle(reranker).options["token"] is False
    with RemoteReranker(URL, DEMO_MODEL, headers={"X-Route": "gpu"}) as remote, through_pickle(remote) as other:
        assert other.options["headers"] == {"X-Route": "gpu"}


def test_a_closed_reranker_cannot_be_pickled():
    for reranker in (Reranker.load(DEMO_MODEL), RemoteReranker(URL, DEMO_MODEL)):
        reranker.close()
        with pytest.raises(InputError, match="a closed reranker cannot be pickled"):
            pickle.dumps(reranker)


def test_a_reranker_created_from_objects_cannot_be_pickled(reranker: Reranker, tmp_path: Path):
    created = Reranker(reranker.classifier, reranker._scorer.tokenizer, reranker.recipe)
    assert created.spec is None

    with pytest.raises(InputError, match="created from objects cannot be pickled; save it"):
        pickle.dumps(created)
    created.save(tmp_path / "saved")
    with Reranker.load(tmp_path / "saved") as saved:
        assert through_pickle(saved).logits(QUERY, TEXTS) == pytest.approx(created.logits(QUERY, TEXTS), abs=1e-5)


@pytest.mark.parametrize("framework", ADAPTERS, ids=lambda adapter: type(adapter).__name__)
def test_an_adapter_of_a_given_reranker_is_opened_again(
    framework: Adapter, checkpoint: Callable[..., Tiny], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    checkpoint("Qwen3-Reranker-tiny")
    monkeypatch.chdir(tmp_path)
    with Reranker.load("Qwen3-Reranker-tiny", max_tokens=400) as given:
        (tmp_path / "other").mkdir()
        monkeypatch.chdir(tmp_path / "other")
        adapter = framework.kind.from_reranker(given)
        other = through_pickle(adapter)

        assert framework.run(other, QUERY, framework.documents(TEXTS)) == framework.run(
            adapter, QUERY, framework.documents(TEXTS)
        )
        assert other._handle._held.max_tokens == 400


def created_from_objects() -> Reranker:
    loaded = Reranker.load(DEMO_MODEL)
    return Reranker(loaded.classifier, loaded._scorer.tokenizer, loaded.recipe, name=DEMO_MODEL)


def with_another_activation() -> Reranker:
    reranker = Reranker.load(DEMO_MODEL)
    reranker.activation = "identity"
    return reranker


def with_a_client() -> RemoteReranker:
    return RemoteReranker(URL, DEMO_MODEL, client=httpx2.AsyncClient())


@pytest.mark.parametrize("framework", ADAPTERS, ids=lambda adapter: type(adapter).__name__)
@pytest.mark.parametrize("make", [created_from_objects, with_another_activation, with_a_client])
def test_an_adapter_whose_pickle_would_open_another_reranker_cannot_be_pickled(
    framework: Adapter, make: Callable[[], Any]
):
    with make() as given, pytest.raises(InputError, match="this adapter cannot be pickled"):
        pickle.dumps(framework.kind.from_reranker(given))
