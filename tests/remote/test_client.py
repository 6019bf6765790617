"""A server that times out, resets, answers with errors, or with results that cannot be believed."""

import asyncio
import gzip
import itertools
import math
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import httpx2
import pytest
from tenacity import AsyncRetrying, RetryCallState

from onelogit import DEMO_MODEL, OnelogitError, RemoteReranker, ServerError
from onelogit.remote import client as wire_module
from onelogit.remote import http_errors as refusal_module
from support.servers import NOT_FOUND, Response, Server, serving

QUERY = "What is the capital of China?"
TEXTS = [f"document {n}" for n in range(6)]


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire_module, "_FIRST_WAIT_S", 0.01)


def classified(body: dict[str, Any]) -> dict[str, Any]:
    return {"data": [{"index": i, "probs": [float(len(row))]} for i, row in enumerate(body["input"])]}


def good(body: dict[str, Any] | None) -> Response:
    return NOT_FOUND if body is None else Response(content=classified(body))


def remote(server: Server, **options: Any) -> RemoteReranker:
    return RemoteReranker(server.url, DEMO_MODEL, **{"timeout_s": 20, **options})


def failing(answer: Response, times: float = math.inf) -> Any:
    """Answers POSTs so many times with this, and then well."""
    count = itertools.count()
    return lambda path, body: answer if body is not None and next(count) < times else good(body)


@pytest.mark.parametrize("code", [408, 425, 429, 500, 502, 503, 504, 529])
def test_what_may_heal_is_asked_again(code: int):
    with serving(failing(Response(code=code, content={"error": "later"}), 2)) as server, remote(server) as reranker:
        assert len(reranker.logits(QUERY, TEXTS)) == len(TEXTS)

    assert len(server.requests.paths) == 3


def test_a_reset_connection_is_asked_again():
    with serving(failing(Response(is_reset=True), 2)) as server, remote(server) as reranker:
        assert len(reranker.logits(QUERY, TEXTS)) == len(TEXTS)


@pytest.mark.parametrize("code", [400, 401, 403, 404, 405, 413, 422])
def test_what_cannot_heal_is_not_asked_again(code: int):
    with serving(failing(Response(code=code, content={"detail": "no"}))) as server, remote(server) as reranker:
        with pytest.raises(ServerError, match=rf"answered {code}: no"):
            reranker.logits(QUERY, TEXTS)

    assert len(server.requests.paths) == 1


def test_attempts_end_and_the_error_says_what_the_server_said():
    answer = Response(code=500, content={"error": {"message": "EngineCore encountered an issue", "code": 500}})
    with serving(failing(answer)) as server, remote(server, attempts=3) as reranker:
        with pytest.raises(ServerError, match="answered 500: EngineCore encountered an issue"):
            reranker.logits(QUERY, TEXTS)

    assert len(server.requests.paths) == 3


def test_the_servers_own_wait_is_kept():
    answer = Response(code=429, content={"error": "slow down"}, headers={"Retry-After": "0.4"})
    with serving(failing(answer, 1)) as server, remote(server) as reranker:
        start = time.monotonic()
        reranker.logits(QUERY, TEXTS)

    assert time.monotonic() - start >= 0.4


@pytest.mark.parametrize("wait", ["nan", "inf", "-inf", "-5", "Wed, 21 Oct 2015 07:28:00 GMT", "", "soon"])
def test_a_wait_that_is_no_number_of_seconds_is_the_usual_one(wait: str):
    answer = Response(code=503, content={"error": "busy"}, headers={"Retry-After": wait})
    with serving(failing(answer, 1)) as server, remote(server, timeout_s=2) as reranker:
        assert len(reranker.logits(QUERY, TEXTS)) == len(TEXTS)


