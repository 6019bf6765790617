"""Targets and texts -> the latency of calls of each size; the targets' calls alternate, within a budget of seconds."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from onelogit.benchmarking.latency import LatencySummary, summarize
from onelogit.benchmarking.targets import TargetProcess, TimedCall
from onelogit.benchmarking.text_supply import TextSupply

_WARM_UP_DOCUMENTS = 32
WAKE_UP_TEXT = "Good morning."
Item = TypeVar("Item")


class Case(NamedTuple):
    """A size of call: a number of documents, of about so many tokens each; None to leave documents as they are."""

    candidates: int
    document_tokens: int | None = None

    def __str__(self) -> str:
        length = "" if self.document_tokens is None else f" of {self.document_tokens:,} tokens"
        return f"{self.candidates:,} document{'s' if self.candidates > 1 else ''}{length}"


class Budget(NamedTuple):
    """Seconds for all cases together (a started call is finished), and the maximum number of calls per case."""

    seconds: float
    repeats: int


class PromptCount(NamedTuple):
    """The tokens in the prompts of a call, and how many documents were truncated to fit."""

    tokens: int
    cut: int


CountTokens = Callable[[str, Sequence[str]], PromptCount | None]
Report = Callable[[float, str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseResult:
    """The results of a case.

    Attributes:
        candidates, document_tokens: as in `Case`.
        prompt_tokens: mean tokens of a whole prompt; None if the tokenizer is unknown.
        cut_documents: number of documents that were truncated to fit.
        targets: one summary per target, in the given order; empty if the case was left out.
        largest_difference: between the logits of two targets for the same pair; None for a single target.
        left_out: the reason why no call was made, or None.
    """

    candidates: int
    document_tokens: int | None
    prompt_tokens: float | None = None
    cut_documents: int = 0
    targets: tuple[LatencySummary, ...] = ()
    largest_difference: float | None = None
    left_out: str | None = None


class _Round(NamedTuple):
    """One call to each target."""

    calls: list[TimedCall]
    prompts: PromptCount | None


@dataclass(slots=True, kw_only=True)
class Runner:
    """Measures cases one after the other.

    Args:
        targets: all others are compared with the first one.
        supply: supplies queries and documents.
        count_tokens: (query, documents) -> tokens of the prompts.
        budget: of time and calls.
        is_warm: use the same documents in each call of a case, with a new query; otherwise no text is used twice.
        report: called with the seconds since the last report and a description of the work in progress.
    """

    targets: Sequence[TargetProcess]
    supply: TextSupply
    count_tokens: CountTokens
    budget: Budget
    is_warm: bool = False
    report: Report = lambda _seconds, _description: None

    def measure(self, cases: Sequence[Case]) -> list[CaseResult]:
        """One result per case. The first case is always measured; a later one is left out if it would take too long."""
        end = time.monotonic() + self.budget.seconds
        results: list[CaseResult] = []
        cost = math.inf  # seconds per token or document; the least so far, because small calls cost more
        for index, case in enumerate(cases):
            left = end - time.monotonic()
            amount = case.candidates * (case.document_tokens or 1)
            if results and cost * amount > left:
                reason = f"a call would take about {cost * amount:.0f} s, and {max(0, left):.0f} s are left"
                results.append(CaseResult(**case._asdict(), left_out=f"{reason}; give more --seconds"))
                continue
            rounds = self._rounds(case, left / (len(cases) - index))
            cost = min(cost, *(sum(call.seconds for call in each.calls) / amount for each in rounds))
            results.append(self._result(case, rounds))
        return results

    def _rounds(self, case: Case, seconds: float) -> list[_Round]:
        """As many rounds as fit into `seconds`, at least one."""
        end = time.monotonic() + seconds
        documents = self.supply.documents(case.candidates, case.document_tokens) if self.is_warm else None
        self._warm_up(case, documents)
        rounds: list[_Round] = []
        longest = 0.0
        while len(rounds) < self.budget.repeats and (not rounds or time.monotonic() + longest <= end):
            start = time.monotonic()
            self.report(0, f"{case}, call {len(rounds) + 1}")
            query = self.supply.query()
            new = self.supply.documents(case.candidates, case.document_tokens) if documents is None else documents
            calls = time_round(self.targets, query, new, len(rounds))
            rounds.append(_Round(calls, self.count_tokens(query, new)))
            longest = max(longest, time.monotonic() - start)
            self.report(time.monotonic() - start, str(case))
        return rounds

    def _warm_up(self, case: Case, documents: Sequence[str] | None) -> None:
        """Call each target once with this size or, if the case is warm, with the documents themselves."""
        if documents is None:
            documents = self.supply.documents(min(case.candidates, _WARM_UP_DOCUMENTS), case.document_tokens)
        query = self.supply.query()
        for target in self.targets:
            target.time(query, documents)

    def _result(self, case: Case, rounds: Sequence[_Round]) -> CaseResult:
        seconds = [[each.calls[index].seconds for each in rounds] for index in range(len(self.targets))]
        tokens = [None if each.prompts is None else each.prompts.tokens for each in rounds]
        known = [each.prompts for each in rounds if each.prompts is not None]
        return CaseResult(
            **case._asdict(),
            prompt_tokens=sum(each.tokens for each in known) / len(known) / case.candidates if known else None,
            cut_documents=sum(each.cut for each in known),
            targets=tuple(
                summarize(target.name, taken, case.candidates, tokens, seconds[0] if index else None)
                for index, (target, taken) in enumerate(zip(self.targets, seconds, strict=True))
            ),
            largest_difference=_largest_difference(rounds),
        )


def time_round(targets: Sequence[TargetProcess], query: str, documents: Sequence[str], number: int) -> list[TimedCall]:
    """Time one call to each target; each round starts with a different target.

    With several targets, an untimed short call wakes each one first, because the operating system may reclaim an idle
    target's memory while the others compute.

    Returns:
        One call per target, in the given order.
    """
    calls = {}
    for target in rotated(targets, number):
        if len(targets) > 1:
            target.time(WAKE_UP_TEXT, [f"{WAKE_UP_TEXT} {number}"])
        calls[target.name] = target.time(query, documents)
    return [calls[target.name] for target in targets]


def rotated(items: Sequence[Item], number: int) -> list[Item]:
    """The items in their order, but starting at index `number`, modulo their count."""
    start = number % len(items)
    return [*items[start:], *items[:start]]


def _largest_difference(rounds: Sequence[_Round]) -> float | None:
    differences = [
        abs(logit - reference)
        for each in rounds
        for other in each.calls[1:]
        for reference, logit in zip(each.calls[0].logits, other.logits, strict=True)
    ]
    return max(differences, default=None)
