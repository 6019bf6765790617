"""A server that times out, resets, answers with errors, or with results that cannot be believed."""

import asyncio
import itertools
import math
import time
from collections.abc import Iterator
from typing import Any

import pytest

from onelogit import DEMO_MODEL, RemoteReranker, ServerError
from onelogit import wire as wire_module
from servers import LOST, Answer, Server, serving

QUERY = "What is the capital of China?"
TEXTS = [f"document {n}" for n in range(6)]


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire_module, "_FIRST_WAIT_S", 0.01)


def classified(body: dict[str, Any]) -> dict[str, Any]:
    return {"data": [{"index": i, "probs": [float(len(row))]} for i, row in enumerate(body["input"])]}


def good(body: dict[str, Any] | None) -> Answer:
    return LOST if body is None else Answer(content=classified(body))


def remote(server: Server, **options: Any) -> RemoteReranker:
    return RemoteReranker(server.url, DEMO_MODEL, **{"timeout_s": 20, **options})


def failing(answer: Answer, times: float = math.inf) -> Any:
    """Answers POSTs so many times with this, and then well."""
    count = itertools.count()
    return lambda path, body: answer if body is not None and next(count) < times else good(body)


@pytest.mark.parametrize("code", [408, 425, 429, 500, 502, 503, 504, 529])
def test_what_may_heal_is_asked_again(code: int):
    with serving(failing(Answer(code=code, content={"error": "later"}), 2)) as server, remote(server) as reranker:
        assert len(reranker.logits(QUERY, TEXTS)) == len(TEXTS)

    assert len(server.heard.paths) == 3


def test_a_reset_connection_is_asked_again():
    with serving(failing(Answer(is_reset=True), 2)) as server, remote(server) as reranker:
        assert len(reranker.logits(QUERY, TEXTS)) == len(TEXTS)


@pytest.mark.parametrize("code", [400, 401, 403, 404, 405, 413, 422])
def test_what_cannot_heal_is_not_asked_again(code: int):
    with serving(failing(Answer(code=code, content={"detail": "no"}))) as server, remote(server) as reranker:
        with pytest.raises(ServerError, match=rf"answered {code}: no"):
            reranker.logits(QUERY, TEXTS)

    assert len(server.heard.paths) == 1


def test_attempts_end_and_the_error_says_what_the_server_said():
    answer = Answer(code=500, content={"error": {"message": "EngineCore encountered an issue", "code": 500}})
    with serving(failing(answer)) as server, remote(server, attempts=3) as reranker:
        with pytest.raises(ServerError, match="answered 500: EngineCore encountered an issue"):
            reranker.logits(QUERY, TEXTS)

    assert len(server.heard.paths) == 3


def test_the_servers_own_wait_is_kept():
    answer = Answer(code=429, content={"error": "slow down"}, headers={"Retry-After": "0.4"})
    with serving(failing(answer, 1)) as server, remote(server) as reranker:
        start = time.monotonic()
        reranker.logits(QUERY, TEXTS)

    assert time.monotonic() - start >= 0.4


def test_a_request_that_hangs_is_cut_at_the_deadline():
    with serving(failing(Answer(after_s=3))) as server, remote(server, timeout_s=0.3) as reranker:
        start = time.monotonic()
        with pytest.raises(ServerError, match=r"took longer than timeout_s=0\.3"):
            reranker.logits(QUERY, TEXTS)
        assert time.monotonic() - start < 2


def test_retries_end_at_the_deadline_too():
    answer = Answer(code=503, content={"error": "busy"}, headers={"Retry-After": "9"})
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
    answer = Answer(code=302, content={}, headers={"Location": "http://127.0.0.1:1/elsewhere"})
    with serving(failing(answer)) as server, remote(server, api_key="k") as reranker:
        with pytest.raises(ServerError, match="redirects are not followed"):
            reranker.logits(QUERY, TEXTS)

    assert server.heard.paths == ["/classify"]


BROKEN: dict[str, tuple[object, str]] = {
    "too few": ({"data": [{"index": 0, "probs": [1.0]}]}, "not for each of 6"),
    "none": ({"data": []}, "not for each of 6"),
    "twice": ({"data": [{"index": i % 5, "probs": [1.0]} for i in range(6)]}, "an index comes twice"),
    "beyond": ({"data": [{"index": i + 1, "probs": [1.0]} for i in range(6)]}, "not for each of 6"),
    "as text": ({"data": [{"index": str(i), "probs": [1.0]} for i in range(6)]}, "not for each of 6"),
    "null": ({"data": [{"index": i, "probs": [None]} for i in range(6)]}, "gave None for index 0"),
    "no number": ({"data": [{"index": i, "probs": ["1"]} for i in range(6)]}, "gave '1' for index 0"),
    "labels": ({"data": [{"index": i, "probs": [0.4, 0.6]} for i in range(6)]}, "2 labels, not one logit"),
    "other form": ({"results": []}, "in another form than vLLM"),
    "list": ([1, 2], "in another form than vLLM"),
    "nothing": (None, "in another form than vLLM"),
}


@pytest.mark.parametrize(("content", "message"), BROKEN.values(), ids=list(BROKEN))
def test_results_are_believed_only_if_each_is_there_once_and_finite(content: object, message: str):
    with serving(failing(Answer(content=content))) as server, remote(server) as reranker:
        with pytest.raises(ServerError, match=message):
            reranker.logits(QUERY, TEXTS)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b'{"data": [{"index": 0, "probs": [NaN]}]}', "gave nan for index 0"),
        (b'{"data": [{"index": 0, "probs": [1e999]}]}', "gave inf for index 0"),
        (b"<html>Bad gateway</html>", "no JSON: '<html>Bad gateway</html>'"),
        (b"", "no JSON"),
    ],
)
def test_what_is_no_number_or_no_json_is_not_believed(raw: bytes, message: str):
    with serving(failing(Answer(raw=raw))) as server, remote(server) as reranker:
        with pytest.raises(ServerError, match=message):
            reranker.logits(QUERY, TEXTS[:1])


def test_results_in_another_order_find_their_places():
    def shuffled(path: str, body: dict[str, Any] | None) -> Answer:
        return LOST if body is None else Answer(content={"data": classified(body)["data"][::-1]})

    texts = ["a", "a a a a", "a a"]
    with serving(shuffled) as server, remote(server) as reranker:
        logits = reranker.logits(QUERY, texts)

    assert sorted(logits) == [logits[0], logits[2], logits[1]]


def test_the_first_failure_ends_the_other_requests():
    count = itertools.count()

    def one_fails(path: str, body: dict[str, Any] | None) -> Answer:
        if body is None:
            return LOST
        place = next(count)
        return Answer(code=400, content={"error": "no"}) if place == 0 else Answer(content=classified(body), after_s=5)

    with serving(one_fails) as server, remote(server, pairs_a_request=1, requests_at_once=2) as reranker:
        start = time.monotonic()
        with pytest.raises(ServerError, match="answered 400: no"):
            reranker.logits(QUERY, TEXTS)

        assert time.monotonic() - start < 4
        assert len(server.heard.paths) < len(TEXTS)


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
            assert len(server.heard.paths) <= 3


def slow(body: dict[str, Any]) -> Answer:
    return Answer(content=classified(body), after_s=0.1)


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
    with serving(failing(Answer(code=429, content={"error": "busy"}), 24)) as server:
        yield server


def test_many_requests_that_are_all_sent_away_once_or_more_come_through(busy: Server):
    with remote(busy, pairs_a_request=1, attempts=9) as reranker:
        assert len(reranker.logits(QUERY, TEXTS)) == len(TEXTS)