def test_a_servers_wait_is_not_believed_beyond_all_measure(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(refusal_module, "LONGEST_WAIT_S", 0.05)
    answer = Response(code=503, content={"error": "busy"}, headers={"Retry-After": "86400"})
    with serving(failing(answer, 1)) as server, remote(server, timeout_s=5) as reranker:
        assert len(reranker.logits(QUERY, TEXTS)) == len(TEXTS)


@pytest.mark.parametrize("asked", [0.0, 3.0])
def test_clients_do_not_come_back_in_step(asked: float):
    state = RetryCallState(AsyncRetrying(), None, (), {})
    state.attempt_number = 4
    state.set_exception((refusal_module.RetryableError, refusal_module.RetryableError("busy", asked), None))

    waits = {wire_module._wait_s(state) for _ in range(20)}

    assert len(waits) == 20
    assert all(
        asked + 4 * wire_module._FIRST_WAIT_S <= wait <= asked + 12 * wire_module._FIRST_WAIT_S for wait in waits
    )


def test_an_answer_that_comes_byte_by_byte_is_cut_at_the_deadline():
    with (
        serving(failing(Response(content=[0] * 100, byte_delay_s=0.05))) as server,
        remote(server, timeout_s=0.3) as reranker,
    ):
        start = time.monotonic()
        with pytest.raises(ServerError, match="took longer"):
            reranker.logits(QUERY, TEXTS)
        assert time.monotonic() - start < 2


def test_an_answer_without_end_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(wire_module, "_MOST_BYTES", 2**20)
    bomb = Response(raw=gzip.compress(b" " * (5 * 2**20)), headers={"Content-Encoding": "gzip"})
    with serving(failing(bomb)) as server, remote(server) as reranker:
        with pytest.raises(ServerError, match="more than 1 MiB, which cannot be scores"):
            reranker.logits(QUERY, TEXTS)

    assert len(server.requests.paths) == 1


def test_an_answer_that_cannot_be_unpacked_is_an_error():
    broken = Response(raw=b"no gzip", headers={"Content-Encoding": "gzip"})
    with serving(failing(broken)) as server, remote(server) as reranker:
        with pytest.raises(ServerError, match="cannot be asked or understood"):
            reranker.logits(QUERY, TEXTS)


def test_a_refusal_that_is_no_json_is_shown_as_it_is():
    for raw, said in [(b"<html>Bad", "400: <html>Bad"), (b"[" * 100_000, r"400: \[\[\["), (b"\xff", "400: \ufffd")]:
        with serving(failing(Response(code=400, raw=raw))) as server, remote(server) as reranker:
            with pytest.raises(ServerError, match=said):
                reranker.logits(QUERY, TEXTS)


def test_a_request_that_hangs_is_cut_at_the_deadline():
    with serving(failing(Response(delay_s=3))) as server, remote(server, timeout_s=0.3) as reranker:
        start = time.monotonic()
        with pytest.raises(ServerError, match=r"took longer than timeout_s=0\.3"):
            reranker.logits(QUERY, TEXTS)
        assert time.monotonic() - start < 2


def test_retries_end_at_the_deadline_too():
    answer = Response(code=503, content={"error": "busy"}, headers={"Retry-After": "9"})
    with serving(failing(answer)) as server, remote(server, timeout_s=0.3) as reranker:
        start = time.monotonic()
        with pytest.raises(ServerError, match="took longer"):
            reranker.logits(QUERY, TEXTS)
        assert time.monotonic() - start < 2


def test_nobody_there_is_one_clear_error():
    with RemoteReranker("http://127.0.0.1:9", DEMO_MODEL, attempts=2) as reranker:
        with pytest.raises(ServerError, match="http://127.0.0.1:9/v1/models does not answer") as raised:
            reranker.logits(QUERY, TEXTS)

    assert type(raised.value).__mro__[1] is ServerError
    assert not isinstance(raised.value, BaseExceptionGroup)


def test_a_redirect_is_not_followed():
    answer = Response(code=302, content={}, headers={"Location": "http://127.0.0.1:1/elsewhere"})
    with serving(failing(answer)) as server, remote(server, api_key="k") as reranker:
        with pytest.raises(ServerError, match="redirects are not followed"):
            reranker.logits(QUERY, TEXTS)

    assert server.requests.paths == ["/classify"]


@pytest.mark.parametrize("library", [httpx, httpx2])
def test_a_redirect_is_not_followed_by_a_client_that_would(library: Any):
    answer = Response(code=307, content={}, headers={"Location": "/elsewhere"})
    with serving(failing(answer, 1)) as server:
        with remote(server, api_key="k", client=library.AsyncClient(follow_redirects=True)) as reranker:
            with pytest.raises(ServerError, match="redirects are not followed"):
                reranker.logits(QUERY, TEXTS)

    assert server.requests.paths == ["/classify"]


BROKEN: dict[str, tuple[object, str]] = {
    "too few": ({"data": [{"index": 0, "probs": [1.0]}]}, "not for each of 6"),
    "none": ({"data": []}, "not for each of 6"),
    "twice": ({"data": [{"index": i % 5, "probs": [1.0]} for i in range(6)]}, "an index comes twice"),
    "beyond": ({"data": [{"index": i + 1, "probs": [1.0]} for i in range(6)]}, "not for each of 6"),
    "as text": ({"data": [{"index": str(i), "probs": [1.0]} for i in range(6)]}, "not for each of 6"),
    "null": ({"data": [{"index": i, "probs": [None]} for i in range(6)]}, "gave None for index 0"),
    "no number": ({"data": [{"index": i, "probs": ["1"]} for i in range(6)]}, "gave a str for index 0"),
    "labels": ({"data": [{"index": i, "probs": [0.4, 0.6]} for i in range(6)]}, "2 labels, not one logit"),
    "other form": ({"results": []}, "in another form than vLLM"),
    "list": ([1, 2], "in another form than vLLM"),
    "nothing": (None, "in another form than vLLM"),
}


@pytest.mark.parametrize(("content", "message"), BROKEN.values(), ids=list(BROKEN))
def test_results_are_believed_only_if_each_is_there_once_and_finite(content: object, message: str):
    with serving(failing(Response(content=content))) as server, remote(server) as reranker:
        with pytest.raises(ServerError, match=message):
            reranker.logits(QUERY, TEXTS)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b'{"data": [{"index": 0, "probs": [NaN]}]}', "gave nan for index 0"),
        (b'{"data": [{"index": 0, "probs": [1e999]}]}', "gave inf for index 0"),
        (b"<html>Bad gateway</html>", "no JSON: '<html>Bad gateway</html>'"),
        (b"", "no JSON"),
        (b"\xff\xfe", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b'{"data": [{"index": 0, "probs": [1' + b"0" * 400 + b"]}]}", "gave 1000.* for index 0"),
        (b'{"data": [{"index": [0], "probs": [1]}]}', "in another form than vLLM"),
        (b'{"data": [{"index": "' + b"x" * 9999 + b'", "probs": [1]}]}', "for the indices a str, not for each of 1"),
    ],
)
def test_what_is_no_number_or_no_json_is_not_believed(raw: bytes, message: str):
    with serving(failing(Response(raw=raw))) as server, remote(server) as reranker:
        with pytest.raises(ServerError, match=message) as raised:
            reranker.logits(QUERY, TEXTS[:1])

    assert len(str(raised.value)) < 600


