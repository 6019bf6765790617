"""Retries, deadlines, invalid responses, cancellation, close and fork: `RemoteReranker` with servers that misbehave."""

import asyncio
import gzip
import itertools
import math
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import httpx2
import pytest
from tenacity import AsyncRetrying, RetryCallState

from onelogit import DEMO_MODEL, OnelogitError, RemoteReranker, ServerError
from onelogit.remote import client as client_module
from onelogit.remote import http_errors
from support.servers import NOT_FOUND, Response, Server, serving

QUERY = "What is the capital of China?"
TEXTS = [f"document {n}" for n in range(6)]


@pytest.fixture(autouse=True)
def fast_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "_FIRST_WAIT_S", 0.01)


def classified(body: dict[str, Any]) -> dict[str, Any]:
    return {"data": [{"index": i, "probs": [float(len(row))]} for i, row in enumerate(body["input"])]}


def valid_response(body: dict[str, Any] | None) -> Response:
    return NOT_FOUND if body is None else Response(content=classified(body))


def slow_response(path: str, body: dict[str, Any] | None) -> Response:
    return NOT_FOUND if body is None else Response(content=classified(body), delay_s=0.1)


def remote(server: Server, **options: Any) -> RemoteReranker:
    return RemoteReranker(server.url, DEMO_MODEL, **{"timeout_s": 20, **options})


def failing(response: Response, times: float = math.inf) -> Any:
    """Answers the first POST requests with this, and later ones correctly."""
    count = itertools.count()
    return lambda path, body: response if body is not None and next(count) < times else valid_response(body)


@pytest.mark.parametrize("code", [408, 425, 429, 500, 502, 503, 504, 529])
def test_a_temporary_error_is_retried(code: int):
    with serving(failing(Response(code=code, content={"error": "later"}), 2)) as server, remote(server) as reranker:
        assert len(reranker.logits(QUERY, TEXTS)) == len(TEXTS)

    assert len(server.requests.paths) == 3


def test_a_reset_connection_is_retried():
    with serving(failing(Response(is_reset=True), 2)) as server, remote(server) as reranker:
        assert len(reranker.logits(QUERY, TEXTS)) == len(TEXTS)


@pytest.mark.parametrize("code", [400, 401, 403, 404, 405, 413, 422])
def test_a_permanent_error_is_not_retried(code: int):
    with serving(failing(Response(code=code, content={"detail": "no"}))) as server, remote(server) as reranker:
        with pytest.raises(ServerError, match=rf"answered {code}: no"):
            reranker.logits(QUERY, TEXTS)

    assert len(server.requests.paths) == 1


def test_retries_stop_after_attempts_and_the_error_has_the_servers_message():
    response = Response(code=500, content={"error": {"message": "EngineCore encountered an issue", "code": 500}})
    with serving(failing(response)) as server, remote(server, attempts=3) as reranker:
        with pytest.raises(ServerError, match="answered 500: EngineCore encountered an issue"):
            reranker.logits(QUERY, TEXTS)

    assert len(server.requests.paths) == 3


def test_a_retry_waits_at_least_as_long_as_retry_after():
    response = Response(code=429, content={"error": "slow down"}, headers={"Retry-After": "0.4"})
    with serving(failing(response, 1)) as server, remote(server) as reranker:
        start = time.monotonic()
        reranker.logits(QUERY, TEXTS)

    assert time.monotonic() - start >= 0.4


@pytest.mark.parametrize("wait", ["nan", "inf", "-inf", "-5", "Wed, 21 Oct 2015 07:28:00 GMT", "", "soon"])
def test_an_invalid_retry_after_means_the_usual_wait(wait: str):
    response = Response(code=503, content={"error": "busy"}, headers={"Retry-After": wait})
    with serving(failing(response, 1)) as server, remote(server, timeout_s=2) as reranker:
        assert len(reranker.logits(QUERY, TEXTS)) == len(TEXTS)


