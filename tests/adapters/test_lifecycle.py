"""The lifecycle of adapters: a shared model from the first call to `close`, copies, and dumps without secrets."""

import asyncio
import copy
import gc
import itertools
import pickle
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from haystack.utils import ComponentDevice

from onelogit import (
    CheckpointError,
    InputError,
    ModelSpec,
    OnelogitError,
    RemoteReranker,
    Reranker,
    ServerError,
    open_reranker,
)
from onelogit.recipes.families import FAMILIES
from onelogit.registry import AnyReranker, find_spec
from support.adapters import ADAPTERS, Adapter, Haystack, make
from support.servers import FakeServer, serving
from support.tiny import Tiny

QUERY = "What is the capital of China?"
TEXTS = ["The capital of China is Beijing.", "서울", "No."]
UNIQUE = itertools.count(10_000)  # option values that no other test uses, so that a model is loaded
SECRET = "hf_a-secret-token"


@pytest.fixture(params=ADAPTERS, ids=lambda adapter: type(adapter).__name__)
def framework(request: pytest.FixtureRequest) -> Adapter:
    return request.param


@pytest.fixture
def model(tiny_qwen: Tiny) -> str:
    return str(tiny_qwen.folder)


def find_reranker(model: str, options: Any) -> AnyReranker | None:
    return find_spec(ModelSpec.of(model, options))


def reranker_of(adapter: Any) -> Reranker | None:
    return adapter._handle._held


def test_adapters_with_the_same_model_share_its_weights(framework: Adapter, model: str):
    first, second = make(framework, model), make(framework, model)

    framework.run(first, QUERY, framework.documents(TEXTS))
    framework.run(second, QUERY, framework.documents(TEXTS))

    assert reranker_of(first) is reranker_of(second) is not None


def test_adapters_of_all_frameworks_share_weights(model: str):
    adapters = [make(framework, model) for framework in ADAPTERS]
    for adapter in adapters:
        adapter.warm_up()

    assert len({id(reranker_of(adapter)) for adapter in adapters}) == 1


