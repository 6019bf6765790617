"""What all parts of a run on a device share: its time, its models, who computes with them, and how much is asked."""

import gc
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from contestants import COMPILED, ONELOGIT
from counting import Work, count_work
from device_clock import Budget, Taken, take_turns
from entrants import OURS, enter, way_of
from lineup import Absent, Entrant, Lineup
from measure import spread
from random_texts import RandomTexts
from shapes import SHAPES, Shape, shape_of
from texts import Texts
from torch._dynamo.utils import counters
from transformers import AutoConfig, PreTrainedTokenizerFast

from onelogit.errors import first_line

COMPILING_S = 60  # left at least, or nothing is compiled any more
QUERY_TOKENS = 8
SMALL, LARGE, DOCUMENT_FIRST = "qwen3-0.6b", "qwen3-4b", "ctxl-1b"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How much is asked.

    Attributes:
        documents: in a call.
        short, medium, long: documents, in tokens.
        rounds: measured calls of each entrant.
        answers: measured calls from strings, where it is the median answer that counts.
        queries: of which the order of the documents is compared with the reference's.
        query_documents, query_document_tokens: of each of them.
    """

    documents: int = 100
    short: int = 90
    medium: int = 256
    long: int = 512
    rounds: int = 7
    answers: int = 20
    queries: int = 100
    query_documents: int = 20
    query_document_tokens: int = 64


QUICK = Sizes(
    documents=4,
    short=6,
    medium=10,
    long=14,
    rounds=2,
    answers=2,
    queries=2,
    query_documents=12,
    query_document_tokens=5,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceBench:
    """A run.

    Attributes:
        budget: of time.
        texts: real ones, where folders were named.
        is_quick: tiny shapes, to try the code.
        weights: folder of a language model in place of random weights in the small shape.
        is_compiling: whether compiled layers take part.
        without: who could not take part, and why; by "shape: name".
        ways: how onelogit computes, as it says itself; by the same.
        entered_s: how long it took to make each ready.
    """

    device: torch.device
    dtype: torch.dtype
    budget: Budget
    sizes: Sizes
    tokenizer: PreTrainedTokenizerFast
    texts: Sequence[Texts] = ()
    is_quick: bool = False
    is_compiling: bool = True
    peer_batch: int = 32
    weights: Path | None = None
    without: dict[str, str] = field(default_factory=dict)
    ways: dict[str, str] = field(default_factory=dict)
    entered_s: dict[str, float] = field(default_factory=dict)
    _lineups: dict[str, Lineup] = field(default_factory=dict)
    _entrants: dict[tuple[str, str], Entrant] = field(default_factory=dict)

    def shape(self, name: str) -> Shape:
        """One of `SHAPES`, or that of the weights; where the run is quick, a tiny one of the same family."""
        shape = SHAPES[name]
        if self._weights(name) is not None:
            return shape_of(AutoConfig.from_pretrained(self._weights(name)), shape.family)
        if not self.is_quick:
            return shape
        vocabulary = max(SHAPES["tiny"].vocabulary, len(self.tokenizer))
        return replace(SHAPES["tiny"], family=shape.family, vocabulary=vocabulary)

    def lineup(self, name: str) -> Lineup:
        """The model of a shape, made when it is first asked for."""
        if name not in self._lineups:
            shape = self.shape(name)
            about = {"tokenizer": self.tokenizer, "device": self.device, "dtype": self.dtype}
            about |= {"peer_batch": self.peer_batch, "weights": self._weights(name)}
            self._lineups[name] = Lineup(shape, shape.layers, **about)
        return self._lineups[name]

    def _weights(self, name: str) -> Path | None:
        return self.weights if name == SMALL else None

    def entrants(self, name: str, entrants: Sequence[str]) -> dict[str, Entrant]:
        """Those of a shape that can take part, made ready once; why the others cannot is noted."""
        return {each: ready for each in entrants if (ready := self._enter(name, each)) is not None}

    def let_go(self, name: str) -> None:
        """Of a shape's model and of all around it."""
        self._lineups.pop(name, None)
        for key in [key for key in self._entrants if key[0] == name]:
            del self._entrants[key]
        gc.collect()  # compiled layers and some peers' stand in rings
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def random_texts(self, seed: int) -> RandomTexts:
        """The same for the same seed."""
        return RandomTexts(self.tokenizer, seed)

    def _enter(self, name: str, entrant: str) -> Entrant | None:
        key = (name, entrant)
        if key not in self._entrants and f"{name}: {entrant}" not in self.without:
            start = time.perf_counter()
            try:
                self._entrants[key] = self._made(name, entrant)
                if entrant in OURS:
                    self.ways[f"{name}: {entrant}"] = way_of(self.lineup(name), self._entrants[key])
            except Absent as reason:
                self.note(name, entrant, str(reason))
            self.entered_s[f"{name}: {entrant}"] = time.perf_counter() - start
        return self._entrants.get(key)

    def _made(self, name: str, entrant: str) -> Entrant:
        if entrant == COMPILED and not self.is_compiling:
            raise Absent("--no-compile")
        if entrant == COMPILED and not self.is_quick and self.budget.left_s < COMPILING_S:
            raise Absent(f"{self.budget.left_s:.0f} s are left, and to compile may take {COMPILING_S}")
        return enter(entrant, self.lineup(name))

    def note(self, name: str, entrant: str, reason: str) -> None:
        """Who takes no part, and why."""
        print(f"  without {entrant} ({name}): {reason}", flush=True)
        self.without[f"{name}: {entrant}"] = reason

    def race(
        self, name: str, entrants: Sequence[str], asked: Sequence[tuple[str, Sequence[str]]], most_s: float
    ) -> dict[str, Any]:
        """Rows of queries and their documents, to logits, in turn; the first ones unmeasured.

        Args:
            name: of the shape.
            entrants: who takes part, onelogit first.
            asked: queries with their documents.
            most_s: after which no new round begins.
        """
        calls = {}
        for each, ready in self.entrants(name, entrants).items():
            try:
                calls[each] = [ready.tokenised(query, documents) for query, documents in asked]
                calls[each][0]()
            except Exception as error:  # out of memory, or whatever a peer has to say; the others go on
                if each == ONELOGIT:
                    raise
                self.note(name, each, f"{type(error).__name__}: {first_line(error)}")
                del self._entrants[name, each]
                calls.pop(each, None)
        graphs = counters["stats"]["unique_graphs"]
        taken = take_turns(self.device, self.budget, calls, most_s)
        graphs = counters["stats"]["unique_graphs"] - graphs
        lineup = self.lineup(name)
        measured = asked[1 : 1 + len(taken[ONELOGIT])]
        works = [count_work(lineup.rows(query, documents), lineup.config) for query, documents in measured]
        about = {"shape": name, "layers": lineup.layers, "graphs_compiled_meanwhile": graphs}
        return {**about, **summary(taken, works)}


