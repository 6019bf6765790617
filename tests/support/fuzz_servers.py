"""Fuzz targets of HTTP: what servers answer to us, and what clients send to `onelogit serve`."""

import asyncio
import json
import math
from functools import lru_cache
from random import Random
from types import SimpleNamespace
from typing import Any

from hypothesis import strategies as st

from onelogit import DEMO_MODEL, Reranker, ServerError
from onelogit.remote.http_errors import error_from_response, error_in_body, hint_for
from onelogit.remote.protocols import PROTOCOLS, ScoreRequest
from onelogit.serving import app
from support.fuzz_files import ODD, changed, random_odd, random_place
from support.fuzzing import FuzzTarget

_ANSWERS: list[Any] = [
    {"data": [{"index": 0, "probs": [0.5]}, {"index": 1, "probs": [0.25]}]},
    {"results": [{"index": 0, "relevance_score": 0.5}, {"index": 1, "relevance_score": -2.5}]},
    {"output": {"results": [{"index": "0", "score": "0.5"}, {"index": 1, "relevance_score": 3}]}},
    [{"index": 1, "score": 0.5}, {"index": 0, "score": 1e300}],
    {"error": {"message": "no", "code": 429}, "status": "500"},
    {"detail": "no", "message": "ok", "code": 200, "results": []},
    {"object": "error", "message": None, "code": "x"},
]
_NUMBER_LIST = [math.nan, math.inf, -math.inf, 10**400, 1e308, -0.0, "1e9", "nan", "1_0", "9" * 5000, True]
_NUMBERS = st.sampled_from(_NUMBER_LIST)
PLACES = st.lists(st.integers(0, 5), min_size=1, max_size=4)
ANSWERS = st.tuples(
    st.sampled_from(sorted(PROTOCOLS)),
    st.integers(0, len(_ANSWERS) - 1),
    st.lists(st.tuples(PLACES, ODD | _NUMBERS), max_size=4),
    st.integers(100, 599),
    st.binary(max_size=20),
)
_REQUEST = ScoreRequest(query="a", documents=["b", ""], model="m")


def check_answer(case: tuple[str, int, list[tuple[list[int], Any]], int, bytes]) -> None:
    """An answer gives finite numbers in the order of the request, or one clear error."""
    protocol, which, changes, status, noise = case
    answer, spec = _ANSWERS[which], PROTOCOLS[protocol]  # type: ignore[index]
    for place, new in changes:
        answer = changed(answer, place, new)

    def hint(code: int) -> str | None:
        return hint_for(code, spec, _REQUEST, "lower max_tokens")

    reported = error_in_body("http://a", answer, str, hint)
    assert reported is None or str(reported).strip()
    content = noise or json.dumps(answer).encode()
    response = SimpleNamespace(status_code=status, headers={"Retry-After": str(noise, "latin-1")})
    assert str(error_from_response("http://a", response, content, str, hint)).strip()
    try:
        numbers = spec.checked_numbers(answer, 2)
    except ServerError as error:
        assert str(error).strip()
        return
    assert len(numbers) == 2
    assert all(type(number) is float and math.isfinite(number) for number in numbers)


_PROTOCOL_NAMES = sorted(PROTOCOLS)


def random_answer(random: Random) -> tuple[str, int, list[tuple[list[int], Any]], int, bytes]:
    """As `ANSWERS`."""
    changes = [
        (random_place(random), random.choice(_NUMBER_LIST) if random.random() < 0.4 else random_odd(random))
        for _ in range(random.choice((0, 1, 1, 2, 4)))
    ]
    noise = random.randbytes(random.choice((0, 0, 0, 3, 20)))
    return random.choice(_PROTOCOL_NAMES), random.randrange(len(_ANSWERS)), changes, random.randint(100, 599), noise


_REQUESTS: dict[str, dict[str, Any]] = {
    "/v1/rerank": {"query": "a", "documents": ["b", "c"], "top_n": 1, "return_documents": True, "raw_logits": True},
    "/v2/rerank": {"query": "a", "documents": ["b"], "max_tokens_per_doc": 3, "model": None},
    "/rerank": {"query": "a", "texts": ["b", "c"], "raw_scores": False, "truncate": False, "return_text": True},
    "/score": {"text_1": "a", "text_2": ["b"], "instruction": "i", "use_activation": None},
    "/v1/score": {"queries": ["a", "b"], "documents": [{"text": "b"}, "c"]},
    "/classify": {"input": [[1, 2], [3]], "use_activation": False},
}
HEADERS = st.sampled_from(
    [
        {"content-type": "application/json"},
        {"content-type": "application/json", "x-request-id": "a"},
        {"content-type": "text/plain"},
        {"content-type": "application/json", "content-length": "99999999999"},
        {"content-type": "application/json", "x-request-id": "\x7f" * 200, "expect": "100-continue"},
        {},
    ]
)
REQUESTS = st.tuples(
    st.sampled_from([*_REQUESTS]),
    st.lists(st.tuples(PLACES, ODD | _NUMBERS), max_size=3),
    st.one_of(
        st.none(), st.none(), st.none(), st.binary(max_size=40), st.text('[]{}",:0n ', max_size=20).map(str.encode)
    ),
    HEADERS,
)


@lru_cache(maxsize=1)
def _served() -> tuple[Any, asyncio.AbstractEventLoop]:
    return app(Reranker.load(DEMO_MODEL)), asyncio.new_event_loop()


async def _answer(application: Any, path: str, content: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
    waiting = [{"type": "http.request", "body": content, "more_body": False}]
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        if waiting:
            return waiting.pop()
        return await asyncio.Event().wait() and {}  # type: ignore[return-value]  # the client stays

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
        "scheme": "http",
        "http_version": "1.1",
    }
    await asyncio.wait_for(application(scope, receive, send), 60)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent)


def check_request(case: tuple[str, list[tuple[list[int], Any]], bytes | None, dict[str, str]]) -> None:
    """A request is answered with finite scores, or refused with a sentence; the server never fails."""
    path, changes, raw, headers = case
    body: Any = _REQUESTS[path]
    for place, new in changes:
        body = changed(body, place, new)
    application, loop = _served()
    status, content = loop.run_until_complete(
        _answer(application, path, json.dumps(body).encode() if raw is None else raw, headers)
    )
    assert status in (200, 400, 404, 413, 415), (status, content)
    answer = json.loads(content, parse_constant=_refuse)
    assert status == 200 or str(answer.get("message", answer.get("error"))).strip()


def _refuse(name: str) -> None:
    raise AssertionError(f"the answer has {name}, which is not JSON")


TARGETS = [
    FuzzTarget("server answers", ANSWERS, check_answer, random_answer),
    FuzzTarget("serve requests", REQUESTS, check_request),
]
