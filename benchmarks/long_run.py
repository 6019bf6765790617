"""Many callers for a long time: are all answers right, and do memory, threads, files and sockets stay the same?

    python benchmarks/long_run.py --minutes 20 --output long-run

64 threads and 1,000 coroutines rank documents of mixed numbers and lengths, with several instructions, each time with
one of three rerankers: a local one, the same with a document cache, and a client of `onelogit serve` in a process of
its own. Each answer is compared with the logits that a single thread computed before. Some coroutines are cancelled on
purpose. Then callers that never rest try to overload a reranker with and without `max_waiting`.

Samples are appended to samples.jsonl as they are taken, so that an interrupted run can be plotted, too, with
`--only-plot`. Linux only, because it reads /proc.
"""

import argparse
import asyncio
import json
import random
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import torch
from held import held
from own_server import served
from texts import read_corpus

from onelogit import DEMO_MODEL, OverloadError, RemoteReranker, Reranker
from onelogit.benchmarking.machine import processor_name
from onelogit.io.outputs import figure_in, versions

TOLERANCE = 1e-4  # in logits of float32: rows that are computed in another batch
INSTRUCTIONS = (None, "", "Retrieve passages that answer the question.", "Given a question, find its language.")
CACHE_BYTES = 64 * 2**20
SAMPLE_S = 5.0
WARM_UP_S = 60.0
CANCELLED_SHARE = 0.02
HELD = ("resident_bytes", "allocated_bytes", "python_blocks", "threads", "system_threads", "files", "sockets")
OVERLOAD_CALLERS, OVERLOAD_S = 32, 10.0

AnyReranker = Reranker | RemoteReranker


class Case(NamedTuple):
    """A call, and the logits that it must give."""

    query: str
    documents: list[str]
    instruction: str | None
    logits: list[float]


