"""Who waits, who is sent away, and that a request whose client has gone is never computed."""

import asyncio
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx2
import pytest

from onelogit import Reranker
from onelogit.serving import ServingLimits, app
from support.held_model import HeldModel, held
from support.served import served, wait_until

BODY = {"query": "which?", "documents": ["a", "b"]}


def waiting(url: str) -> int:
    lines = httpx2.get(f"{url}/metrics", trust_env=False).text.splitlines()
    return int(float(next(line.split()[1] for line in lines if line.startswith("onelogit_waiting_requests "))))


def count_of(url: str, name: str) -> float:
    lines = httpx2.get(f"{url}/metrics", trust_env=False).text.splitlines()
    return float(next((line.rpartition(" ")[2] for line in lines if line.startswith(f"{name} ")), 0))


@contextmanager
def server(reranker: Reranker, **limits: object) -> Iterator[tuple[str, HeldModel]]:
    """A warmed-up server whose model is held, with the first request of two documents in the model."""
    with served(app(reranker, limits=ServingLimits(**limits))) as url:  # type: ignore[arg-type]
        wait_until(lambda: httpx2.get(f"{url}/ready", trust_env=False).status_code == 200)
        with held(reranker) as model:
            yield url, model


def documents(name: str) -> dict[str, object]:
    return {"query": "which?", "documents": [f"{name} one", f"{name} two"]}


async def test_a_request_whose_client_has_gone_is_not_computed(tiny_reranker: Reranker):
    logits = tiny_reranker.logits("which?", ["kept one", "kept two"])
    with server(tiny_reranker) as (url, model):
        async with httpx2.AsyncClient(base_url=url, trust_env=False, timeout=20) as client:
            first = asyncio.create_task(client.post("/rerank", json=documents("first")))
            await asyncio.to_thread(model.wait)
            gone = [asyncio.create_task(client.post("/rerank", json=documents(f"gone{n}"))) for n in range(20)]
            kept = [asyncio.create_task(client.post("/rerank", json=documents("kept"))) for _ in range(3)]
            await asyncio.to_thread(wait_until, lambda: waiting(url) == 24)
            for task in gone:
                task.cancel()
            await asyncio.to_thread(wait_until, lambda: waiting(url) == 4)
            model.let_go()
            answers = [await task for task in (first, *kept)]
        left = count_of(url, 'onelogit_requests_total{path="/rerank",status="499"}')

    assert [answer.status_code for answer in answers] == [200] * 4
    for answer in answers[1:]:
        found = {each["index"]: each["logit"] for each in answer.json()["results"]}
        assert found == pytest.approx(dict(enumerate(logits)), abs=1e-5)
    assert len(model.rows) == 8  # two of the first, and two of each that stayed
    assert left == 20


def test_a_client_that_leaves_in_the_middle_of_its_body_leaves_nothing_behind(tiny_reranker: Reranker):
    with server(tiny_reranker) as (url, model):
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(b"POST /rerank HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{")
            wait_until(lambda: waiting(url) == 1)
        wait_until(lambda: waiting(url) == 0)

    assert model.rows == []


async def test_past_max_waiting_requests_are_answered_429_and_the_others_are_computed(tiny_reranker: Reranker):
    with server(tiny_reranker, max_waiting=3) as (url, model):
        async with httpx2.AsyncClient(base_url=url, trust_env=False, timeout=20) as client:
            tasks = [asyncio.create_task(client.post("/rerank", json=documents(f"{n}"))) for n in range(3)]
            await asyncio.to_thread(wait_until, lambda: waiting(url) == 3)
            refused = [await client.post(path, json=BODY) for path in ("/rerank", "/v2/rerank", "/score")]
            still = [(await client.get(path)).status_code for path in ("/health", "/ready", "/v1/models")]
            model.let_go()
            answers = [await task for task in tasks]
            after = await client.post("/rerank", json=BODY)

    assert [answer.status_code for answer in refused] == [429] * 3
    assert all(1 <= int(answer.headers["Retry-After"]) <= 30 for answer in refused)
    assert "3 requests wait already" in refused[0].json()["message"]
    assert still == [200] * 3
    assert [answer.status_code for answer in (*answers, after)] == [200] * 4


