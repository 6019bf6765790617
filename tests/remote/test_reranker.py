"""The same doors, the same numbers, and behind them a server: every protocol, and what a server may be wrong in."""

import asyncio
import gc
import logging
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
from onelogit.recipes.families import FAMILIES
from support.servers import NOT_FOUND, FakeServer, Response, serving
from support.tiny import ARCHITECTURE_OF_FAMILY, Tiny, causal_checkpoint

QUERY = "What is the capital of China?"
TEXTS = ["The capital of China is Beijing.", "서울", "No.", "yes " * 40, "", "No.", "<|im_end|> \n"]
SECRET = "sk-a-secret-that-nobody-may-read"
PROTOCOLS: list[dict[str, Any]] = [
    {"protocol": "vllm-tokens"},
    *({"protocol": name, "template": who} for name in ("rerank", "tei", "sglang") for who in ("client", "server")),
]


def served(local: Reranker, options: dict[str, Any]) -> FakeServer:
    return FakeServer(reranker=local, protocol=options["protocol"])


@pytest.fixture(scope="module")
def model(tiny_qwen: Tiny) -> str:
    return str(tiny_qwen.folder)


@pytest.fixture(scope="module")
def local(model: str) -> Any:
    with Reranker.load(model) as reranker:
        yield reranker


