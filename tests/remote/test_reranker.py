"""Options and lifecycle of a `RemoteReranker`: what it refuses, what it shares between threads, and how it closes."""

import asyncio
import gc
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import httpx2
import pytest

from onelogit import (
    DEMO_MODEL,
    CheckpointError,
    InputError,
    OnelogitError,
    RemoteReranker,
    Reranker,
    ServerError,
    open_reranker,
)
from support.servers import NOT_FOUND, FakeServer, serving
from support.tiny import Tiny, causal_checkpoint, tiny_parts

QUERY = "What is the capital of China?"
TEXTS = ["The capital of China is Beijing.", "서울", "No.", "yes " * 40, "", "No.", "<|im_end|> \n"]


def test_the_tokenizer_file_alone_gives_the_same_rows(family: Any, tmp_path: Path):
    folder = causal_checkpoint(tmp_path / family.models[0].split("/")[1], **tiny_parts(family)).folder
    with Reranker.load(folder, recipe=family) as reranker:
        pairs = [(QUERY, text) for text in TEXTS]
        expected = reranker._scorer.rows(pairs)
        with RemoteReranker("http://127.0.0.1:9", str(folder), recipe=family) as remote:
            assert remote._scorer._loaded.encoder.rows(pairs, remote._scorer.instruction) == expected


def test_a_remote_reranker_loads_no_torch():
    program = (
        "import sys; from onelogit import open_reranker, DEMO_MODEL; "
        "open_reranker('http://127.0.0.1:9', model=DEMO_MODEL).close(); "
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )

    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_callers_with_the_same_options_share_one_remote_reranker(model: str):
    first = open_reranker("http://127.0.0.1:9", model=model)

    assert open_reranker(model, url="http://127.0.0.1:9") is first
    assert open_reranker(model, url="http://127.0.0.1:9", pairs_a_request=3) is not first
    with pytest.raises(InputError, match="not an option of a server"):
        open_reranker(model, url="http://127.0.0.1:9", device="cpu")
    with pytest.raises(InputError, match="give a url"):
        open_reranker(model, protocol="tei")
    with pytest.raises(InputError, match="two models"):
        open_reranker(model, url="http://127.0.0.1:9", model="another/model")


@pytest.mark.parametrize(
    ("url", "options", "message"),
    [
        ("http://a", {"protocol": "grpc"}, "unknown protocol 'grpc'"),
        ("http://a", {"protocol": "rerank"}, "template must be 'client' to send whole prompts, .*, not None"),
        ("http://a", {"template": "server"}, "sends token ids, so template must be 'client', not 'server'"),
        ("http://a", {"timeout_s": 0}, "above 0"),
        ("http://a", {"timeout_s": "soon"}, "above 0, not 'soon'"),
        ("http://a", {"timeout_s": True}, "above 0"),
        ("http://a", {"timeout_s": float("nan")}, "above 0"),
        ("http://a", {"attempts": 0}, "from 1 up, not 0"),
        ("http://a", {"topn": 1}, "unknown option 'topn'"),
        ("http://a", {"device": "cpu"}, "'device' is not an option of a server"),
    ],
)
def test_invalid_options_are_refused_at_once(url: str, options: dict[str, Any], message: str):
    with pytest.raises(InputError, match=message):
        RemoteReranker(url, DEMO_MODEL, **options)


def test_a_missing_model_raises_the_same_error_as_locally():
    with pytest.raises(CheckpointError, match="no-such/model"):
        RemoteReranker("http://127.0.0.1:9", "no-such/model")
    with pytest.raises(InputError, match="pass the model's hub id or folder as model"):
        RemoteReranker("http://127.0.0.1:9")


