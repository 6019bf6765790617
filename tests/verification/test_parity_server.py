"""A server measured against the original: a small local one that gives the answers that were recorded from vLLM."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from onelogit import LoadOptions, Reranker, ServerError
from onelogit.io.sample_pairs import SamplePair
from onelogit.verification.parity import measure_parity, server_logits
from support.servers import FakeServer, Response, serving
from support.tiny import Tiny

PAIRS = [SamplePair("What is it?", text) for text in ("It is this.", "It is that. " * 8, "서울", "")]
CPU: LoadOptions = {"device": "cpu"}


@contextmanager
def answering(content: object, code: int = 200, models: object = None) -> Iterator[str]:
    """A server that lists a model and gives every request this answer; bytes are sent unchanged."""
    listed = Response(content={"data": [{"id": "tiny"}]} if models is None else models)
    answer = Response(code=code, raw=content) if isinstance(content, bytes) else Response(code=code, content=content)
    with serving(lambda path, body: listed if body is None else answer) as server:
        yield server.url


def test_a_server_of_the_conversion_agrees(tiny_qwen: Tiny, reranker: Reranker):
    with serving(FakeServer(reranker=reranker)) as server:
        parity = measure_parity(str(tiny_qwen.folder), PAIRS, CPU, against=server.url)

    assert parity.agrees
    assert parity.against[0].name == f"the server at {server.url}"


def test_a_server_with_other_logits_disagrees(tiny_qwen: Tiny, reranker: Reranker):
    with serving(FakeServer(reranker=reranker, change=lambda logit: logit + 0.01)) as server:
        assert not measure_parity(str(tiny_qwen.folder), PAIRS, CPU, against=server.url).agrees


def test_many_rows_come_back_in_order():
    def answer(path: str, body: dict | None) -> Response:
        if body is None:
            return Response(content={"data": [{"id": "tiny"}]})
        return Response(
            content={"data": [{"index": i, "probs": [float(row[0])]} for i, row in enumerate(body["input"])]}
        )

    with serving(answer) as server:
        assert server_logits(f"{server.url}/", [[n, 7] for n in range(50)]) == [float(n) for n in range(50)]


@pytest.mark.parametrize(
    ("code", "content", "complaint"),
    [
        (404, {"detail": "Not Found"}, "answered 404: Not Found"),
        (200, b"<html>", "is not JSON"),
        (200, {"data": [{"index": 0, "probs": [1.0]}]}, "not one for each of 2"),
        (200, {"data": [{"index": n, "probs": [0.1, 0.9]} for n in (0, 1)]}, "2 labels"),
        (200, {"data": [{"index": n, "probs": [math.nan]} for n in (0, 1)]}, "is the model's head initialised"),
    ],
)
def test_an_invalid_answer_is_a_server_error(code: int, content: object, complaint: str):
    with answering(content, code) as url, pytest.raises(ServerError, match=complaint):
        server_logits(url, [[1], [2]])


def test_a_server_that_is_missing_or_not_vllm_is_a_server_error():
    with answering({}, models={"data": []}) as url, pytest.raises(ServerError, match="not a vLLM server"):
        server_logits(url, [[1]])
    with pytest.raises(ServerError, match="does not answer"):
        server_logits("http://127.0.0.1:9", [[1]])