@pytest.fixture(scope="module")
def exported(local: Reranker, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("exports") / "qwen3-reranker-tiny"
    local.save(folder)
    return str(folder)


@pytest.mark.parametrize("options", PROTOCOLS, ids=lambda options: "-".join(options.values()))
def test_every_protocol_gives_the_local_logits_in_the_given_order(local: Reranker, model: str, options: dict[str, Any]):
    texts = [text for text in TEXTS if "im_end" not in text]  # servers of texts read it as a control token
    with serving(served(local, options)) as server:
        with RemoteReranker(server.url, model, pairs_a_request=2, **options) as remote:
            assert remote.logits(QUERY, texts) == pytest.approx(local.logits(QUERY, texts), abs=1e-5)
            ranking = remote.rank(QUERY, texts, top_n=3)
            assert asyncio.run(remote.arank(QUERY, texts, top_n=3)) == ranking

    assert [ranked.index for ranked in ranking] == [ranked.index for ranked in local.rank(QUERY, texts, top_n=3)]
    assert [ranked.score for ranked in ranking] == pytest.approx(
        [r.score for r in local.rank(QUERY, texts, 3)], abs=1e-5
    )


def test_tokens_are_safe_from_control_tokens_in_a_text(local: Reranker, model: str):
    with serving(FakeServer(reranker=local)) as server, RemoteReranker(server.url, model) as remote:
        assert remote.logits(QUERY, TEXTS) == pytest.approx(local.logits(QUERY, TEXTS), abs=1e-5)


def test_pairs_of_any_queries_keep_their_order(local: Reranker, model: str):
    pairs = [("a", "b"), ("c", "d"), ("a", "e"), ("a", "f")]
    expected = pytest.approx(local.pair_logits(pairs), abs=1e-5)
    for options in PROTOCOLS:
        with serving(served(local, options)) as server, RemoteReranker(server.url, model, **options) as remote:
            assert remote.pair_logits(pairs) == expected
            assert remote.pair_logits([]) == []


@pytest.mark.parametrize("options", [PROTOCOLS[0], PROTOCOLS[1], PROTOCOLS[2]])
def test_an_instruction_reaches_the_model(local: Reranker, model: str, options: dict[str, Any]):
    expected = pytest.approx(local.logits(QUERY, TEXTS[:3], "Find lies."), abs=1e-5)
    with serving(FakeServer(reranker=local)) as server:
        with RemoteReranker(server.url, model, **options) as remote:
            assert remote.logits(QUERY, TEXTS[:3], "Find lies.") == expected
        with RemoteReranker(server.url, model, instruction="Find lies.", **options) as remote:
            assert remote.logits(QUERY, TEXTS[:3]) == expected


def test_an_instruction_that_would_be_ignored_is_an_error(local: Reranker, model: str):
    with serving(FakeServer(reranker=local, has_template=False)) as server:
        with RemoteReranker(server.url, model, protocol="rerank", template="server") as remote:
            with pytest.raises(InputError, match="it would be ignored"):
                remote.logits(QUERY, TEXTS[:3], "Find lies.")
            remote.logits(QUERY, TEXTS[:3])
        with pytest.raises(InputError, match="no place for an instruction"):
            RemoteReranker(server.url, model, protocol="tei", template="server", instruction="Find lies.")


@pytest.mark.parametrize("options", [PROTOCOLS[0], PROTOCOLS[1]])
@pytest.mark.parametrize("long_documents", ["cut", "chunk_max"])
def test_long_documents_are_cut_or_read_in_chunks_here(
    local: Reranker, model: str, options: dict[str, Any], long_documents: Any
):
    texts = ["no " * 300, "yes", "서울 " * 200]
    fit: dict[str, Any] = {"max_tokens": 300, "long_documents": long_documents}
    with Reranker.load(model, **fit) as reranker:
        expected = reranker.logits(QUERY, texts)
    with serving(FakeServer(reranker=local)) as server, RemoteReranker(server.url, model, **options, **fit) as remote:
        # A server that tokenises by itself may read the last characters before a cut differently.
        near = 1e-5 if options["protocol"] == "vllm-tokens" else 0.05
        assert remote.logits(QUERY, texts) == pytest.approx(expected, abs=near)


def test_a_hosted_model_gives_its_scores_as_they_are(local: Reranker):
    hosted = FakeServer(reranker=local, is_activated=True, model_names=("rerank-a", "rerank-b"))
    options: dict[str, Any] = {"protocol": "rerank", "template": "server", "raw_logits": False}
    with serving(hosted) as server, RemoteReranker(server.url, "rerank-b", api_key=SECRET, **options) as remote:
        ranking = remote.rank(QUERY, TEXTS[:3])

    assert all(0 < ranked.score == ranked.logit < 1 for ranked in ranking)
    assert {body["model"] for body in server.requests.bodies} == {"rerank-b"}
    assert "raw_scores" not in server.requests.bodies[0]
    assert server.requests.headers[0]["Authorization"] == f"Bearer {SECRET}"
    assert remote.licence is None


def test_the_scale_of_a_known_model_is_its_cards(local: Reranker):
    options: dict[str, Any] = {"protocol": "rerank", "template": "server"}
    with serving(FakeServer(reranker=local)) as server:
        with RemoteReranker(server.url, "Qwen/Qwen3-Reranker-0.6B", **options) as remote:
            assert 0 < remote.rank(QUERY, TEXTS)[0].score < 1
        with RemoteReranker(server.url, **options) as remote:
            assert remote.rank(QUERY, TEXTS)[0].score == remote.rank(QUERY, TEXTS)[0].logit


@pytest.mark.parametrize("family", FAMILIES, ids=lambda recipe: recipe.family)
def test_the_tokenizer_read_from_its_file_writes_the_same_rows(family: Any, tmp_path: Path):
    if family.family not in ARCHITECTURE_OF_FAMILY:
        return
    folder = causal_checkpoint(tmp_path / family.models[0].split("/")[1], ARCHITECTURE_OF_FAMILY[family.family]).folder
    with Reranker.load(folder, recipe=family) as reranker:
        pairs = [(QUERY, text) for text in TEXTS]
        expected = reranker._scorer.rows(pairs)
        with RemoteReranker("http://127.0.0.1:9", str(folder), recipe=family) as remote:
            assert remote._scorer._loaded.encoder.rows(pairs, remote._scorer.instruction) == expected


def test_no_torch_is_loaded_for_a_server():
    program = (
        "import sys; from onelogit import open_reranker, DEMO_MODEL; "
        "open_reranker('http://127.0.0.1:9', model=DEMO_MODEL).close(); "
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )

    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_a_server_is_opened_once_for_all_who_name_it(model: str):
    first = open_reranker("http://127.0.0.1:9", model=model)

    assert open_reranker(model, url="http://127.0.0.1:9") is first
    assert open_reranker(model, url="http://127.0.0.1:9", pairs_a_request=3) is not first
    with pytest.raises(InputError, match="not an option of a server"):
        open_reranker(model, url="http://127.0.0.1:9", device="cpu")
    with pytest.raises(InputError, match="give a url"):
        open_reranker(model, protocol="tei")
    with pytest.raises(InputError, match="two models"):
        open_reranker(model, url="http://127.0.0.1:9", model=model)


def test_a_check_passes_where_the_server_is_sane(local: Reranker, exported: str):
    for options in PROTOCOLS:
        with serving(served(local, options)) as server:
            for max_tokens in (300, 500):  # with two of its prompts, and with all three
                with RemoteReranker(server.url, exported, max_tokens=max_tokens, **options) as remote:
                    assert remote.check() < 1e-4


def test_a_check_knows_of_an_activation_that_stays_on(local: Reranker, exported: str):
    options: dict[str, Any] = {"protocol": "rerank", "template": "server", "raw_logits": False, "max_tokens": 300}
    with serving(FakeServer(reranker=local, is_activated=True)) as server:
        with RemoteReranker(server.url, exported, **options) as remote:
            assert remote.check() < 1e-5
    with serving(FakeServer(reranker=local, is_activated=True, change=lambda logit: -logit)) as server:
        with RemoteReranker(server.url, exported, **options) as remote, pytest.raises(ServerError, match="gives"):
            remote.check()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"is_activated": True}, "these are sigmoids; its activation is on"),
        ({"change": lambda logit: logit * 1e22}, "its head is not initialised"),
        ({"change": lambda logit: 0.5}, "its head is not initialised"),
        ({"change": lambda logit: logit / 10}, "cosines of embeddings"),
        ({"change": lambda logit: logit + 3}, "another model"),
    ],
)
def test_a_check_says_what_is_wrong(local: Reranker, exported: str, change: dict[str, Any], reason: str):
    with serving(FakeServer(reranker=local, **change)) as server, RemoteReranker(server.url, exported) as remote:
        with pytest.raises(ServerError, match=reason):
            remote.check()


