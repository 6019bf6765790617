"""What it costs to ask a server: processor time of the client for each request and each pair, and bytes on the wire.

The parts by themselves (writing and tokenising prompts, building requests, reading answers), and `RemoteReranker` as a
whole, asking a server in another process that answers at once. No model is loaded: only its small files are read.

    python benchmarks/client_cost.py --model FOLDER --data DIR
"""

import argparse
import asyncio
import json
import multiprocessing
import statistics
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from texts import Texts, read_texts

from onelogit import DEMO_MODEL, RemoteReranker
from onelogit.checkpoints.load_encoder import load_encoder
from onelogit.options import ModelSpec
from onelogit.remote.protocols import PROTOCOLS, ScoreRequest, read
from onelogit.remote.request_builder import BuiltRequests, RequestBuilder

WAYS: dict[str, dict[str, Any]] = {
    "vllm-tokens": {"protocol": "vllm-tokens"},
    "rerank, client": {"protocol": "rerank", "template": "client"},
    "rerank, server": {"protocol": "rerank", "template": "server"},
}


class Sizes(NamedTuple):
    """How much is asked."""

    documents: int
    rounds: int


class Cost(NamedTuple):
    """Microseconds of the processor, over all threads of the process."""

    a_request: float
    a_pair: float


def answer(path: str, body: dict[str, Any]) -> bytes:
    """What a server says that needs no time: a number for each text or row."""
    if path == "/classify":
        data = [{"index": i, "probs": [i / 7], "num_classes": 1} for i, _ in enumerate(body["input"])]
        return json.dumps({"object": "list", "data": data}).encode()
    results = [{"index": i, "relevance_score": i / 7} for i, _ in enumerate(body["documents"])]
    return json.dumps({"results": results}).encode()


def serve(pipe: Connection) -> None:
    """Answer on a port of this machine, which goes through the pipe, until the process is ended."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                path = head.split(b" ", 2)[1].decode()
                length = next(
                    int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")
                )
                said = answer(path, json.loads(await reader.readexactly(length)))
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(said) + said)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def main() -> None:
        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        pipe.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(main())


def processor_time(work: Callable[[], object], rounds: int) -> float:
    """Microseconds, the median over the rounds."""
    taken = []
    for _ in range(rounds):
        start = time.process_time_ns()
        work()
        taken.append((time.process_time_ns() - start) / 1e3)
    return statistics.median(taken)


def calls(texts: Texts, sizes: Sizes) -> list[list[tuple[str, str]]]:
    """One query with documents that no earlier call had, each."""
    return [
        [(texts.query(turn), document) for document in texts.documents(turn * sizes.documents, sizes.documents)]
        for turn in range(sizes.rounds)
    ]


def parts(model: str, texts: Texts, sizes: Sizes) -> dict[str, float]:
    """Microseconds a pair of each part of `vllm-tokens`, in requests of 32."""
    loaded, protocol = load_encoder(ModelSpec(model)), PROTOCOLS["vllm-tokens"]
    builder = RequestBuilder(protocol_spec=protocol, encoder=loaded.encoder, sends_tokens=True, pairs_a_request=32)
    fresh, remembered, building, reading, bytes_a_pair, tokens_a_pair = [], [], [], [], [], []

    def ask(pairs: Sequence[tuple[str, str]]) -> BuiltRequests:
        return builder.asked(pairs, loaded.instruction, ScoreRequest(model="m"))

    for pairs in calls(texts, sizes):
        fresh.append(processor_time(lambda pairs=pairs: ask(pairs), 1))
        remembered.append(processor_time(lambda pairs=pairs: ask(pairs), 3))
        asked = ask(pairs)
        sent = [json.dumps(body, separators=(",", ":")).encode() for body in asked.bodies]
        building.append(processor_time(lambda asked=asked: [json.dumps(body) for body in asked.bodies], 3))
        said = [answer(protocol.path, body) for body in asked.bodies]
        reading.append(
            processor_time(
                lambda said=said, asked=asked: [
                    read(protocol, json.loads(each), count) for each, count in zip(said, asked.counts, strict=True)
                ],
                3,
            )
        )
        bytes_a_pair.append(sum(map(len, sent)))
        tokens_a_pair.append(sum(len(row) for body in asked.bodies for row in body["input"]))
    named = {
        "writing and tokenising, us": fresh,
        "the same, texts met before, us": remembered,
        "JSON of a request, us": building,
        "reading an answer, us": reading,
        "bytes sent": bytes_a_pair,
        "tokens": tokens_a_pair,
    }
    return {name: statistics.median(values) / sizes.documents for name, values in named.items()}


def whole(url: str, model: str, texts: Texts, sizes: Sizes, way: dict[str, Any]) -> Cost:
    """Of `RemoteReranker.logits`: a pair's share in requests of 32, and what a request of one pair takes besides."""
    a_pair = {}
    for pairs_a_request in (1, 32):
        options = {"served_name": "m", "pairs_a_request": pairs_a_request, **way}
        with RemoteReranker(url, model, **options) as remote:
            remote.logits("warm up", ["warm up"] * 40)
            taken = [processor_time(lambda pairs=pairs: remote.pair_logits(pairs), 1) for pairs in calls(texts, sizes)]
        a_pair[pairs_a_request] = statistics.median(taken) / sizes.documents
    a_request = (a_pair[1] - a_pair[32]) / (1 - 1 / 32)
    return Cost(a_request, a_pair[1] - a_request)


def main() -> None:
    """Measure, print, and write JSON where a file is named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=DEMO_MODEL, help="hub id or folder whose prompts are written; no weights")
    parser.add_argument("--data", type=Path, help="a folder with corpus.jsonl and queries.jsonl")
    parser.add_argument("--documents", type=int, default=64, help="of a call")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path, help="a JSON file for the figures")
    options = parser.parse_args()
    texts, sizes = read_texts(options.data), Sizes(options.documents, options.rounds)
    mine, theirs = multiprocessing.Pipe()
    server = multiprocessing.Process(target=serve, args=(theirs,), daemon=True)
    server.start()
    url = f"http://127.0.0.1:{mine.recv()}"
    figures: dict[str, Any] = {"texts": texts.name, "parts": parts(options.model, texts, sizes), "whole": {}}
    print(f"for each pair, in requests of 32, of {texts.name}:")
    for name, value in figures["parts"].items():
        print(f"  {name:36}{value:10.1f}")
    print("RemoteReranker, microseconds of the processor:      a request    a pair")
    for name, way in WAYS.items():
        cost = whole(url, options.model, texts, sizes, way)
        figures["whole"][name] = cost._asdict()
        print(f"  {name:48}{cost.a_request:10.0f}{cost.a_pair:10.1f}")
    server.terminate()
    if options.out:
        options.out.write_text(json.dumps(figures, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
