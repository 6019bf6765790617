"""Many clients of `onelogit serve` at once -> latencies, throughput and memory; every answer is checked.

    python benchmarks/serving.py --clients 64 --minutes 5 --output serving.json

Runs the command with the demo model, or `--model`, as a process of its own, and clients in this one.
"""

import argparse
import asyncio
import json
import os
import random
import re
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx2
from own_server import served

from onelogit import DEMO_MODEL, Reranker

# Of a logit, because rows are computed in other batches than alone; half precision rounds more.
_TOLERANCE, _HALF_TOLERANCE = 1e-4, 0.05
_WORDS = re.findall(r"\w+", "China Beijing capital Paris France banana yellow river old king price of the is in what")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=DEMO_MODEL, help="hub id or folder (default: the demo model)")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--documents", type=int, default=8, help="of a request (default: 8)")
    parser.add_argument("--words", type=int, default=40, help="of a document, at most (default: 40)")
    parser.add_argument("--leaving", type=float, default=0.02, help="share of requests whose client goes away")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the numbers as JSON")
    return parser.parse_args()


def requests_of(options: argparse.Namespace, count: int = 64) -> list[dict[str, Any]]:
    """Requests to choose from, the same each time."""
    chooser = random.Random(1)

    def text(words: int) -> str:
        return " ".join(chooser.choices(_WORDS, k=words))

    return [
        {"query": text(6), "documents": [text(chooser.randint(1, options.words)) for _ in range(options.documents)]}
        for _ in range(count)
    ]


def resident_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


async def run_client(
    http: httpx2.AsyncClient, number: int, choices: list[Any], end: float, options: argparse.Namespace, log: Any
) -> None:
    """One client, which sends one request after the other, and sometimes goes away."""
    chooser = random.Random(number)
    tolerance = _TOLERANCE if options.dtype == "float32" else _HALF_TOLERANCE
    while time.monotonic() < end:
        body, expected = chooser.choice(choices)
        started = time.perf_counter()
        sending = asyncio.ensure_future(http.post("/v1/rerank", json=body))
        if chooser.random() < options.leaving:
            await asyncio.sleep(chooser.random() * 0.2)
            sending.cancel()
            log["counts"]["left"] += 1
            await asyncio.gather(sending, return_exceptions=True)
            continue
        answer = await sending
        log["counts"][str(answer.status_code)] += 1
        if answer.status_code != 200:
            continue
        log["seconds"].append(time.perf_counter() - started)
        logits = {each["index"]: each["logit"] for each in answer.json()["results"]}
        distance = max(abs(logits[index] - logit) for index, logit in enumerate(expected))
        log["difference"] = max(log["difference"], distance)
        log["counts"]["wrong"] += distance > tolerance or len(logits) != len(expected)


async def watch_memory(pid: int, end: float, log: Any) -> None:
    while time.monotonic() < end:
        log["memory"].append(resident_mb(pid))
        await asyncio.sleep(1)


async def load(url: str, pid: int, choices: list[Any], options: argparse.Namespace) -> dict[str, Any]:
    log: dict[str, Any] = {"counts": Counter(), "seconds": [], "memory": [], "difference": 0.0}
    end = time.monotonic() + 60 * options.minutes
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx2.AsyncClient(base_url=url, trust_env=False, timeout=300, limits=limits) as http:
        await asyncio.gather(
            watch_memory(pid, end, log),
            *(run_client(http, n, choices, end, options, log) for n in range(options.clients)),
        )
    return log


def summary(log: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    seconds, memory = sorted(log["seconds"]), log["memory"]
    tenth = max(1, len(memory) // 10)
    return {
        "model": "demo" if options.model == DEMO_MODEL else options.model,
        "dtype": options.dtype,
        "clients": options.clients,
        "minutes": options.minutes,
        "documents": options.documents,
        "answers": dict(log["counts"]),
        "largest_difference": log["difference"],
        "answers_per_second": len(seconds) / (60 * options.minutes),
        "documents_per_second": len(seconds) * options.documents / (60 * options.minutes),
        "latency_s": {
            f"p{share}": seconds[min(len(seconds) - 1, len(seconds) * share // 100)] for share in (50, 90, 95, 99)
        }
        | {"max": seconds[-1]},
        "memory_mb_by_tenth": [round(max(memory[start : start + tenth]), 1) for start in range(0, len(memory), tenth)],
    }


def main() -> int:
    options = parse_arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the server ends, too
    bodies = requests_of(options)
    with Reranker.load(options.model, dtype=options.dtype) as reranker:
        choices = [(body, reranker.logits(body["query"], body["documents"])) for body in bodies]
    with served(options.model, "--dtype", options.dtype) as (url, pid):
        log = asyncio.run(load(url, pid, choices, options))
    result = summary(log, options)
    print(json.dumps(result, indent=2))
    if options.output is not None:
        options.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    known = {"200", "left", "wrong"}
    return int(log["counts"]["wrong"] > 0 or any(name not in known for name in log["counts"]))


if __name__ == "__main__":
    sys.exit(main())