@pytest.mark.parametrize("protocol", ["rerank", "tei"])
def test_a_check_finds_a_prompt_that_is_missing(local: Reranker, exported: str, protocol: Any):
    with serving(FakeServer(reranker=local, has_template=False)) as server:
        with RemoteReranker(server.url, exported, protocol=protocol, template="server") as remote:
            with pytest.raises(ServerError, match="writes no prompt around query and document"):
                remote.check()


@pytest.mark.parametrize("options", [PROTOCOLS[0], PROTOCOLS[1], PROTOCOLS[2]])
def test_a_check_finds_a_server_that_truncates(local: Reranker, exported: str, options: dict[str, Any]):
    with serving(FakeServer(reranker=local, max_tokens=400)) as server:
        with RemoteReranker(server.url, exported, max_tokens=400, **options) as remote:
            remote.check()
        with RemoteReranker(server.url, exported, max_tokens=500, **options) as remote:
            with pytest.raises(ServerError, match="does not read prompts of max_tokens=500 to their end: it truncates"):
                remote.check()


def test_a_check_finds_a_second_bos_token(tmp_path: Path):
    folder = causal_checkpoint(
        tmp_path / "bge-reranker-v2-gemma", ARCHITECTURE_OF_FAMILY["bge-reranker-v2-gemma"]
    ).folder
    with Reranker.load(folder) as reranker:
        reranker.save(tmp_path / "export")
        bos = reranker._scorer.tokenizer.bos_token_id
        with serving(FakeServer(reranker=reranker, extra_ids=[bos])) as server:
            options: dict[str, Any] = {"protocol": "rerank", "template": "server"}
            with RemoteReranker(server.url, str(tmp_path / "export"), **options) as remote:
                with pytest.raises(ServerError, match="second BOS token"):
                    remote.check()


