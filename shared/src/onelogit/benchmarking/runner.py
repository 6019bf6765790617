"""Contestants and texts -> times of calls of every size, taken in turn, within a budget of seconds."""

import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from onelogit.benchmarking.latency import LatencySummary, Times, summarize
from onelogit.benchmarking.targets import Timed
from onelogit.benchmarking.text_supply import Supply

_WARM_UP_DOCUMENTS = 32
BUSY = 0.25  # programs a core that ran before the run began, the mean of a minute
WAKING = "Good morning."


class Case(NamedTuple):
    """A kind of call.

    Attributes:
        candidates: documents in it.
        document_tokens: of each document, about; None for documents as long as the texts are.
    """

    candidates: int
    document_tokens: int | None = None


class Budget(NamedTuple):
    """How long it goes on.

    Attributes:
        seconds: for all cases together; a call that has begun is ended.
        repeats: calls of a case at most.
    """

    seconds: float
    repeats: int


class Counted(NamedTuple):
    """The prompts of a call: their tokens, and how many documents were cut to fit."""

    tokens: int
    cut: int


class Timer(Protocol):
    """A contestant, in this process or in another."""

    name: str

    def time(self, query: str, documents: Sequence[str]) -> Timed: ...


Count = Callable[[str, Sequence[str]], Counted | None]
Report = Callable[[float, str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A case, and what was found.

    Attributes:
        candidates, document_tokens: as in `Case`.
        prompt_tokens: of a pair's whole prompt, the mean; None where nobody here knows the tokenizer.
        cut_documents: how many were cut to fit.
        targets: in the given order; empty where the case was left out.
        largest_difference: of a logit, between two contestants for the same pair; None for one contestant.
        left_out: why no call was made; None where some were.
    """

    candidates: int
    document_tokens: int | None
    prompt_tokens: float | None = None
    cut_documents: int = 0
    targets: tuple[LatencySummary, ...] = ()
    largest_difference: float | None = None
    left_out: str | None = None


class _Turn(NamedTuple):
    """A call by everyone."""

    timed: list[Timed]
    counted: Counted | None


@dataclass(slots=True, kw_only=True)
class Runner:
    """Measures cases, one after the other.

    Args:
        targets: the first one is what the others are compared with.
        supply: of texts.
        count: tells the tokens of a call's prompts.
        limits: how long it goes on.
        is_warm: the same documents in each call of a case, with a new query each time; else no text comes twice.
        report: told of each call's seconds, and of what comes next.
    """

    targets: Sequence[Timer]
    supply: Supply
    count: Count
    limits: Budget
    is_warm: bool = False
    report: Report = lambda _seconds, _description: None

    def measure(self, cases: Sequence[Case]) -> list[Measured]:
        """What was found of each case; of those that fit into the budget no more, why not."""
        end = time.monotonic() + self.limits.seconds
        found: list[Measured] = []
        cost = math.inf  # seconds of a token, or of a document; the least so far, for small calls cost more
        for place, case in enumerate(cases):
            left = end - time.monotonic()
            amount = case.candidates * (case.document_tokens or 1)
            expected = cost * amount
            if found and expected > left:
                found.append(_left_out(case, expected, left))
                continue
            turns = self._turns(case, left / (len(cases) - place))
            cost = min(cost, *(sum(each.seconds for each in turn.timed) / amount for turn in turns))
            found.append(self._summary(case, turns))
        return found

    def _turns(self, case: Case, seconds: float) -> list[_Turn]:
        """As many calls as fit into the seconds, one at least."""
        end = time.monotonic() + seconds
        documents = self.supply.documents(case.candidates, case.document_tokens) if self.is_warm else None
        self._warm_up(case, documents)
        turns: list[_Turn] = []
        longest = 0.0
        while len(turns) < self.limits.repeats and (not turns or time.monotonic() + longest <= end):
            begun = time.monotonic()
            self.report(0, f"{_named(case)}, call {len(turns) + 1}")
            turns.append(self._turn(case, documents, len(turns)))
            longest = max(longest, time.monotonic() - begun)
            self.report(time.monotonic() - begun, _named(case))
        return turns

    def _warm_up(self, case: Case, documents: Sequence[str] | None) -> None:
        """Let everyone see the size once; where it is to be warm, the documents themselves."""
        if documents is None:
            documents = self.supply.documents(min(case.candidates, _WARM_UP_DOCUMENTS), case.document_tokens)
        query = self.supply.query()
        for target in self.targets:
            target.time(query, documents)

    def _turn(self, case: Case, documents: Sequence[str] | None, number: int) -> _Turn:
        """One call by everyone, another one first each time."""
        query = self.supply.query()
        documents = self.supply.documents(case.candidates, case.document_tokens) if documents is None else documents
        count = len(self.targets)
        order = [(number + step) % count for step in range(count)]
        timed = {place: self._awake(place, number).time(query, documents) for place in order}
        return _Turn([timed[place] for place in range(count)], self.count(query, documents))

    def _awake(self, place: int, number: int) -> Timer:
        """A contestant, after a short call where it stood idle: a system may take its memory back meanwhile."""
        target = self.targets[place]
        if len(self.targets) > 1:
            target.time(WAKING, [f"{WAKING} {number}"])
        return target

    def _summary(self, case: Case, turns: Sequence[_Turn]) -> Measured:
        times = [
            Times(target.name, tuple(turn.timed[place].seconds for turn in turns))
            for place, target in enumerate(self.targets)
        ]
        counted = [turn.counted for turn in turns]
        tokens = [None if each is None else each.tokens for each in counted]
        known = [each for each in counted if each is not None]
        return Measured(
            candidates=case.candidates,
            document_tokens=case.document_tokens,
            prompt_tokens=sum(each.tokens for each in known) / len(known) / case.candidates if known else None,
            cut_documents=sum(each.cut for each in known),
            targets=tuple(summarize(each, times[0], case.candidates, tokens) for each in times),
            largest_difference=_largest_difference(turns),
        )


def load_before() -> float | None:
    """How many programs ran over the last minute, for each core; None where the system does not tell."""
    try:
        return os.getloadavg()[0] / (os.cpu_count() or 1)
    except OSError:
        return None


def _named(case: Case) -> str:
    length = "" if case.document_tokens is None else f" of {case.document_tokens:,} tokens"
    return f"{case.candidates:,} document{'s' if case.candidates > 1 else ''}{length}"


def _left_out(case: Case, expected: float, left: float) -> Measured:
    reason = f"a call would take about {expected:.0f} s, and {max(0, left):.0f} s are left; give more --seconds"
    return Measured(candidates=case.candidates, document_tokens=case.document_tokens, left_out=reason)


def _largest_difference(turns: Sequence[_Turn]) -> float | None:
    differences = [
        abs(ours - theirs)
        for turn in turns
        for other in turn.timed[1:]
        for ours, theirs in zip(turn.timed[0].logits, other.logits, strict=True)
    ]
    return max(differences, default=None)