class Outcomes:
    """What became of all calls. Safe for threads."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.faults: list[str] = []
        self.worst = 0.0
        self._lock = threading.Lock()

    def check(self, case: Case, logits: list[float], name: str) -> None:
        """Count an answer, and compare it."""
        error = max((abs(one - other) for one, other in zip(logits, case.logits, strict=False)), default=0.0)
        is_right = len(logits) == len(case.logits) and error <= TOLERANCE
        with self._lock:
            self.worst = max(self.worst, error)
            self.counts[name] += 1
            self.counts["documents"] += len(logits)
            if not is_right:
                self.counts["wrong"] += 1
                self.faults.append(f"{name}: {len(logits)} of {len(case.logits)} logits, off by up to {error:.3g}")

    def count(self, what: str, fault: str | None = None) -> None:
        """Count something else than an answer."""
        with self._lock:
            self.counts[what] += 1
            if fault is not None:
                self.faults.append(fault)


def make_cases(reranker: Reranker, count: int, seed: int) -> list[Case]:
    """Calls of mixed sizes, each computed alone and by one thread."""
    chance, corpus = random.Random(seed), read_corpus(None)
    cases = []
    for number in range(count):
        texts = corpus.documents(chance.randrange(200), chance.choice((1, 1, 2, 3, 5, 8, 13)))
        documents = [" ".join(text.split()[: chance.choice((5, 20, 60, 120))]) for text in texts]
        query, instruction = corpus.query(number), chance.choice(INSTRUCTIONS)
        cases.append(Case(query, documents, instruction, reranker.logits(query, documents, instruction)))
    return cases


class Load:
    """The callers, until `is_over` is set."""

    def __init__(self, rerankers: dict[str, AnyReranker], cases: list[Case], outcomes: Outcomes) -> None:
        self.is_over = threading.Event()
        self._rerankers, self._cases, self._outcomes = [*rerankers.items()], cases, outcomes

    def call_from_thread(self, seed: int) -> None:
        """Call again and again, and rest a little between the calls."""
        chance = random.Random(seed)
        while not self.is_over.is_set():
            (name, reranker), case = chance.choice(self._rerankers), chance.choice(self._cases)
            self._outcomes.count("started")
            try:
                logits = reranker.logits(case.query, case.documents, case.instruction)
            except Exception as error:
                self._outcomes.count("failed", f"{name}: {type(error).__name__}: {error}")
            else:
                self._outcomes.check(case, logits, f"{name}, threads")
            self.is_over.wait(chance.uniform(0, 0.5))

    async def call_from_coroutine(self, seed: int) -> None:
        """As `call_from_thread`; some calls are cancelled at a random time."""
        chance = random.Random(seed)
        while not self.is_over.is_set():
            (name, reranker), case = chance.choice(self._rerankers), chance.choice(self._cases)
            timeout_s = chance.uniform(0, 2) if chance.random() < CANCELLED_SHARE else None
            self._outcomes.count("started")
            try:
                async with asyncio.timeout(timeout_s):
                    ranking = await reranker.arank(case.query, case.documents, instruction=case.instruction)
            except TimeoutError:
                self._outcomes.count("cancelled on purpose")
            except Exception as error:
                self._outcomes.count("failed", f"{name}: {type(error).__name__}: {error}")
            else:
                logits = [each.logit for each in sorted(ranking, key=lambda each: each.index)]
                self._outcomes.check(case, logits, f"{name}, coroutines")
            await asyncio.sleep(chance.uniform(0, 5))

    async def call_from_coroutines(self, count: int) -> None:
        """So many coroutines in one event loop."""
        await asyncio.gather(*(self.call_from_coroutine(10_000 + number) for number in range(count)))


def sample(started: float, outcomes: Outcomes) -> dict[str, Any]:
    """What this process holds now, and what became of all calls until now."""
    return {"seconds": round(time.monotonic() - started, 1), **held(), **outcomes.counts}


def run_load(options: argparse.Namespace, rerankers: dict[str, AnyReranker], samples: Path) -> dict[str, Any]:
    """All callers for the given minutes; returns what became of their calls."""
    cases = make_cases(rerankers["plain"], options.cases, seed=1)  # type: ignore[arg-type]
    outcomes = Outcomes()
    load, started = Load(rerankers, cases, outcomes), time.monotonic()
    pool = ThreadPoolExecutor(options.threads + 1)
    calls = [pool.submit(load.call_from_thread, seed) for seed in range(options.threads)]
    calls.append(pool.submit(asyncio.run, load.call_from_coroutines(options.coroutines)))
    with samples.open("w", encoding="utf-8") as stream:
        try:
            while (left := options.minutes * 60 - (time.monotonic() - started)) > 0:
                time.sleep(min(SAMPLE_S, left))
                found = sample(started, outcomes)
                print(json.dumps(found), file=stream, flush=True)
                shown = ("seconds", "resident_bytes", "allocated_bytes", "threads", "started")
                print({name: found[name] for name in shown}, flush=True)
        finally:
            load.is_over.set()
            for call in calls:
                call.result(1800)  # those that wait are answered, too
            pool.shutdown()
    return {"counts": dict(outcomes.counts), "worst_error": outcomes.worst, "faults": outcomes.faults[:20]}


def growth(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """How much was held after the first minute, at the end, and at most."""
    later = [each for each in samples if each["seconds"] >= min(WARM_UP_S, samples[-1]["seconds"] / 2)]
    found = {}
    for name in HELD:
        values = [each[name] for each in later if each.get(name) is not None]
        if not values:
            continue
        part = max(1, len(values) // 4)
        first, last = sorted(values[:part])[part // 2], sorted(values[-part:])[part // 2]
        found[name] = {"first_quarter": first, "last_quarter": last, "most": max(values), "growth": last - first}
    return found


def run_overload(model: str) -> dict[str, Any]:
    """Callers that never rest, with and without `max_waiting`: seconds of accepted calls, and how many were refused."""
    return {f"max_waiting={most}": _overload(model, most) for most in (None, 4)}


def _overload(model: str, max_waiting: int | None) -> dict[str, Any]:
    corpus = read_corpus(None)
    documents, seconds, refused = corpus.documents(0, 8), list[float](), list[int]()

    def call(seed: int) -> None:
        end = time.monotonic() + OVERLOAD_S
        while time.monotonic() < end:
            start = time.monotonic()
            try:
                reranker.logits(corpus.query(seed), documents)
            except OverloadError:
                refused.append(1)
                time.sleep(0.01)
            else:
                seconds.append(time.monotonic() - start)

    with Reranker.load(model, max_waiting=max_waiting) as reranker, ThreadPoolExecutor(OVERLOAD_CALLERS) as pool:
        list(pool.map(call, range(OVERLOAD_CALLERS)))
    seconds.sort()
    shares = {"median_s": 0.5, "p99_s": 0.99, "most_s": 1.0}
    last = len(seconds) - 1
    figures = {name: round(seconds[min(last, int(len(seconds) * share))], 4) for name, share in shares.items()}
    return {**figures, "accepted": len(seconds), "refused": len(refused)}


def plot(samples: list[dict[str, Any]], path: Path) -> None:
    """Resident memory, and the numbers of threads, files and sockets, over the time."""
    minutes = [each["seconds"] / 60 for each in samples]
    with figure_in(path, 9, 5) as figure:
        memory, counts = figure.subplots(2, 1, sharex=True)
        for name, label in (("resident_bytes", "resident"), ("allocated_bytes", "allocated by malloc")):
            if samples[0].get(name) is not None:
                memory.plot(minutes, [each[name] / 2**20 for each in samples], label=label)
        memory.set(ylabel="memory (MiB)", ylim=(0, None))
        memory.legend(loc="center right", fontsize="small")
        for name in ("system_threads", "threads", "files", "sockets"):
            counts.plot(minutes, [each[name] for each in samples], label=name.replace("_", " "))
        counts.set(xlabel="minutes", ylabel="count", ylim=(0, None))
        counts.legend(loc="center right", fontsize="small")


def read_options() -> argparse.Namespace:
    """The arguments."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--threads", type=int, default=64)
    parser.add_argument("--coroutines", type=int, default=1000)
    parser.add_argument("--cases", type=int, default=300, help="different calls, computed alone at first")
    parser.add_argument("--model", default=DEMO_MODEL)
    parser.add_argument("--output", type=Path, default=Path("long-run"), metavar="FOLDER")
    parser.add_argument("--only-plot", action="store_true", help="plot and judge the samples of an interrupted run")
    return parser.parse_args()