def test_a_long_retry_after_is_capped(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(http_errors, "MAX_WAIT_S", 0.05)
    response = Response(code=503, content={"error": "busy"}, headers={"Retry-After": "86400"})
    with serving(failing(response, 1)) as server, remote(server, timeout_s=5) as reranker:
        assert len(reranker.logits(QUERY, TEXTS)) == len(TEXTS)


@pytest.mark.parametrize("requested", [0.0, 3.0])
def test_waits_between_retries_are_random(requested: float):
    state = RetryCallState(AsyncRetrying(), None, (), {})
    state.attempt_number = 4
    state.set_exception((http_errors.RetryableError, http_errors.RetryableError("busy", requested), None))

    waits = {client_module._wait_s(state) for _ in range(20)}

    assert len(waits) == 20
    unit_s = client_module._FIRST_WAIT_S
    assert all(requested + 4 * unit_s <= wait <= requested + 12 * unit_s for wait in waits)


def test_a_response_that_arrives_byte_by_byte_ends_at_the_deadline():
    with (
        serving(failing(Response(content=[0] * 100, byte_delay_s=0.05))) as server,
        remote(server, timeout_s=0.3) as reranker,
    ):
        start = time.monotonic()
        with pytest.raises(ServerError, match="took longer"):
            reranker.logits(QUERY, TEXTS)
        assert time.monotonic() - start < 2


def test_a_response_that_is_too_large_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(client_module, "_MAX_RESPONSE_BYTES", 2**20)
    bomb = Response(raw=gzip.compress(b" " * (5 * 2**20)), headers={"Content-Encoding": "gzip"})
    with serving(failing(bomb)) as server, remote(server) as reranker:
        with pytest.raises(ServerError, match="is larger than 1 MiB"):
            reranker.logits(QUERY, TEXTS)

    assert len(server.requests.paths) == 1


def test_a_response_that_cannot_be_decompressed_is_an_error():
    broken = Response(raw=b"no gzip", headers={"Content-Encoding": "gzip"})
    with serving(failing(broken)) as server, remote(server) as reranker:
        with pytest.raises(ServerError, match="cannot be decoded"):
            reranker.logits(QUERY, TEXTS)


def test_an_error_message_that_is_not_json_is_shown_unchanged():
    for raw, message in [(b"<html>Bad", "400: <html>Bad"), (b"[" * 100_000, r"400: \[\[\["), (b"\xff", "400: \ufffd")]:
        with serving(failing(Response(code=400, raw=raw))) as server, remote(server) as reranker:
            with pytest.raises(ServerError, match=message):
                reranker.logits(QUERY, TEXTS)


def test_a_request_that_hangs_ends_at_the_deadline():
    with serving(failing(Response(delay_s=3))) as server, remote(server, timeout_s=0.3) as reranker:
        start = time.monotonic()
        with pytest.raises(ServerError, match=r"took longer than timeout_s=0\.3"):
            reranker.logits(QUERY, TEXTS)
        assert time.monotonic() - start < 2


def test_retries_end_at_the_deadline():
    response = Response(code=503, content={"error": "busy"}, headers={"Retry-After": "9"})
    with serving(failing(response)) as server, remote(server, timeout_s=0.3) as reranker:
        start = time.monotonic()
        with pytest.raises(ServerError, match=r"took longer than timeout_s=0\.3; the last attempt failed: .*503.*busy"):
            reranker.logits(QUERY, TEXTS)
        assert time.monotonic() - start < 2


def test_an_unreachable_server_is_one_clear_error():
    with RemoteReranker("http://127.0.0.1:9", DEMO_MODEL, attempts=2) as reranker:
        with pytest.raises(
            ServerError, match="no server answers at http://127.0.0.1:9 .2 attempts; .*running"
        ) as raised:
            reranker.logits(QUERY, TEXTS)

    assert "http://127.0.0.1:9/v1/models does not answer: " in str(raised.value)
    assert type(raised.value) is ServerError


def test_a_server_that_stays_busy_or_slow_is_a_server_error():
    for response, limits in (
        (Response(code=503, content="busy"), {"attempts": 2}),
        (Response(delay_s=2), {"timeout_s": 0.2}),
    ):
        with serving(failing(response)) as server, remote(server, **limits) as reranker:
            with pytest.raises(ServerError) as raised:
                reranker.logits(QUERY, TEXTS)
        assert type(raised.value) is ServerError


def test_a_redirect_is_not_followed():
    response = Response(code=302, content={}, headers={"Location": "http://127.0.0.1:1/elsewhere"})
    with serving(failing(response)) as server, remote(server, api_key="k") as reranker:
        with pytest.raises(ServerError, match="redirects are not followed"):
            reranker.logits(QUERY, TEXTS)

    assert server.requests.paths == ["/classify"]


@pytest.mark.parametrize("library", [httpx, httpx2])
def test_a_custom_client_that_follows_redirects_does_not_follow_them(library: Any):
    response = Response(code=307, content={}, headers={"Location": "/elsewhere"})
    with serving(failing(response, 1)) as server:
        with remote(server, api_key="k", client=library.AsyncClient(follow_redirects=True)) as reranker:
            with pytest.raises(ServerError, match="redirects are not followed"):
                reranker.logits(QUERY, TEXTS)

    assert server.requests.paths == ["/classify"]


BROKEN: dict[str, tuple[object, str]] = {
    "too few": ({"data": [{"index": 0, "probs": [1.0]}]}, "not one for each of 6"),
    "none": ({"data": []}, "not one for each of 6"),
    "twice": ({"data": [{"index": i % 5, "probs": [1.0]} for i in range(6)]}, "an index occurs twice"),
    "beyond": ({"data": [{"index": i + 1, "probs": [1.0]} for i in range(6)]}, "not one for each of 6"),
    "as text": ({"data": [{"index": str(i), "probs": [1.0]} for i in range(6)]}, "not one for each of 6"),
    "null": ({"data": [{"index": i, "probs": [None]} for i in range(6)]}, "returned None for index 0"),
    "no number": ({"data": [{"index": i, "probs": ["1"]} for i in range(6)]}, "returned a str for index 0"),
    "labels": ({"data": [{"index": i, "probs": [0.4, 0.6]} for i in range(6)]}, "2 labels, not one logit"),
    "other form": ({"results": []}, "not have the form of vLLM"),
    "list": ([1, 2], "not have the form of vLLM"),
    "nothing": (None, "not have the form of vLLM"),
}


@pytest.mark.parametrize(("content", "message"), BROKEN.values(), ids=list(BROKEN))
def test_a_response_needs_each_index_once_with_a_finite_number(content: object, message: str):
    with serving(failing(Response(content=content))) as server, remote(server) as reranker:
        with pytest.raises(ServerError, match=message):
            reranker.logits(QUERY, TEXTS)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b'{"data": [{"index": 0, "probs": [NaN]}]}', "returned nan for index 0"),
        (b'{"data": [{"index": 0, "probs": [1e999]}]}', "returned inf for index 0"),
        (b"<html>Bad gateway</html>", "is not JSON: '<html>Bad gateway</html>'"),
        (b"", "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b'{"data": [{"index": 0, "probs": [1' + b"0" * 400 + b"]}]}", "returned 1000.* for index 0"),
        (b'{"data": [{"index": [0], "probs": [1]}]}', "not have the form of vLLM"),
        (
            b'{"data": [{"index": "' + b"x" * 9999 + b'", "probs": [1]}]}',
            "index a str., not one for each of 1",
        ),
    ],
)
def test_a_response_that_is_not_json_or_has_no_number_is_refused(raw: bytes, message: str):
    with serving(failing(Response(raw=raw))) as server, remote(server) as reranker:
        with pytest.raises(ServerError, match=message) as raised:
            reranker.logits(QUERY, TEXTS[:1])

    assert len(str(raised.value)) < 600


