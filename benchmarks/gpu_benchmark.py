"""The parts that all measurements on a GPU share: time, models, the targets that compute with them, and the sizes."""

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from cross_encoders import head_alone, unpadded, with_logit_score
from gpu_targets import (
    GpuTarget,
    SharedModel,
    TargetUnavailable,
    attention_of,
    card_target,
    compiled_target,
    onelogit_target,
)
from shapes import SHAPES, changed
from targets import CARD, COMPILED, HEAD_ALONE, ONELOGIT, OURS, SENTENCE_TRANSFORMERS, UNPADDED
from texts import Corpus
from timing import DeviceCall, TimeLimit, largest_difference, ratios, spread, take_turns
from torch._dynamo.utils import counters
from transformers import AutoConfig, PreTrainedTokenizerFast, Qwen3Config
from workload import CallWork, count_work

from onelogit.errors import first_line

COMPILE_S = 60  # nothing is compiled with less time left
QUERY_TOKENS = 8
SMALL, LARGE, DOCUMENT_FIRST = "qwen3-0.6b", "qwen3-4b", "ctxl-1b"
MAKERS: dict[str, Callable[[SharedModel], GpuTarget]] = {
    ONELOGIT: onelogit_target,
    COMPILED: compiled_target,
    SENTENCE_TRANSFORMERS: with_logit_score,
    HEAD_ALONE: head_alone,
    UNPADDED: unpadded,
    CARD: card_target,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuSizes:
    """How much is measured.

    Attributes:
        documents: in a call.
        short, medium, long: documents, in tokens.
        rounds: timed calls of each target.
        string_rounds: timed calls from strings, whose median latency is a goal.
        queries: whose order of documents is compared with the reference's.
        query_documents, query_document_tokens: of each such query.
    """

    documents: int = 100
    short: int = 90
    medium: int = 256
    long: int = 512
    rounds: int = 7
    string_rounds: int = 20
    queries: int = 100
    query_documents: int = 20
    query_document_tokens: int = 64


QUICK = GpuSizes(
    documents=4,
    short=6,
    medium=10,
    long=14,
    rounds=2,
    string_rounds=2,
    queries=2,
    query_documents=12,
    query_document_tokens=5,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuBenchmark:
    """A run.

    Attributes:
        limit: of its time.
        corpora: real texts; may be empty.
        is_quick: use tiny shapes, to check that everything runs.
        is_compiling: whether compiled layers take part.
        peer_batch: prompts in one forward pass of Sentence Transformers.
        weights: folder of a language model, instead of random weights in the small shape.
        without: why a target could not take part, by "shape: name".
        attention: how onelogit computes attention, by "shape: name".
        loading_s: seconds until each target was ready, by "shape: name".
    """

    device: torch.device
    dtype: torch.dtype
    limit: TimeLimit
    sizes: GpuSizes
    tokenizer: PreTrainedTokenizerFast
    corpora: Sequence[Corpus] = ()
    is_quick: bool = False
    is_compiling: bool = True
    peer_batch: int = 32
    weights: Path | None = None
    without: dict[str, str] = field(default_factory=dict)
    attention: dict[str, str] = field(default_factory=dict)
    loading_s: dict[str, float] = field(default_factory=dict)
    _models: dict[str, SharedModel] = field(default_factory=dict)
    _targets: dict[tuple[str, str], GpuTarget] = field(default_factory=dict)

    def model(self, shape: str) -> SharedModel:
        """The model of a shape, created when it is first used."""
        if shape not in self._models:
            weights = self.weights if shape == SMALL else None
            self._models[shape] = SharedModel(
                SHAPES[shape].family,
                self._config(shape, weights),
                tokenizer=self.tokenizer,
                device=self.device,
                dtype=self.dtype,
                peer_batch=self.peer_batch,
                weights=weights,
            )
        return self._models[shape]

    def _config(self, shape: str, weights: Path | None) -> Qwen3Config:
        """The configuration of the shape, or of the weights; in a quick run, a tiny one."""
        if weights is not None:
            return AutoConfig.from_pretrained(weights)
        if not self.is_quick:
            return SHAPES[shape].config
        tiny = SHAPES["tiny"].config
        return changed(tiny, vocab_size=max(tiny.vocab_size, len(self.tokenizer)))

    def targets(self, shape: str, names: Sequence[str]) -> dict[str, GpuTarget]:
        """The targets that can take part, each loaded once; `without` says why others cannot."""
        return {name: target for name in names if (target := self._target(shape, name)) is not None}

    def release(self, shape: str) -> None:
        """Free the memory of a shape's model and targets."""
        self._models.pop(shape, None)
        for key in [key for key in self._targets if key[0] == shape]:
            del self._targets[key]
        gc.collect()  # compiled layers and some peers are in reference cycles
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _target(self, shape: str, name: str) -> GpuTarget | None:
        key, label = (shape, name), f"{shape}: {name}"
        if key not in self._targets and label not in self.without:
            start = time.perf_counter()
            try:
                self._check_compiling(name)
                self._targets[key] = MAKERS[name](self.model(shape))
            except TargetUnavailable as reason:
                self._leave_out(shape, name, str(reason))
            except Exception as error:  # compilers and optional packages raise many types; the run continues
                self._leave_out(shape, name, f"{type(error).__name__}: {first_line(error)}")
            else:
                if name in OURS:
                    self.attention[label] = attention_of(self.model(shape), self._targets[key])
            self.loading_s[label] = time.perf_counter() - start
        return self._targets.get(key)

    def _check_compiling(self, name: str) -> None:
        if name == COMPILED and not self.is_compiling:
            raise TargetUnavailable("--no-compile")
        if name == COMPILED and not self.is_quick and self.limit.left_s < COMPILE_S:
            raise TargetUnavailable(f"compiling may take {COMPILE_S} s, and {self.limit.left_s:.0f} s are left")

    def _leave_out(self, shape: str, name: str, reason: str) -> None:
        print(f"  without {name} ({shape}): {reason}", flush=True)
        self.without[f"{shape}: {name}"] = reason

    def compare(
        self, shape: str, names: Sequence[str], inputs: Sequence[tuple[str, Sequence[str]]], max_s: float
    ) -> dict[str, Any]:
        """Time the targets alternately, from token ids to logits; the first call of each is not timed.

        Args:
            shape: of the model.
            names: of the targets, onelogit first.
            inputs: queries with their documents.
            max_s: after which no new round begins.
        """
        calls = {}
        for name, target in self.targets(shape, names).items():
            try:
                calls[name] = [target.tokenize(query, documents) for query, documents in inputs]
                calls[name][0]()
            except Exception as error:  # such as out of memory; the others continue
                if name == ONELOGIT:
                    raise
                self._leave_out(shape, name, f"{type(error).__name__}: {first_line(error)}")
                del self._targets[shape, name]
                calls.pop(name, None)
        graphs = counters["stats"]["unique_graphs"]
        timed = take_turns(self.device, self.limit, calls, max_s)
        graphs = counters["stats"]["unique_graphs"] - graphs
        model = self.model(shape)
        measured = inputs[1 : 1 + len(timed[ONELOGIT])]
        work = [count_work(model.rows(query, documents), model.config) for query, documents in measured]
        return {
            "shape": shape,
            "layers": model.config.num_hidden_layers,
            "graphs_compiled_meanwhile": graphs,
            **summarize_device_calls(timed, work),
        }


def summarize_device_calls(timed: dict[str, list[DeviceCall]], work: Sequence[CallWork]) -> dict[str, Any]:
    """The throughput of each target, and how many times as fast as each peer onelogit is, call by call."""
    device_s = {name: [call.device_s for call in calls] for name, calls in timed.items()}
    logits = {name: [call.logits for call in calls] for name, calls in timed.items()}
    return {
        "rounds": len(work),
        "documents": work[0].documents,
        "prompt_tokens": work[0].prompt_tokens,
        "distinct_tokens": work[0].distinct_tokens,
        "needed_flop": work[0].flop,
        "entrants": {
            name: {
                "device_s": spread(device_s[name]),
                "wall_s": spread([call.wall_s for call in calls]),
                "documents_per_s": ratios([each.documents for each in work], device_s[name]),
                "needed_flop_per_s": ratios([each.flop for each in work], device_s[name]),
                "max_difference": largest_difference(logits[name], logits[ONELOGIT]),
            }
            for name, calls in timed.items()
        },
        "times_as_fast": {
            name: {other: ratios(device_s[other], device_s[name]) for other in timed if other not in OURS}
            for name in timed
            if name in OURS
        },
    }
