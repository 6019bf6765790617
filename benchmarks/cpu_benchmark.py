"""The parts that all measurements on a CPU share: the checkpoint, the texts, the loaded targets, and the sizes."""

import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cpu_targets import BenchmarkCall, CountedCall, CpuTarget, missing
from peer_server import PeerServer
from targets import ONELOGIT, VLLM
from texts import Corpus
from timing import ratios, spread
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerFast
from vllm_target import ARGUMENTS, SETTINGS, start_vllm
from workload import count_work, prompt_rows

from checkpoints import RandomCheckpoint
from onelogit import OnelogitError
from onelogit.benchmarking.latency import is_noisy
from onelogit.benchmarking.targets import TargetProcess
from onelogit.prompts.encoder import Encoder
from onelogit.ranking import kendall_tau

WARM_UP_START = 100_000  # position in the repeated corpus of the texts that only warm up


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuSizes:
    """How much is measured.

    Attributes:
        documents: in a call, unless a measurement has its own number.
        rounds: calls, each with other texts.
        checked: documents whose logits are compared with the causal model's in float32.
        callers: at once.
        documents_per_caller: for each of them.
        growth: documents in a call, from few to many.
        peer_documents: most documents in a call of `growth` that peers are measured with, too.
        lengths: of documents, in tokens.
        length_documents: documents in each call of `lengths`.
        long_documents: documents in the calls of `long`, from few to many.
        long_tokens: of each of them.
        encoder_documents: documents in each call of `encoders`; None for 32 short or 16 long ones.
    """

    documents: int = 48
    rounds: int = 5
    checked: int = 8
    callers: int = 16
    documents_per_caller: int = 5
    growth: tuple[int, ...] = (10, 30, 100, 300, 1000)
    peer_documents: int = 100
    lengths: tuple[int, ...] = (32, 64, 128, 256, 512, 1024)
    length_documents: int = 16
    long_documents: tuple[int, ...] = (1, 4)
    long_tokens: int = 8192
    encoder_documents: int | None = None


