"""A running server measured against the original: a small local one that answers as vLLM was recorded to answer."""

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
import torch

from onelogit import LoadOptions, Reranker, ServerError
from onelogit.measure.pairs import Pair
from onelogit.measure.parity import measure_parity
from onelogit.measure.server import server_logits
from tiny import Tiny

PAIRS = [Pair("What is it?", text) for text in ("It is this.", "It is that. " * 8, "서울", "")]
CPU: LoadOptions = {"device": "cpu"}
Answer = Callable[[dict], tuple[int, object]]


@contextmanager
def serving(answer: Answer, models: object = None) -> Iterator[str]:
    """A server on this machine, for as long as the block lasts."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._send(200, {"data": [{"id": "tiny"}]} if models is None else models)

        def do_POST(self) -> None:
            self._send(*answer(json.loads(self.rfile.read(int(self.headers["Content-Length"])))))

        def _send(self, code: int, content: object) -> None:
            body = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join(timeout=10)
        server.server_close()


def classify(reranker: Reranker, shift: float = 0.0) -> Answer:
    def answer(body: dict) -> tuple[int, object]:
        assert body["model"] == "tiny"
        assert body["use_activation"] is False
        data = []
        for index, row in enumerate(body["input"]):
            with torch.inference_mode():
                logit = reranker.classifier(input_ids=torch.tensor([row])).logits.item()
            data.append({"index": index, "label": "LABEL_0", "probs": [logit + shift], "num_classes": 1})
        return 200, {"object": "list", "data": data[::-1]}

    return answer


def test_a_server_of_the_conversion_agrees(tiny_qwen: Tiny, reranker: Reranker):
    with serving(classify(reranker)) as url:
        parity = measure_parity(str(tiny_qwen.folder), PAIRS, CPU, against=url)

    assert parity.agrees
    assert parity.against[0].name == f"the server at {url}"


def test_a_server_of_something_else_is_found_out(tiny_qwen: Tiny, reranker: Reranker):
    with serving(classify(reranker, shift=0.01)) as url:
        assert not measure_parity(str(tiny_qwen.folder), PAIRS, CPU, against=url).agrees


def test_many_rows_come_back_in_order():
    def answer(body: dict) -> tuple[int, object]:
        return 200, {"data": [{"index": i, "probs": [float(row[0])]} for i, row in enumerate(body["input"])]}

    with serving(answer) as url:
        assert server_logits(f"{url}/", [[n, 7] for n in range(50)]) == [float(n) for n in range(50)]


@pytest.mark.parametrize(
    ("code", "content", "complaint"),
    [
        (404, {"detail": "Not Found"}, "answered 404: .*Not Found"),
        (500, b"EngineCore encountered an issue", "answered 500: EngineCore"),
        (200, b"<html>", "does not answer"),
        (200, [1], "answered with a list"),
        (200, {"data": [{"index": 0, "probs": [1.0]}]}, "not for all 2"),
        (200, {"data": [{"index": 0, "probs": [1.0]}, {"index": 0, "probs": [2.0]}]}, "not for all 2"),
        (200, {"data": [{"index": n, "probs": [0.1, 0.9]} for n in (0, 1)]}, "2 labels"),
        (200, {"data": [{"index": n, "probs": [math.nan]} for n in (0, 1)]}, "may be uninitialised"),
        (200, {"data": [{"index": n, "probs": None} for n in (0, 1)]}, "no labels"),
    ],
)
def test_an_answer_that_cannot_be_believed_is_an_error(code: int, content: object, complaint: str):
    with serving(lambda body: (code, content)) as url, pytest.raises(ServerError, match=complaint):
        server_logits(url, [[1], [2]])


def test_a_server_that_is_no_vllm_or_not_there_is_an_error():
    with serving(lambda body: (200, {}), models={"data": []}) as url, pytest.raises(ServerError, match="no vLLM"):
        server_logits(url, [[1]])
    with pytest.raises(ServerError, match="does not answer"):
        server_logits(url, [[1]])