def test_results_in_another_order_find_their_places():
    def shuffled(path: str, body: dict[str, Any] | None) -> Response:
        return NOT_FOUND if body is None else Response(content={"data": classified(body)["data"][::-1]})

    texts = ["a", "a a a a", "a a"]
    with serving(shuffled) as server, remote(server) as reranker:
        logits = reranker.logits(QUERY, texts)

    assert sorted(logits) == [logits[0], logits[2], logits[1]]


def test_the_first_failure_ends_the_other_requests():
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


async def test_a_cancelled_call_ends_its_requests_and_leaves_others_alone():
    with serving(lambda path, body: good(body) if body is None else slow(body)) as server:
        with remote(server, pairs_a_request=1, requests_at_once=1) as reranker:
            cancelled = asyncio.ensure_future(reranker.arank(QUERY, TEXTS))
            kept = asyncio.ensure_future(reranker.arank(QUERY, TEXTS[:1]))
            await asyncio.sleep(0.1)
            cancelled.cancel()
            with pytest.raises(asyncio.CancelledError):
                await cancelled

            assert len(await kept) == 1
            assert len(server.requests.paths) <= 3


def test_closing_ends_a_call_of_another_thread_with_an_error():
    with serving(failing(Response(delay_s=3))) as server, remote(server) as reranker:
        with ThreadPoolExecutor() as pool:
            waiting = pool.submit(reranker.logits, QUERY, TEXTS)
            while not server.requests.paths:
                time.sleep(0.01)
            start = time.monotonic()
            reranker.close()
            with pytest.raises(OnelogitError, match="was closed while a call waited"):
                waiting.result()

    assert time.monotonic() - start < 2


async def test_closing_does_not_pass_for_cancelling_the_task_that_waits():
    with serving(failing(Response(delay_s=3))) as server, remote(server) as reranker:
        waiting = asyncio.ensure_future(reranker.arank(QUERY, TEXTS))
        while not server.requests.paths:
            await asyncio.sleep(0.01)
        await asyncio.to_thread(reranker.close)
        with pytest.raises(OnelogitError, match="was closed while a call waited"):
            await waiting

    assert not waiting.cancelled()


def test_an_interrupt_ends_the_requests_of_the_call_that_waits():
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


def test_a_forked_child_has_connections_of_its_own():
    """In a process of its own: this one has threads that a fork would lose."""
    program = """
import os, sys
from onelogit import DEMO_MODEL, OnelogitError, RemoteReranker
import httpx2
remote = RemoteReranker(sys.argv[1], DEMO_MODEL)
mine = RemoteReranker(sys.argv[1], DEMO_MODEL, client=httpx2.AsyncClient())
expected = remote.logits("q", ["a", "b b"])
mine.logits("q", ["a"])
child = os.fork()
if child == 0:
    try:
        mine.logits("q", ["a"])
    except OnelogitError as error:
        is_refused = "does not outlive a fork" in str(error)
    is_alike = remote.logits("q", ["a", "b b"]) == expected
    remote.close()
    sys.exit(0 if is_alike and is_refused else 3)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert remote.logits("q", ["a", "b b"]) == expected
"""
    with serving(lambda path, body: good(body)) as server:
        command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program, server.url]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert (ran.returncode, ran.stderr) == (0, "")


def slow(body: dict[str, Any]) -> Response:
    return Response(content=classified(body), delay_s=0.1)


async def test_the_event_loop_goes_on_while_a_server_is_slow():
    with serving(lambda path, body: good(body) if body is None else slow(body)) as server, remote(server) as reranker:
        task = asyncio.ensure_future(reranker.arank(QUERY, TEXTS))
        ticks = 0
        while not task.done():
            await asyncio.sleep(0.005)
            ticks += 1

    assert ticks > 5


@pytest.fixture
def busy() -> Iterator[Server]:
    with serving(failing(Response(code=429, content={"error": "busy"}), 24)) as server:
        yield server


def test_many_requests_that_are_all_sent_away_once_or_more_come_through(busy: Server):
    with remote(busy, pairs_a_request=1, attempts=9) as reranker:
        assert len(reranker.logits(QUERY, TEXTS)) == len(TEXTS)
