"""The client's cost of a request to a server: processor time for each request and each pair, and bytes sent.

Measures the parts separately (writing and tokenising prompts, building requests, reading responses), and
`RemoteReranker` as a whole, with a server in another process that responds at once. Only the small files of the model
are read, not its weights.

    python benchmarks/client_cost.py --model FOLDER --data DIR
"""

import argparse
import json
import multiprocessing
import statistics
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from command_line import write_json
from texts import Corpus, read_corpus

from onelogit import DEMO_MODEL, RemoteReranker
from onelogit.checkpoints.load_encoder import load_encoder
from onelogit.model_spec import ModelSpec
from onelogit.remote.protocols import VLLM_TOKENS, ScoreRequest
from onelogit.remote.request_builder import RequestBuilder

CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "vllm-tokens": {"protocol": "vllm-tokens"},
    "rerank, client": {"protocol": "rerank", "template": "client"},
    "rerank, server": {"protocol": "rerank", "template": "server"},
}


class Workload(NamedTuple):
    """How much is measured: documents in each call, and calls (rounds), each with new texts."""

    documents: int
    rounds: int


class Cost(NamedTuple):
    """Processor time in microseconds, over all threads of the process."""

    a_request: float
    a_pair: float


def response(path: str, body: dict[str, Any]) -> bytes:
    """The response of a server that computes nothing: a number for each text or row."""
    if path == "/classify":
        data = [{"index": i, "probs": [i / 7], "num_classes": 1} for i, _ in enumerate(body["input"])]
        return json.dumps({"object": "list", "data": data}).encode()
    results = [{"index": i, "relevance_score": i / 7} for i, _ in enumerate(body["documents"])]
    return json.dumps({"results": results}).encode()


class InstantServer(BaseHTTPRequestHandler):
    """Responds at once, in one write, and keeps the connection open."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1

    def do_POST(self) -> None:
        content = response(self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response_only(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def serve(pipe: Connection) -> None:
    """Respond to requests until the process ends. The port is sent through the pipe."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), InstantServer)
    pipe.send(server.server_port)
    server.serve_forever()


def processor_time(work: Callable[[], object], rounds: int = 1) -> float:
    """Processor time of the work in microseconds, the median of the rounds."""
    times = []
    for _ in range(rounds):
        start = time.process_time_ns()
        work()
        times.append((time.process_time_ns() - start) / 1e3)
    return statistics.median(times)


def calls(texts: Corpus, workload: Workload) -> list[list[tuple[str, str]]]:
    """The pairs of each call: one query, with documents that no earlier call had."""
    count = workload.documents
    return [
        [(texts.query(number), document) for document in texts.documents(number * count, count)]
        for number in range(workload.rounds)
    ]


def part_costs(model: str, texts: Corpus, workload: Workload) -> dict[str, float]:
    """Medians for a pair of each part of `vllm-tokens`, in requests of 32: microseconds, bytes and tokens."""
    loaded = load_encoder(ModelSpec(model))
    builder = RequestBuilder(encoder=loaded.encoder, sends_tokens=True, pairs_a_request=32)

    def measure(pairs: list[tuple[str, str]]) -> dict[str, float]:
        def build() -> list[ScoreRequest]:
            return builder.build(pairs, loaded.encoder.instruction, ScoreRequest(model="m")).requests

        first_time, again = processor_time(build), processor_time(build, 3)
        requests = build()
        bodies = [VLLM_TOKENS.body(request) for request in requests]
        responses = [response(VLLM_TOKENS.path, body) for body in bodies]

        def read() -> None:
            for content, request in zip(responses, requests, strict=True):
                VLLM_TOKENS.checked_numbers(json.loads(content), request.count)

        return {
            "writing and tokenising, us": first_time,
            "the same, texts met before, us": again,
            "JSON of a request, us": processor_time(lambda: [json.dumps(body) for body in bodies], 3),
            "reading an answer, us": processor_time(read, 3),
            "bytes sent": sum(len(json.dumps(body, separators=(",", ":")).encode()) for body in bodies),
            "tokens": sum(len(row) for request in requests for row in request.rows),
        }

    costs = [measure(pairs) for pairs in calls(texts, workload)]
    return {name: statistics.median(cost[name] for cost in costs) / workload.documents for name in costs[0]}


def whole_cost(url: str, model: str, texts: Corpus, workload: Workload, options: dict[str, Any]) -> Cost:
    """The cost of `RemoteReranker.logits`: of a pair in requests of 32, and the overhead of each request."""
    a_pair = {}
    for size in (1, 32):
        with RemoteReranker(url, model, served_name="m", pairs_a_request=size, **options) as remote:
            remote.logits("warm up", ["warm up"] * 40)
            times = [processor_time(lambda pairs=pairs: remote.pair_logits(pairs)) for pairs in calls(texts, workload)]
        a_pair[size] = statistics.median(times) / workload.documents
    a_request = (a_pair[1] - a_pair[32]) / (1 - 1 / 32)
    return Cost(a_request, a_pair[1] - a_request)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=DEMO_MODEL, help="hub id or folder that defines the prompts; no weights")
    parser.add_argument("--data", type=Path, help="a folder with corpus.jsonl and queries.jsonl")
    parser.add_argument("--documents", type=int, default=64, help="documents of each call")
    parser.add_argument("--rounds", type=int, default=15, help="calls to measure")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args()
    texts, workload = read_corpus(options.data), Workload(options.documents, options.rounds)
    receiver, sender = multiprocessing.Pipe()
    server = multiprocessing.Process(target=serve, args=(sender,), daemon=True)
    server.start()
    url = f"http://127.0.0.1:{receiver.recv()}"
    results: dict[str, Any] = {"texts": texts.name, "parts": part_costs(options.model, texts, workload), "whole": {}}
    print(f"{texts.name}, for each pair, in requests of 32:")
    for name, value in results["parts"].items():
        print(f"  {name:36}{value:10.1f}")
    print("RemoteReranker, processor time in microseconds:      a request    a pair")
    for name, configuration in CONFIGURATIONS.items():
        cost = whole_cost(url, options.model, texts, workload, configuration)
        results["whole"][name] = cost._asdict()
        print(f"  {name:48}{cost.a_request:10.0f}{cost.a_pair:10.1f}")
    server.terminate()
    write_json(results, options.out)


if __name__ == "__main__":
    main()