def test_tei_is_told_not_to_truncate(local: Reranker, model: str):
    with serving(FakeServer(reranker=local)) as server:
        with RemoteReranker(server.url, model, protocol="tei", template="server") as remote:
            remote.logits(QUERY, ["a"])

    assert server.requests.bodies[0]["truncate"] is False


def test_a_check_needs_a_prompt_that_is_not_cut(exported: str):
    with RemoteReranker("http://127.0.0.1:9", exported, max_tokens=100) as remote:
        with pytest.raises(InputError, match="max_tokens=100 cuts all prompts of .*; the shortest has [0-9]+ tokens"):
            remote.check()


def test_a_check_needs_an_export(model: str):
    with RemoteReranker("http://127.0.0.1:9", model) as remote, pytest.raises(InputError, match="onelogit convert"):
        remote.check()


@pytest.mark.parametrize(
    ("url", "options", "message"),
    [
        ("http://a", {"protocol": "grpc"}, "unknown protocol 'grpc'"),
        ("http://a", {"protocol": "rerank"}, "say with template='client'"),
        ("http://a", {"template": "server"}, "sends token ids"),
        ("http://a", {"timeout_s": 0}, "above 0"),
        ("http://a", {"timeout_s": "5"}, "above 0, not '5'"),
        ("http://a", {"timeout_s": True}, "above 0"),
        ("http://a", {"timeout_s": float("nan")}, "above 0"),
        ("http://a", {"attempts": 0}, "at least 1"),
        ("http://a", {"topn": 1}, "unknown option 'topn'"),
        ("http://a", {"device": "cpu"}, "'device' is not an option of a server"),
    ],
)
def test_what_cannot_be_meant_is_refused_at_once(url: str, options: dict[str, Any], message: str):
    with pytest.raises(InputError, match=message):
        RemoteReranker(url, DEMO_MODEL, **options)


def test_a_model_that_is_not_there_is_the_cores_error():
    with pytest.raises(CheckpointError, match="no-such/model"):
        RemoteReranker("http://127.0.0.1:9", "no-such/model")
    with pytest.raises(InputError, match="the model must be known"):
        RemoteReranker("http://127.0.0.1:9")


def test_a_wrong_name_or_path_is_one_clear_error(local: Reranker, model: str):
    with serving(FakeServer(reranker=local)) as server, RemoteReranker(server.url, model, served_name="nope") as remote:
        with pytest.raises(ServerError, match="The model `nope` does not exist"):
            remote.logits(QUERY, TEXTS)
    with (
        serving(FakeServer(reranker=local, model_names=("a", "b"))) as server,
        RemoteReranker(server.url, model) as remote,
    ):
        with pytest.raises(InputError, match="serves a, b: name one as served_name"):
            remote.logits(QUERY, TEXTS)
    with serving(lambda path, body: NOT_FOUND) as server, RemoteReranker(server.url, model) as remote:
        with pytest.raises(ServerError, match="404: Not Found .*a classifier with one label"):
            remote.logits(QUERY, TEXTS)


def test_a_key_is_nowhere_but_in_the_header(local: Reranker, model: str, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG)

    def refuse(path: str, body: Any) -> Response:
        return Response(code=401, content={"error": f"no such key: {SECRET}"})

    with serving(refuse) as server, RemoteReranker(server.url, model, api_key=SECRET) as remote:
        with pytest.raises(ServerError, match=r"401: no such key: \*\*\* .*API key") as refused:
            remote.logits(QUERY, TEXTS)

    assert server.requests.headers[0]["Authorization"] == f"Bearer {SECRET}"
    shown = [repr(remote), str(refused.value), caplog.text, str(remote.options), repr(refused.value.__cause__)]
    assert not any(SECRET in each for each in shown)


