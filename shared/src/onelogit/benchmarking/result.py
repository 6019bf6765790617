"""All that a run found, and what its figures depend on: for a file, and for whoever shows it."""

import json
from dataclasses import asdict, dataclass
from typing import Any

from onelogit.benchmarking.latency import calls_for
from onelogit.benchmarking.runner import BUSY, Measured
from onelogit.benchmarking.targets import Facts, Memory
from onelogit.options import DEMO_NOTE, is_demo
from onelogit.recipes.recipe import is_non_commercial


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A run.

    Attributes:
        model: hub id or path; the URL of a server whose model is not named.
        server: the URL of a server; None for a model of this machine.
        facts: of the first contestant.
        memory: of each contestant that has some here, by name.
        texts: where they came from.
        documents_as_given: handed out as they stand there.
        documents_made_up: handed out with their words in other orders, or put together to a length.
        is_warm: whether the documents of a case came again in each of its calls.
        seconds: the budget.
        load_before: programs a core that ran over the minute before; None where the system does not tell.
        cases: in the order in which they were measured.
    """

    model: str
    server: str | None
    facts: Facts
    memory: dict[str, Memory]
    texts: str
    documents_as_given: int
    documents_made_up: int
    is_warm: bool
    seconds: float
    load_before: float | None
    cases: tuple[Measured, ...]

    @property
    def names(self) -> list[str]:
        """Of the contestants."""
        return list(dict.fromkeys(each.name for case in self.cases for each in case.targets))

    @property
    def has_lengths(self) -> bool:
        """Whether documents were made to a length."""
        return any(case.document_tokens for case in self.cases)

    def to_json(self) -> dict[str, Any]:
        """All of it as dicts, lists, strings and numbers, with the `notes`."""
        facts = {**self.facts._asdict(), "memory": {name: each._asdict() for name, each in self.memory.items()}}
        plain = {**asdict(self), "facts": facts}
        cases = plain.pop("cases")
        for case in cases:
            case["contestants"] = case.pop("targets")  # the name in the format
            for figures in case["contestants"]:
                ratio = figures["times_as_fast"]
                figures["times_as_fast"] = None if ratio is None else ratio._asdict()
        plain.pop("memory")
        told: dict[str, Any] = json.loads(json.dumps({**plain, "notes": notes_of(self), "cases": cases}))
        return told


def notes_of(result: Result) -> list[str]:
    """What has to be said beside the figures, a sentence each."""
    return [
        *([DEMO_NOTE] if is_demo(result.model) else []),
        *_notes_of_licence(result),
        *_notes_of_noise(result),
        *_notes_of_percentiles(result),
        *_notes_of_texts(result),
        *_left_out(result),
    ]


def _notes_of_licence(result: Result) -> list[str]:
    licence = result.facts.licence
    return [f"The model is licensed {licence}: not for commercial use."] if is_non_commercial(licence) else []


def _notes_of_noise(result: Result) -> list[str]:
    notes = []
    if result.load_before is not None and result.load_before > BUSY:
        notes.append(f"{result.load_before:.1f} programs a core ran here before the run began: its times say little.")
    noisy = [case for case in result.cases if any(each.is_noisy for each in case.targets)]
    if noisy:
        named = ", ".join(sorted({f"{case.candidates:,}" for case in noisy}, key=lambda text: (len(text), text)))
        notes.append(
            f"Calls with {named} candidates differ so much that this machine was too noisy, busy with something else: "
            "do not believe them, run it again."
        )
    if any(each.is_noisy is None for case in result.cases for each in case.targets):
        notes.append("Where there was one call only, nothing tells whether the machine was quiet; give more --seconds.")
    return notes


def _notes_of_percentiles(result: Result) -> list[str]:
    fewest = min((each.calls for case in result.cases for each in case.targets), default=100)
    if fewest >= calls_for(99):
        return []
    return [
        f"A percentile stands only where there were calls enough: {calls_for(50)} for p50, {calls_for(95)} for p95, "
        f"{calls_for(99)} for p99."
    ]


def _notes_of_texts(result: Result) -> list[str]:
    notes = []
    cut = sum(case.cut_documents for case in result.cases)
    if result.documents_made_up:
        total = result.documents_as_given + result.documents_made_up
        how = "so that none came twice" if not result.is_warm else "so that each case had its own"
        notes.append(
            f"{result.documents_made_up:,} of {total:,} documents were made of the texts' words, {how} and all had "
            "the length asked for."
            if result.has_lengths
            else f"{result.documents_made_up:,} of {total:,} documents have the texts' words in another order, {how}."
        )
    if cut:
        notes.append(f"{cut:,} documents were cut at their end to fit max_tokens={result.facts.max_tokens}.")
    return notes


def _left_out(result: Result) -> list[str]:
    return [
        f"{case.candidates:,} candidates{_of(case)} left out: {case.left_out}."
        for case in result.cases
        if case.left_out
    ]


def _of(case: Measured) -> str:
    return "" if case.document_tokens is None else f" of {case.document_tokens:,} tokens"