def summary(taken: dict[str, list[Taken]], works: Sequence[Work]) -> dict[str, Any]:
    """Figures of each entrant, and how many times as fast as each other one onelogit is, call by call."""
    mine = {name: calls for name, calls in taken.items() if name in OURS}
    return {
        "rounds": len(works),
        "documents": works[0].documents,
        "prompt_tokens": works[0].prompt_tokens,
        "distinct_tokens": works[0].distinct_tokens,
        "needed_flop": works[0].flop,
        "entrants": {name: _figures(calls, works, taken[ONELOGIT]) for name, calls in taken.items()},
        "times_as_fast": {
            name: {other: _ratios(calls, theirs) for other, theirs in taken.items() if other not in OURS}
            for name, calls in mine.items()
        },
    }


def _figures(calls: Sequence[Taken], works: Sequence[Work], firsts: Sequence[Taken]) -> dict[str, Any]:
    pairs = list(zip(calls, works, strict=True))
    return {
        "device_s": spread([call.device_s for call in calls]),
        "wall_s": spread([call.wall_s for call in calls]),
        "documents_per_s": spread([work.documents / call.device_s for call, work in pairs]),
        "needed_flop_per_s": spread([work.flop / call.device_s for call, work in pairs]),
        "max_difference": max(_difference(one, other) for one, other in zip(calls, firsts, strict=True)),
    }


def _ratios(mine: Sequence[Taken], theirs: Sequence[Taken]) -> dict[str, float]:
    return spread([other.device_s / one.device_s for one, other in zip(mine, theirs, strict=True)])


def _difference(one: Taken, other: Taken) -> float:
    return max(abs(a - b) for a, b in zip(one.logits, other.logits, strict=True))