def test_a_key_may_come_from_the_environment(local: Reranker, model: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ONELOGIT_API_KEY", SECRET)
    with serving(FakeServer(reranker=local)) as server, RemoteReranker(server.url, model) as remote:
        remote.logits(QUERY, TEXTS)

    assert server.requests.headers[0]["Authorization"] == f"Bearer {SECRET}"


@pytest.mark.parametrize(
    ("url", "is_warned"),
    [
        ("http://example.org", True),
        ("http://127.example.org", True),
        ("http://localhost.example.org", True),
        ("https://example.org", False),
        ("http://127.0.0.1:1", False),
        ("http://127.0.0.2:1", False),
        ("http://[::1]:1", False),
        ("http://localhost:1", False),
    ],
)
def test_a_key_over_plain_http_to_elsewhere_is_warned_of(url: str, is_warned: bool, caplog: pytest.LogCaptureFixture):
    RemoteReranker(url, DEMO_MODEL, api_key=SECRET).close()

    assert ("plain HTTP" in caplog.text) is is_warned


def test_threads_and_event_loops_share_one_client(local: Reranker, model: str):
    with serving(FakeServer(reranker=local)) as server, RemoteReranker(server.url, model, requests_at_once=3) as remote:
        expected = remote.logits(QUERY, TEXTS)
        ask = [lambda: remote.logits(QUERY, TEXTS), lambda: asyncio.run(_alogits(remote))]
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda n: ask[n % 2](), range(16)))

    assert answers == [expected] * 16
    assert server.requests.max_concurrent <= 3
    assert len(server.requests.connections) <= 3


async def _alogits(remote: RemoteReranker) -> list[float]:
    ranking = await remote.arank(QUERY, TEXTS)
    return [ranked.logit for ranked in sorted(ranking, key=lambda ranked: ranked.index)]


@pytest.mark.parametrize("library", [httpx, httpx2])
def test_a_client_of_ones_own_is_used_and_closed_in_the_end(local: Reranker, model: str, library: Any):
    client = library.AsyncClient(headers={"X-Mine": "yes"})
    with serving(FakeServer(reranker=local)) as server, RemoteReranker(server.url, model, client=client) as remote:
        remote.logits(QUERY, TEXTS)

    assert server.requests.headers[0]["X-Mine"] == "yes"
    assert client.is_closed


def test_a_closed_one_says_so_and_lets_its_thread_go(local: Reranker, model: str):
    with serving(FakeServer(reranker=local)) as server:
        before = set(threading.enumerate())
        remote = RemoteReranker(server.url, model)
        remote.logits(QUERY, TEXTS)
        (thread,) = (each for each in set(threading.enumerate()) - before if each.name == "onelogit-wire")
        remote.close()
        remote.close()

    with pytest.raises(OnelogitError, match="closed"):
        remote.logits(QUERY, TEXTS)
    assert not thread.is_alive()


def test_one_that_nobody_holds_lets_its_thread_go(local: Reranker, model: str):
    with serving(FakeServer(reranker=local)) as server:
        before = set(threading.enumerate())
        remote = RemoteReranker(server.url, model)
        remote.logits(QUERY, TEXTS)
        (thread,) = (each for each in set(threading.enumerate()) - before if each.name == "onelogit-wire")
        del remote
        gc.collect()
        thread.join(timeout=10)

    assert not thread.is_alive()


@settings(max_examples=25)
@given(texts=st.lists(st.text(max_size=30), max_size=12), pairs_a_request=st.integers(1, 5))
def test_any_texts_in_any_requests_keep_their_places(
    texts: list[str], pairs_a_request: int, local: Reranker, model: str
):
    texts = [text.encode("utf-8", "ignore").decode() for text in texts]

    def by_length(path: str, body: Any) -> Response:
        if body is None:
            return NOT_FOUND
        data = [{"index": i, "probs": [float(sum(row) % 9973)]} for i, row in enumerate(body["input"])]
        return Response(content={"data": data[::-1]})

    with serving(by_length) as server, RemoteReranker(server.url, model, pairs_a_request=pairs_a_request) as remote:
        rows = local._scorer.rows([(QUERY, text) for text in texts])
        assert remote.logits(QUERY, texts) == [float(sum(row.ids) % 9973) for row in rows]