QUICK = CpuSizes(
    documents=6,
    rounds=2,
    checked=3,
    callers=3,
    documents_per_caller=2,
    growth=(2, 8),
    peer_documents=8,
    lengths=(16, 64),
    length_documents=3,
    long_documents=(2,),
    long_tokens=1500,
    encoder_documents=3,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuBenchmark:
    """A run.

    Attributes:
        checkpoint: of the shape's family.
        corpora: `cold` measures each; the largest one is used for everything else.
        sizes: of the measurements.
        peers: names of the targets besides onelogit.
        vllm_url: of a server that somebody else started.
        vllm_python: of an environment with vLLM, to start a server with.
        encoders: names of the shapes that `encoders` measures.
        encoder_layers: fewer than the shapes have; None for all.
        tokenizer_folder: None for onelogit's small one.
        allowed: by target, what it was allowed to use, and its settings.
        without: by target, the reason why it is not measured.
    """

    checkpoint: RandomCheckpoint
    corpora: Sequence[Corpus]
    sizes: CpuSizes
    peers: Sequence[str]
    vllm_url: str | None = None
    vllm_python: Path | None = None
    encoders: Sequence[str] = ()
    encoder_layers: int | None = None
    tokenizer_folder: Path | None = None
    allowed: dict[str, dict[str, Any]] = field(default_factory=dict)
    without: dict[str, str] = field(default_factory=dict)
    _processes: dict[tuple[str, str, str], TargetProcess] = field(default_factory=dict)
    _servers: list[PeerServer] = field(default_factory=list)

    @property
    def largest(self) -> Corpus:
        """The corpus with the most documents."""
        return max(self.corpora, key=lambda each: len(each.all_documents))

    def available(self, checkpoint: RandomCheckpoint, names: Sequence[str]) -> list[str]:
        """The available targets; prints once why the others are not available."""
        for name in names:
            reason = self._missing(name, checkpoint)
            if reason is not None and name not in self.without:
                self._leave_out(name, reason)
        return [name for name in names if name not in self.without]

    def targets(self, checkpoint: RandomCheckpoint, names: Sequence[str]) -> list[TargetProcess]:
        """The available ones, loaded and warm; each is loaded once in a run, and left out if that fails."""
        targets = []
        for name in self.available(checkpoint, names):
            key = (str(checkpoint.folder), checkpoint.dtype, name)
            if key not in self._processes:
                try:
                    self._processes[key] = self._warm_process(name, checkpoint)
                except OnelogitError as error:
                    if name == ONELOGIT:
                        raise
                    self._leave_out(name, str(error))
                    continue
            targets.append(self._processes[key])
        return targets

    def new_process(self, name: str, checkpoint: RandomCheckpoint) -> TargetProcess:
        """A target in a process that the caller closes."""
        url = self._served_url(checkpoint) if name == VLLM else None
        return TargetProcess(name, CpuTarget, name, checkpoint, url)

    def memory_of_call(self, name: str, checkpoint: RandomCheckpoint, documents: Sequence[str]) -> dict[str, int]:
        """The bytes that a target holds after loading, and at the peak of its first call, in a new process."""
        process = self.new_process(name, checkpoint)
        try:
            used = process.call("memory_of_call", self.largest.query(0), documents)
        finally:
            process.close()
        return {**asdict(used), "beyond_loaded": used.peak - used.loaded}

    def _warm_process(self, name: str, checkpoint: RandomCheckpoint) -> TargetProcess:
        process = self.new_process(name, checkpoint)
        for documents in (8, 1):
            process.time("warm up", self.largest.documents(WARM_UP_START, documents))
        self.allowed.setdefault(name, {}).update(process.call("allowed"))
        return process

    def _missing(self, name: str, checkpoint: RandomCheckpoint) -> str | None:
        if name == VLLM and self.vllm_url is None and self.vllm_python is None:
            return "neither --vllm-python nor --vllm-url"
        return missing(name, checkpoint)

    def _leave_out(self, name: str, reason: str) -> None:
        print(f"  without {name}: {reason}")
        self.without[name] = reason

    def _served_url(self, checkpoint: RandomCheckpoint) -> str:
        """The url of a server of the checkpoint's classifier, which is started unless its url was given."""
        if self.vllm_url is not None or self.vllm_python is None:
            return str(self.vllm_url).rstrip("/")
        self.allowed[VLLM] = {"cores": os.cpu_count(), "arguments": ARGUMENTS, "settings": SETTINGS}
        url, server = start_vllm(self.vllm_python, checkpoint)
        self._servers.append(server)
        return url

    def all_targets(self) -> list[TargetProcess]:
        """Onelogit and its peers."""
        return self.targets(self.checkpoint, [ONELOGIT, *self.peers])

    def tokenizer(self, checkpoint: RandomCheckpoint) -> PreTrainedTokenizerFast:
        """The checkpoint's own."""
        return AutoTokenizer.from_pretrained(checkpoint.folder)

    def call(self, checkpoint: RandomCheckpoint, query: str, documents: Sequence[str]) -> BenchmarkCall:
        """A call with its workload."""
        rows = prompt_rows(self.tokenizer(checkpoint), checkpoint.recipe, query, documents)
        return BenchmarkCall(query, documents, count_work(rows, AutoConfig.from_pretrained(checkpoint.folder)))

    def calls(self, checkpoint: RandomCheckpoint, corpus: Corpus, count: int, rounds: int) -> list[BenchmarkCall]:
        """Calls that share no text, so that a call cannot reuse anything from an earlier one."""
        return [
            self.call(checkpoint, corpus.query(number), corpus.documents(number * count, count))
            for number in range(rounds)
        ]

    def close(self) -> None:
        """End the targets' processes and servers."""
        while self._processes:
            self._processes.popitem()[1].close()
        while self._servers:
            self._servers.pop().close()


def summarize_calls(timed: dict[str, list[CountedCall]], calls: Sequence[BenchmarkCall]) -> dict[str, Any]:
    """The throughput of each target, its time over the first target's, and over each other's."""
    seconds = {name: [each.seconds for each in measured] for name, measured in timed.items()}
    first = next(iter(seconds.values()))
    work = [call.workload for call in calls]
    distinct = sum(each.distinct_tokens for each in work)
    summaries = {}
    for name, taken in seconds.items():
        tokens = [each.tokens for each in timed[name]]
        computed = None if None in tokens else sum(tokens)
        summaries[name] = {
            "seconds": spread(taken),
            "time_over_first": ratios(taken, first),
            "time_over": {other: ratios(taken, theirs) for other, theirs in seconds.items()},
            "pairs_per_s": _per_second([each.documents for each in work], taken),
            "distinct_tokens_per_s": _per_second([each.distinct_tokens for each in work], taken),
            "needed_flop_per_s": _per_second([each.flop for each in work], taken),
            "tokens_computed": computed,
            "computed_over_distinct": None if computed is None else computed / distinct,
        }
    return {
        "calls": len(calls),
        "documents": work[0].documents,
        "prompt_tokens": sum(each.prompt_tokens for each in work),
        "distinct_tokens": distinct,
        "is_noisy": any(
            is_noisy([one / other for one, other in zip(taken, first, strict=True)]) for taken in seconds.values()
        ),
        "contestants": summaries,
    }


def agreement(logits: Sequence[float], truth: Sequence[float]) -> dict[str, float | None]:
    """The greatest error, Kendall's tau, and the standard deviation of the true logits to compare the error with."""
    return {
        "max_error": max(abs(logit - true) for logit, true in zip(logits, truth, strict=True)),
        "kendall_tau": kendall_tau(logits, truth) if len(truth) > 1 else 1.0,
        "spread_of_truth": statistics.pstdev(truth),
    }


def encoding_time(checkpoint: RandomCheckpoint, calls: Sequence[BenchmarkCall], call_s: float) -> dict[str, Any]:
    """The time that onelogit's tokenisation takes by itself, and its share of a call that takes `call_s`."""
    recipe = checkpoint.recipe
    encoder = Encoder(recipe, AutoTokenizer.from_pretrained(checkpoint.folder), {})
    encoder.rows([("warm up", "warm up")], recipe.default_instruction)
    seconds = []
    for call in calls:
        start = time.perf_counter()
        encoder.rows([(call.query, document) for document in call.documents], recipe.default_instruction)
        seconds.append(time.perf_counter() - start)
    median = statistics.median(seconds)
    return {"seconds": median, "share_of_call": median / call_s}


def _per_second(amounts: Sequence[int], seconds: Sequence[float]) -> float:
    return statistics.median(amount / taken for amount, taken in zip(amounts, seconds, strict=True))