def test_results_in_another_order_are_sorted_by_index():
    def shuffled(path: str, body: dict[str, Any] | None) -> Response:
        return NOT_FOUND if body is None else Response(content={"data": classified(body)["data"][::-1]})

    texts = ["a", "a a a a", "a a"]
    with serving(shuffled) as server, remote(server) as reranker:
        logits = reranker.logits(QUERY, texts)

    assert sorted(logits) == [logits[0], logits[2], logits[1]]


def test_the_first_error_cancels_the_other_requests():
    count = itertools.count()

    def one_fails(path: str, body: dict[str, Any] | None) -> Response:
        if body is None:
            return NOT_FOUND
        place = next(count)
        return (
            Response(code=400, content={"error": "no"}) if place == 0 else Response(content=classified(body), delay_s=5)
        )

    with serving(one_fails) as server, remote(server, pairs_a_request=1, requests_at_once=2) as reranker:
        start = time.monotonic()
        with pytest.raises(ServerError, match="answered 400: no"):
            reranker.logits(QUERY, TEXTS)

        assert time.monotonic() - start < 4
        assert len(server.requests.paths) < len(TEXTS)


async def test_cancelling_a_call_cancels_its_requests_and_no_others():
    with serving(slow_response) as server:
        with remote(server, pairs_a_request=1, requests_at_once=1) as reranker:
            cancelled = asyncio.ensure_future(reranker.arank(QUERY, TEXTS))
            kept = asyncio.ensure_future(reranker.arank(QUERY, TEXTS[:1]))
            await asyncio.sleep(0.1)
            cancelled.cancel()
            with pytest.raises(asyncio.CancelledError):
                await cancelled

            assert len(await kept) == 1
            assert len(server.requests.paths) <= 3


