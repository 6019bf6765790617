"""Small HTTP servers on this machine: some answer as real rerank servers were recorded to answer, others misbehave."""

import json
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any

import torch

from onelogit import Reranker
from onelogit.options import Protocol
from onelogit.ranking import to_score
from onelogit.remote.protocols import PROTOCOLS, ScoreRequest

Body = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """An HTTP response of a test server.

    Attributes:
        content: sent as JSON.
        raw: sent in place of `content`.
        delay_s: seconds before the response.
        byte_delay_s: seconds after each byte of it.
        is_reset: reset the connection and send nothing.
    """

    code: int = 200
    content: object = None
    raw: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    byte_delay_s: float = 0.0
    is_reset: bool = False


NOT_FOUND = Response(code=404, content={"detail": "Not Found"})


@dataclass(slots=True)
class RequestLog:
    """All POST requests, in the order of arrival, and how many the server handled concurrently."""

    paths: list[str] = field(default_factory=list)
    bodies: list[Body] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    connections: set[tuple[str, int]] = field(default_factory=set)
    concurrent: int = 0
    max_concurrent: int = 0
    lock: Lock = field(default_factory=Lock)


@dataclass(frozen=True, slots=True)
class Server:
    url: str
    requests: RequestLog


Respond = Callable[[str, Body | None], Response]


@contextmanager
def serving(respond: Respond) -> Iterator[Server]:
    """Run a server until the block ends.

    Args:
        respond: (path, body) -> response; the body is None for a GET.
    """
    requests = RequestLog()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._send(respond(self.path, None))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with requests.lock:
                requests.paths.append(self.path)
                requests.bodies.append(body)
                requests.headers.append(dict(self.headers))
                requests.connections.add(self.client_address)
                requests.concurrent += 1
                requests.max_concurrent = max(requests.max_concurrent, requests.concurrent)
            try:
                response = respond(self.path, body)
                time.sleep(response.delay_s)
            finally:
                with requests.lock:
                    requests.concurrent -= 1
            self._send(response)

        def _send(self, response: Response) -> None:
            if response.is_reset:
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                self.close_connection = True
                return
            content = json.dumps(response.content).encode() if response.raw is None else response.raw
            try:
                self.send_response(response.code)
                for name, value in response.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                for part in [content[i : i + 1] for i in range(len(content))] if response.byte_delay_s else [content]:
                    self.wfile.write(part)
                    time.sleep(response.byte_delay_s)
            except OSError:
                pass  # the client has disconnected

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.block_on_close = False
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield Server(f"http://127.0.0.1:{server.server_port}", requests)
    finally:
        server.shutdown()
        thread.join(timeout=10)
        server.server_close()


def _classifications(numbers: Sequence[float]) -> object:
    data = [{"index": i, "label": "LABEL_0", "probs": [n], "num_classes": 1} for i, n in enumerate(numbers)]
    return {"object": "list", "data": data[::-1]}


def _sorted_results(numbers: Sequence[float]) -> object:
    results = [{"index": i, "relevance_score": n} for i, n in enumerate(numbers)]
    return {"results": sorted(results, key=lambda each: -each["relevance_score"])}


def _reversed_scores(numbers: Sequence[float]) -> object:
    return [{"index": i, "score": n} for i, n in enumerate(numbers)][::-1]


RESPONSE_OF_PROTOCOL: Mapping[Protocol, Callable[[Sequence[float]], object]] = {
    "vllm-tokens": _classifications,
    "rerank": _sorted_results,
    "tei": _reversed_scores,
    "sglang": _reversed_scores,
}
PROTOCOL_OPTIONS: list[dict[str, Any]] = [
    {"protocol": name} | template
    for name, spec in PROTOCOLS.items()
    for template in ([{}] if spec.sends_tokens else [{"template": "client"}, {"template": "server"}])
]


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeServer:
    """Responds as a rerank server would, with the logits of a local reranker. Pass it to `serving`.

    Attributes:
        protocol: for a path that several protocols have in common.
        has_template: write the model's prompt around query and document; False joins them as they are.
        is_activated: return sigmoids, whatever the request says.
        model_names: the models that it lists.
        change: applied to each logit.
        extra_ids: token ids before each row.
        max_tokens: longer rows are truncated silently.
    """

    reranker: Reranker
    protocol: Protocol = "rerank"
    has_template: bool = True
    is_activated: bool = False
    model_names: Sequence[str] = ("tiny",)
    change: Callable[[float], float] = float
    extra_ids: Sequence[int] = ()
    max_tokens: int | None = None

    def __call__(self, path: str, body: Body | None) -> Response:
        if body is None:
            models = {"data": [{"id": name} for name in self.model_names]}
            return Response(content=models) if path == "/v1/models" else NOT_FOUND
        if body.get("model", self.model_names[0] if self.model_names else None) not in (*self.model_names, None):
            error = {"message": f"The model `{body['model']}` does not exist.", "type": "NotFoundError", "code": 404}
            return Response(code=404, content={"error": error})
        protocol = self.protocol
        if PROTOCOLS[protocol].path != path:
            protocol = next(name for name, spec in PROTOCOLS.items() if spec.path == path)
        return Response(content=RESPONSE_OF_PROTOCOL[protocol](self._numbers(self._rows(body), self._is_raw(body))))

    def _is_raw(self, body: Body) -> bool:
        spec = PROTOCOLS[self.protocol]
        can_choose = spec.body(ScoreRequest(raw=True)) != spec.body(ScoreRequest(raw=False))
        return not can_choose or body.get("raw_scores", body.get("use_activation") is False)

    def _rows(self, body: Body) -> Sequence[Sequence[int]]:
        if "input" in body:
            return body["input"]
        instruction = body.get("instruction", body.get("instruct"))
        return [self._row(body["query"], text, instruction) for text in body.get("texts", body.get("documents"))]

    def _row(self, query: str, document: str, instruction: str | None) -> list[int]:
        if self.has_template and query:
            row = self.reranker._scorer.rows([(query, document)], instruction)[0].ids
        else:
            row = self.reranker._scorer.tokenizer(query + document)["input_ids"]
        return [*self.extra_ids, *row]

    def _numbers(self, rows: Sequence[Sequence[int]], is_raw: bool) -> list[float]:
        with torch.inference_mode():
            logits = [
                self.reranker.classifier(input_ids=torch.tensor([[*row[: self.max_tokens]]])).logits.item()
                for row in rows
            ]
        activation = "identity" if is_raw and not self.is_activated else "sigmoid"
        return [to_score(self.change(logit), activation) for logit in logits]
