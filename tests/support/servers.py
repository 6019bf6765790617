"""Small servers on this machine: ones that answer as others were recorded to answer, and ones that misbehave."""

import json
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any

import torch

from onelogit import Reranker
from onelogit.ranking import to_score

Body = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a server says; `raw` in place of JSON, a byte each `drip_s`, nothing where it resets the connection."""

    code: int = 200
    content: object = None
    raw: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)
    after_s: float = 0.0
    drip_s: float = 0.0
    is_reset: bool = False


@dataclass(slots=True)
class Heard:
    """What a server was asked, in the order of arrival, and how many requests it had at once at most."""

    paths: list[str] = field(default_factory=list)
    bodies: list[Body] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    connections: set[tuple[str, int]] = field(default_factory=set)
    at_once: int = 0
    most_at_once: int = 0
    lock: Lock = field(default_factory=Lock)


@dataclass(frozen=True, slots=True)
class Server:
    url: str
    heard: Heard


Respond = Callable[[str, Body | None], Answer]


@contextmanager
def serving(respond: Respond) -> Iterator[Server]:
    """A server for as long as the block lasts.

    Args:
        respond: (path, body; None for a GET) -> its answer.
    """
    heard = Heard()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._send(respond(self.path, None))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with heard.lock:
                heard.paths.append(self.path)
                heard.bodies.append(body)
                heard.headers.append(dict(self.headers))
                heard.connections.add(self.client_address)
                heard.at_once += 1
                heard.most_at_once = max(heard.most_at_once, heard.at_once)
            try:
                answer = respond(self.path, body)
                time.sleep(answer.after_s)
            finally:
                with heard.lock:
                    heard.at_once -= 1
            self._send(answer)

        def _send(self, answer: Answer) -> None:
            if answer.is_reset:
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                self.close_connection = True
                return
            content = json.dumps(answer.content).encode() if answer.raw is None else answer.raw
            try:
                self.send_response(answer.code)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                for part in [content[i : i + 1] for i in range(len(content))] if answer.drip_s else [content]:
                    self.wfile.write(part)
                    time.sleep(answer.drip_s)
            except OSError:
                pass  # the client has gone

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.block_on_close = False
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield Server(f"http://127.0.0.1:{server.server_port}", heard)
    finally:
        server.shutdown()
        thread.join(timeout=10)
        server.server_close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A reranker behind the protocols of other servers.

    Attributes:
        has_template: write the model's prompt around query and document; else they are joined as they come.
        is_activated: give sigmoids whatever is asked.
        names: of the models that it lists.
        wrong: exchanges each number.
        before: ids that it puts before each row.
        most_tokens: of each row; it cuts the rest off without a word.
        is_sglang: answer in its form.
    """

    reranker: Reranker
    has_template: bool = True
    is_activated: bool = False
    names: Sequence[str] = ("tiny",)
    is_sglang: bool = False
    wrong: Callable[[float], float] = float
    before: Sequence[int] = ()
    most_tokens: int | None = None

    def __call__(self, path: str, body: Body | None) -> Answer:
        if body is None:
            return Answer(content={"data": [{"id": name} for name in self.names]}) if path == "/v1/models" else LOST
        if body.get("model", self.names[0] if self.names else None) not in (*self.names, None):
            error = {"message": f"The model `{body['model']}` does not exist.", "type": "NotFoundError", "code": 404}
            return Answer(code=404, content={"error": error})
        return self._scored(path, body)

    def _scored(self, path: str, body: Body) -> Answer:
        if path == "/classify":
            numbers = self._numbers([*body["input"]], is_raw=not body["use_activation"])
            data = [{"index": i, "label": "LABEL_0", "probs": [n], "num_classes": 1} for i, n in enumerate(numbers)]
            return Answer(content={"object": "list", "data": data[::-1]})
        texts = body.get("texts", body.get("documents"))
        is_raw = self.is_sglang or body.get("raw_scores", body.get("use_activation") is False)
        instruction = body.get("instruction", body.get("instruct"))
        numbers = self._numbers([self._row(body["query"], text, instruction) for text in texts], is_raw=is_raw)
        if path == "/rerank":
            return Answer(content=[{"index": i, "score": n} for i, n in enumerate(numbers)][::-1])
        if self.is_sglang:
            return Answer(content=[{"index": i, "score": n} for i, n in enumerate(numbers)][::-1])
        results = [{"index": i, "relevance_score": n} for i, n in enumerate(numbers)]
        return Answer(content={"results": sorted(results, key=lambda each: -each["relevance_score"])})

    def _row(self, query: str, document: str, instruction: str | None) -> list[int]:
        if self.has_template and query:
            (row,) = self.reranker._scorer.rows([(query, document)], instruction).rows
        else:
            row = self.reranker._scorer.tokenizer(query + document)["input_ids"]
        return [*self.before, *row]

    def _numbers(self, rows: Sequence[Sequence[int]], *, is_raw: bool) -> list[float]:
        with torch.inference_mode():
            logits = [
                self.reranker.classifier(input_ids=torch.tensor([[*row[: self.most_tokens]]])).logits.item()
                for row in rows
            ]
        activation = "identity" if is_raw and not self.is_activated else "sigmoid"
        return [to_score(self.wrong(logit), activation) for logit in logits]


LOST = Answer(code=404, content={"detail": "Not Found"})