def test_close_makes_a_call_in_another_thread_raise():
    with serving(failing(Response(delay_s=3))) as server, remote(server) as reranker:
        with ThreadPoolExecutor() as pool:
            waiting = pool.submit(reranker.logits, QUERY, TEXTS)
            while not server.requests.paths:
                time.sleep(0.01)
            start = time.monotonic()
            reranker.close()
            with pytest.raises(OnelogitError, match="was closed while a call was waiting"):
                waiting.result()

    assert time.monotonic() - start < 2


async def test_close_makes_a_waiting_task_raise_and_does_not_cancel_it():
    with serving(failing(Response(delay_s=3))) as server, remote(server) as reranker:
        waiting = asyncio.ensure_future(reranker.arank(QUERY, TEXTS))
        while not server.requests.paths:
            await asyncio.sleep(0.01)
        await asyncio.to_thread(reranker.close)
        with pytest.raises(OnelogitError, match="was closed while a call was waiting"):
            await waiting

    assert not waiting.cancelled()


def test_an_interrupt_cancels_the_requests_of_the_waiting_call():
    slow_once = failing(Response(delay_s=3), 1)
    with serving(slow_once) as server, remote(server, requests_at_once=1) as reranker:

        def interrupt() -> None:
            while not server.requests.paths:
                time.sleep(0.01)
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

        threading.Thread(target=interrupt, daemon=True).start()
        with pytest.raises(KeyboardInterrupt):
            reranker.logits(QUERY, TEXTS)
        start = time.monotonic()
        assert len(reranker.logits(QUERY, TEXTS)) == len(TEXTS)

    assert time.monotonic() - start < 2


def test_a_forked_child_opens_its_own_connections():
    """In a separate process: this one has threads that a fork would lose."""
    program = """
import os, sys
from onelogit import DEMO_MODEL, OnelogitError, RemoteReranker
import httpx2
remote = RemoteReranker(sys.argv[1], DEMO_MODEL)
custom = RemoteReranker(sys.argv[1], DEMO_MODEL, client=httpx2.AsyncClient())
expected = remote.logits("q", ["a", "b b"])
custom.logits("q", ["a"])
child = os.fork()
if child == 0:
    try:
        custom.logits("q", ["a"])
    except OnelogitError as error:
        is_refused = "cannot be used after fork()" in str(error)
    is_equal = remote.logits("q", ["a", "b b"]) == expected
    remote.close()
    sys.exit(0 if is_equal and is_refused else 3)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert remote.logits("q", ["a", "b b"]) == expected
"""
    with serving(lambda path, body: valid_response(body)) as server:
        command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program, server.url]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert (ran.returncode, ran.stderr) == (0, "")


async def test_a_slow_server_does_not_block_the_event_loop():
    with serving(slow_response) as server, remote(server) as reranker:
        task = asyncio.ensure_future(reranker.arank(QUERY, TEXTS))
        ticks = 0
        while not task.done():
            await asyncio.sleep(0.005)
            ticks += 1

    assert ticks > 5


def test_many_requests_succeed_although_each_is_refused_at_first():
    refused_at_first = failing(Response(code=429, content={"error": "busy"}), 24)
    with serving(refused_at_first) as server, remote(server, pairs_a_request=1, attempts=9) as reranker:
        assert len(reranker.logits(QUERY, TEXTS)) == len(TEXTS)