def main() -> int:
    """Run, and write report.json and plot.svg; the exit code is 1 if an answer was wrong or lost."""
    options = read_options()
    options.output.mkdir(parents=True, exist_ok=True)
    samples_file, report = options.output / "samples.jsonl", dict[str, Any]()
    if not options.only_plot:
        torch.set_num_threads(1)  # the models of three rerankers and the server share the cores
        server_options = ("--max-waiting", "5000", "--device", "cpu", "--dtype", "float32")
        with served(options.model, *server_options) as (url, _):
            plain = Reranker.load(options.model, device="cpu", dtype="float32")
            cached = Reranker.load(options.model, device="cpu", dtype="float32", document_cache_bytes=CACHE_BYTES)
            client = RemoteReranker(url, options.model, timeout_s=600)
            with plain, cached, client:
                report = run_load(options, {"plain": plain, "cached": cached, "served": client}, samples_file)
        report["overload"] = run_overload(options.model)
    samples = [json.loads(line) for line in samples_file.read_text(encoding="utf-8").splitlines()]
    report |= {"minutes": samples[-1]["seconds"] / 60, "held": growth(samples), "processor": processor_name()}
    report["versions"] = versions(("onelogit", "torch", "transformers"))
    report["command"] = f"python benchmarks/long_run.py {' '.join(sys.argv[1:])}"
    counts = report.get("counts", samples[-1])
    ended = sum(count for name, count in counts.items() if ", " in name or name in ("failed", "cancelled on purpose"))
    report |= {"wrong": counts.get("wrong", 0), "lost": counts["started"] - ended}
    (options.output / "report.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    plot(samples, options.output / "plot.svg")
    return int(bool(report["wrong"] or counts.get("failed") or (report["lost"] and not options.only_plot)))


if __name__ == "__main__":
    sys.exit(main())