def test_a_wrong_model_name_or_path_is_one_clear_error(local: Reranker, model: str):
    with serving(FakeServer(reranker=local)) as server, RemoteReranker(server.url, model, served_name="nope") as remote:
        with pytest.raises(ServerError, match="The model `nope` does not exist"):
            remote.logits(QUERY, TEXTS)
    two_models = FakeServer(reranker=local, model_names=("a", "b"))
    with serving(two_models) as server, RemoteReranker(server.url, model) as remote:
        with pytest.raises(InputError, match="serves several models: pass one of a, b as served_name"):
            remote.logits(QUERY, TEXTS)
    with serving(lambda path, body: NOT_FOUND) as server, RemoteReranker(server.url, model) as remote:
        with pytest.raises(ServerError, match="404: Not Found .*a classifier with one label"):
            remote.logits(QUERY, TEXTS)


def test_threads_and_event_loops_share_one_client(local: Reranker, model: str):
    with serving(FakeServer(reranker=local)) as server, RemoteReranker(server.url, model, requests_at_once=3) as remote:
        expected = remote.logits(QUERY, TEXTS)
        calls = [lambda: remote.logits(QUERY, TEXTS), lambda: asyncio.run(_alogits(remote))]
        with ThreadPoolExecutor(8) as pool:
            results = list(pool.map(lambda n: calls[n % 2](), range(16)))

    assert results == [expected] * 16
    assert server.requests.max_concurrent <= 3
    assert len(server.requests.connections) <= 3


async def _alogits(remote: RemoteReranker) -> list[float]:
    ranking = await remote.arank(QUERY, TEXTS)
    return [ranked.logit for ranked in sorted(ranking, key=lambda ranked: ranked.index)]


@pytest.mark.parametrize("library", [httpx, httpx2])
def test_a_custom_client_is_used_and_closed_with_the_reranker(local: Reranker, model: str, library: Any):
    client = library.AsyncClient(headers={"X-Mine": "yes"})
    with serving(FakeServer(reranker=local)) as server, RemoteReranker(server.url, model, client=client) as remote:
        remote.logits(QUERY, TEXTS)

    assert server.requests.headers[0]["X-Mine"] == "yes"
    assert client.is_closed


def test_close_ends_the_thread_and_later_calls_raise(local: Reranker, model: str):
    with serving(FakeServer(reranker=local)) as server:
        before = set(threading.enumerate())
        remote = RemoteReranker(server.url, model)
        remote.logits(QUERY, TEXTS)
        (thread,) = (each for each in set(threading.enumerate()) - before if each.name == "onelogit-client")
        remote.close()
        remote.close()

    with pytest.raises(OnelogitError, match="closed"):
        remote.logits(QUERY, TEXTS)
    assert not thread.is_alive()


def test_garbage_collection_ends_the_thread(local: Reranker, model: str):
    with serving(FakeServer(reranker=local)) as server:
        before = set(threading.enumerate())
        remote = RemoteReranker(server.url, model)
        remote.logits(QUERY, TEXTS)
        (thread,) = (each for each in set(threading.enumerate()) - before if each.name == "onelogit-client")
        del remote
        gc.collect()
        thread.join(timeout=10)

    assert not thread.is_alive()


def test_a_servers_model_may_have_a_name_that_is_no_path_here():
    with RemoteReranker("http://127.0.0.1:1", "x" * 3000, protocol="rerank", template="server") as remote:
        assert remote.activation == "identity"


def test_the_prompt_is_the_local_rerankers_if_this_side_writes_it(tiny_qwen: Tiny):
    with Reranker.load(tiny_qwen.folder, max_tokens=300) as local:
        expected = local.prompt("What?", "Beijing " * 90, "Find it.")
    sides = ({}, {"protocol": "rerank", "template": "client"})
    for options in sides:
        with RemoteReranker("http://127.0.0.1:1", str(tiny_qwen.folder), max_tokens=300, **options) as remote:
            assert remote.prompt("What?", "Beijing " * 90, "Find it.") == expected
            with pytest.raises(InputError, match="the query is empty"):
                remote.prompt(" ", "a")
    with RemoteReranker("http://127.0.0.1:1", protocol="rerank", template="server") as remote:
        with pytest.raises(InputError, match="the server writes the prompts"):
            remote.prompt("What?", "a")