def test_a_token_in_the_environment_does_not_load_another_model(model: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_TOKEN", SECRET)

    test_adapters_of_all_frameworks_share_weights(model)


@pytest.mark.parametrize("call", ["arun", "awarm_up"])
def test_a_model_is_never_loaded_in_the_event_loops_thread(
    framework: Adapter, model: str, call: str, monkeypatch: pytest.MonkeyPatch
):
    threads: list[threading.Thread] = []
    load = Reranker.load

    def recording_load(*args: Any, **options: Any) -> Reranker:
        threads.append(threading.current_thread())
        return load(*args, **options)

    monkeypatch.setattr(Reranker, "load", recording_load)
    adapter = make(framework, model, options={"batch_tokens": next(UNIQUE)})
    coroutine = (
        framework.arun(adapter, QUERY, framework.documents(TEXTS)) if call == "arun" else framework.awarm_up(adapter)
    )

    asyncio.run(coroutine)

    assert len(threads) == 1
    assert threading.main_thread() not in threads


def test_closing_while_the_model_is_loading_takes_effect(
    framework: Adapter, model: str, monkeypatch: pytest.MonkeyPatch
):
    adapter = make(framework, model, options={"batch_tokens": next(UNIQUE)})
    load = Reranker.load

    def closing(*args: Any, **options: Any) -> Reranker:
        adapter.close()
        return load(*args, **options)

    monkeypatch.setattr(Reranker, "load", closing)
    adapter.warm_up()

    assert not adapter._handle.is_open


def test_closing_a_copy_does_not_close_the_original(framework: Adapter, model: str):
    adapter = make(framework, model)
    adapter.warm_up()

    copy.copy(adapter).close()

    assert adapter._handle.is_open


def test_options_that_a_given_reranker_determines_are_refused(framework: Adapter, reranker: Reranker):
    with pytest.raises(InputError, match="dtype cannot be set"):
        framework.kind.from_reranker(reranker, dtype="float32")


def test_a_closed_given_reranker_is_not_replaced(framework: Adapter, model: str):
    reranker = Reranker.load(model)
    adapter = framework.kind.from_reranker(reranker)
    reranker.close()

    with pytest.raises(OnelogitError, match="is closed"):
        framework.run(adapter, QUERY, framework.documents(TEXTS))


async def test_a_reranker_opened_asynchronously_is_kept(framework: Adapter, model: str):
    options = {"max_tokens": 711}
    first, second = make(framework, model, options=options), make(framework, model, options=options)
    await framework.awarm_up(first)
    await framework.arun(second, QUERY, framework.documents(TEXTS))
    first.close()
    gc.collect()

    assert reranker_of(second) is find_reranker(model, options) is not None


def test_warm_up_loads_the_model_and_close_releases_it(framework: Adapter, model: str):
    options = {"max_tokens": 712}
    adapter = make(framework, model, options=options)
    assert find_reranker(model, options) is None

    adapter.warm_up()
    assert find_reranker(model, options) is not None
    results = framework.run(adapter, QUERY, framework.documents(TEXTS))
    adapter.close()
    gc.collect()

    assert find_reranker(model, options) is None
    assert framework.run(adapter, QUERY, framework.documents(TEXTS)) == results


def test_closing_one_adapter_does_not_close_the_others(framework: Adapter, model: str):
    first, second = make(framework, model), make(framework, model)
    first.warm_up()
    second.warm_up()
    reranker = reranker_of(second)

    first.close()
    framework.run(second, QUERY, framework.documents(TEXTS))

    assert reranker_of(second) is reranker


def test_a_closed_shared_reranker_is_opened_again(framework: Adapter, model: str):
    adapter = make(framework, model)
    results = framework.run(adapter, QUERY, framework.documents(TEXTS))

    with open_reranker(model):
        pass

    assert framework.run(adapter, QUERY, framework.documents(TEXTS)) == results


def test_a_changed_model_name_is_used(framework: Adapter, model: str, reranker: Reranker):
    for adapter in (make(framework, model), framework.kind.from_reranker(reranker)):
        framework.run(adapter, QUERY, framework.documents(TEXTS))

        adapter.model = "no-such/model"

        with pytest.raises(CheckpointError, match="no-such/model"):
            framework.run(adapter, QUERY, framework.documents(TEXTS))


def test_a_given_reranker_is_used_and_never_closed(framework: Adapter, model: str):
    with Reranker.load(model, max_tokens=713, token=False) as reranker:
        adapter = framework.kind.from_reranker(reranker, instruction="Find lies.")
        expected = reranker.rank(QUERY, TEXTS, instruction="Find lies.")

        results = framework.run(adapter, QUERY, framework.documents(TEXTS))
        adapter.close()

        assert [result.logit for result in results] == [ranked.logit for ranked in expected]
        assert not reranker.is_closed
        assert find_reranker(model, {"max_tokens": 713}) is None
        assert framework.run(adapter, QUERY, framework.documents(TEXTS)) == results
        assert framework.loaded(framework.dumped(adapter)).options == {"max_tokens": 713}


COPIES: list[Callable[[Any], Any]] = [copy.copy, copy.deepcopy, lambda adapter: pickle.loads(pickle.dumps(adapter))]


@pytest.mark.parametrize("copied", COPIES, ids=["copy", "deepcopy", "pickle"])
@pytest.mark.parametrize("is_used", [False, True])
def test_a_copy_ranks_like_the_original(framework: Adapter, model: str, copied: Callable[[Any], Any], is_used: bool):
    adapter = make(framework, model, 2, instruction="Find lies.")
    if is_used:
        framework.run(adapter, QUERY, framework.documents(TEXTS))

    other = copied(adapter)

    assert framework.run(other, QUERY, framework.documents(TEXTS)) == framework.run(
        adapter, QUERY, framework.documents(TEXTS)
    )
    assert reranker_of(other) is reranker_of(adapter)


def test_a_dumped_and_loaded_adapter_is_the_same(framework: Adapter, model: str):
    recipe = replace(FAMILIES[0], family="mine", default_instruction="Find lies.")
    fields = {
        "score_threshold": 0.0,
        "instruction": "",
        "device": "cpu",
        "dtype": "float32",
        "deduplicate": True,
        "on_error": "keep_order",
        "progress": False,
        "options": {"max_tokens": 714, "recipe": recipe},
    }
    adapter = make(framework, model, 2, **fields)

    text = framework.dumped(adapter)
    read = framework.loaded(text)

    assert framework.dumped(read) == text
    assert framework.run(read, QUERY, framework.documents(TEXTS)) == framework.run(
        adapter, QUERY, framework.documents(TEXTS)
    )
    assert reranker_of(read) is reranker_of(adapter) is not None
    assert reranker_of(read).recipe.family == "mine"
    assert reranker_of(read).max_tokens == 714


def test_a_secret_is_used_and_never_dumped(framework: Adapter, model: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_TOKEN", SECRET)
    adapter = make(framework, model, token=framework.secret("HF_TOKEN", SECRET), options={"max_tokens": 716})
    adapter.warm_up()

    assert reranker_of(adapter).options["token"] == SECRET
    for shown in (framework.dumped(adapter), repr(adapter), str(adapter)):
        assert SECRET not in shown


@pytest.mark.parametrize("protocol", ["vllm-tokens", "rerank"])
def test_a_server_can_replace_a_local_model(
    framework: Adapter, model: str, reranker: Reranker, protocol: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("ONELOGIT_API_KEY", SECRET)
    options = {} if protocol == "vllm-tokens" else {"template": "client"}
    with serving(FakeServer(reranker=reranker)) as server:
        key = framework.secret("ONELOGIT_API_KEY", SECRET)
        adapter = make(framework, model, 2, url=server.url, protocol=protocol, api_key=key, options=options)
        documents = framework.documents(TEXTS)
        expected = framework.run(make(framework, model, 2), QUERY, documents)

        results = framework.run(adapter, QUERY, documents)
        again = framework.loaded(framework.dumped(adapter))

        assert [result.id for result in results] == [result.id for result in expected]
        assert [r.logit for r in results] == pytest.approx([r.logit for r in expected], abs=1e-5)
        assert asyncio.run(framework.arun(adapter, QUERY, documents)) == results
        assert framework.run(again, QUERY, documents) == results
        assert {headers["Authorization"] for headers in server.requests.headers} == {f"Bearer {SECRET}"}
        assert SECRET not in framework.dumped(adapter) + repr(adapter)


def test_a_given_remote_reranker_is_used(framework: Adapter, model: str, reranker: Reranker):
    with serving(FakeServer(reranker=reranker)) as server, RemoteReranker(server.url, model, api_key=SECRET) as remote:
        adapter = framework.kind.from_reranker(remote)

        framework.run(adapter, QUERY, framework.documents(TEXTS))

        assert reranker_of(adapter) is remote
        assert SECRET not in framework.dumped(adapter) + repr(adapter)


def test_a_given_remote_reranker_needs_no_model(framework: Adapter, reranker: Reranker):
    with (
        serving(FakeServer(reranker=reranker)) as server,
        RemoteReranker(server.url, protocol="rerank", template="server") as remote,
    ):
        adapter = framework.kind.from_reranker(remote)

        framework.run(adapter, QUERY, framework.documents(TEXTS))

        assert reranker_of(adapter) is remote


def test_a_change_inside_an_option_is_noticed(framework: Adapter):
    adapter = framework.kind(model="m", url="http://127.0.0.1:9", options={"headers": {"X-Route": "cpu"}})
    before = adapter._spec()

    adapter.options["headers"]["X-Route"] = "gpu"

    assert before.options["headers"] == {"X-Route": "cpu"}
    assert adapter._spec().options["headers"] == {"X-Route": "gpu"}


def test_a_secret_in_a_header_is_never_dumped(framework: Adapter, model: str):
    headers = {"X-Api-Key": SECRET, "X-Route": "gpu"}
    with pytest.raises(ValueError, match="the header X-Api-Key in the options would be written into dumps") as refused:
        make(framework, model, url="http://127.0.0.1:9", options={"headers": headers}).warm_up()
    with RemoteReranker("http://127.0.0.1:9", model, headers=headers) as remote:
        dumped = framework.dumped(framework.kind.from_reranker(remote))

    assert SECRET not in dumped + str(refused.value)
    assert "X-Route" in dumped


def test_an_unavailable_server_is_an_error_that_can_be_tolerated(framework: Adapter, model: str):
    fields = {"url": "http://127.0.0.1:9", "options": {"attempts": 1}}
    with pytest.raises(ServerError, match="does not answer"):
        framework.run(make(framework, model, **fields), QUERY, framework.documents(TEXTS))

    results = framework.run(make(framework, model, on_error="keep_order", **fields), QUERY, framework.documents(TEXTS))

    assert [result.text for result in results] == TEXTS


def test_local_options_are_refused_for_a_server(framework: Adapter, model: str):
    with pytest.raises(ValueError, match="'device' is not an option of a server"):
        make(framework, model, url="http://127.0.0.1:9", device="cpu")
    with pytest.raises(ValueError, match="give a url"):
        make(framework, model, protocol="tei")


def test_a_token_among_the_options_is_refused_because_it_would_be_dumped(framework: Adapter, model: str):
    with pytest.raises(ValueError, match="pass it as token=") as refused:
        make(framework, model, options={"token": SECRET})

    assert SECRET not in str(refused.value)


def test_an_option_given_twice_is_refused(framework: Adapter, model: str):
    with pytest.raises(ValueError, match="dtype is given twice"):
        make(framework, model, dtype="float32", options={"dtype": "bfloat16"})


def test_a_malformed_recipe_is_a_clear_error(framework: Adapter, model: str):
    with pytest.raises(ValueError, match="put true, false, yes and no in quotes"):
        make(framework, model, options={"recipe": {"family": "qwen3-reranker", "read_out": {True: True}}})


def test_haystacks_device_is_dumped_as_a_string_and_none_stays_none(model: str):
    assert make(Haystack(), model, device=ComponentDevice.from_str("cuda:1")).to_dict()["init_parameters"][
        "device"
    ] == ("cuda:1")
    ranker = make(Haystack(), model)
    ranker.warm_up()
    assert ranker.to_dict()["init_parameters"]["device"] is None


def test_cancelling_a_task_while_the_model_loads_leaves_the_adapter_usable(framework: Adapter, model: str):
    adapter = make(framework, model, options={"max_tokens": 715})

    async def cancel_and_ask_again() -> list[Any]:
        task = asyncio.ensure_future(framework.arun(adapter, QUERY, framework.documents(TEXTS)))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return await framework.arun(adapter, QUERY, framework.documents(TEXTS))

    assert len(asyncio.run(cancel_and_ask_again())) == len(TEXTS)