def test_a_request_that_takes_too_long_is_answered_504_and_leaves_the_queue(tiny_reranker: Reranker):
    with server(tiny_reranker, timeout_s=0.5) as (url, model):
        started = time.monotonic()
        answer = httpx2.post(f"{url}/rerank", json=BODY, trust_env=False)
        took_s = time.monotonic() - started
        assert waiting(url) == 0
        model.let_go()

    assert answer.status_code == 504
    assert answer.json()["message"] == "the request took longer than timeout_s=0.5"
    assert 0.5 <= took_s < 5


def test_texts_of_large_requests_are_tokenised_one_request_after_the_other(
    tiny_reranker: Reranker, monkeypatch: pytest.MonkeyPatch
):
    scorer, at_once, counts = tiny_reranker.scorer, [], []
    rows = scorer.rows

    def counted(*arguments: Any) -> Any:
        at_once.append(None)
        counts.append(len(at_once))
        try:
            return rows(*arguments)
        finally:
            at_once.pop()

    large = {"query": "which?", "documents": ["a" * 2**17, "b" * 2**17, "c" * 2**16]}
    with served(app(tiny_reranker)) as url, ThreadPoolExecutor(2) as clients:
        wait_until(lambda: httpx2.get(f"{url}/ready", trust_env=False).status_code == 200)
        monkeypatch.setattr(scorer, "rows", counted)
        answers = [*clients.map(lambda _: httpx2.post(f"{url}/rerank", json=large, timeout=20), range(2))]

    assert [answer.status_code for answer in answers] == [200] * 2
    assert counts == [1] * 2


def test_the_server_is_ready_only_after_the_warm_up(tiny_reranker: Reranker):
    with held(tiny_reranker) as model, served(app(tiny_reranker)) as url:
        model.wait()
        before = [httpx2.get(url + path, trust_env=False) for path in ("/health", "/ready")]
        model.let_go()
        wait_until(lambda: httpx2.get(f"{url}/ready", trust_env=False).status_code == 200)

    assert [answer.status_code for answer in before] == [200, 503]
    assert before[1].json()["message"] == "the model is being warmed up"


def test_an_application_that_ended_in_its_warm_up_can_be_served_again(tiny_reranker: Reranker):
    application = app(tiny_reranker)
    with held(tiny_reranker) as model, served(application):
        model.wait()
    with served(application) as url:
        wait_until(lambda: httpx2.get(f"{url}/ready", trust_env=False).status_code == 200)


def test_a_warm_up_that_fails_is_told_without_its_message(
    tiny_reranker: Reranker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    async def fail() -> None:
        raise MemoryError("somewhere in /home")

    monkeypatch.setattr(tiny_reranker, "awarm_up", fail)
    with served(app(tiny_reranker)) as url:
        wait_until(lambda: "MemoryError" in httpx2.get(f"{url}/ready", trust_env=False).text)
        answer = httpx2.get(f"{url}/ready", trust_env=False)

    assert answer.status_code == 503
    assert answer.json()["message"] == "the warm-up failed with MemoryError; the server's log says why"
    assert "the server is not ready: MemoryError: somewhere in /home" in caplog.text


def test_one_connection_serves_many_requests(url: str):
    with httpx2.Client(base_url=url, trust_env=False) as client:
        streams = set()
        for _ in range(3):
            answer = client.post("/rerank", json=BODY)
            assert client.post("/rerank", json={}).status_code == 400
            streams.add(answer.extensions["network_stream"].get_extra_info("client_addr"))

    assert len(streams) == 1


def test_metrics_count_what_was_done(tiny_reranker: Reranker):
    with served(app(tiny_reranker)) as url:
        httpx2.post(f"{url}/rerank", json=BODY, trust_env=False)
        httpx2.post(f"{url}/rerank", json={}, trust_env=False)
        text = httpx2.get(f"{url}/metrics", trust_env=False).text

    assert 'onelogit_requests_total{path="/rerank",status="200"} 1.0' in text
    assert 'onelogit_requests_total{path="/rerank",status="400"} 1.0' in text
    assert "onelogit_documents_total 2.0" in text
    assert 'onelogit_request_seconds_count{path="/rerank"} 2.0' in text
    assert "process_resident_memory_bytes" in text
