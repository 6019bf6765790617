"""The results of a benchmark and the facts they depend on, as data, as JSON, and as notes in sentences."""

from dataclasses import asdict, dataclass
from typing import Any

from onelogit.benchmarking.latency import calls_for
from onelogit.benchmarking.machine import MemoryUse
from onelogit.benchmarking.runner import Case, CaseResult
from onelogit.benchmarking.targets import TargetFacts
from onelogit.errors import counted
from onelogit.options import DEMO_NOTE, is_demo
from onelogit.recipes.recipe import is_non_commercial

BUSY_LOAD = 0.25  # running programs per core in the minute before; beyond it, times are not reliable


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The results of a benchmark.

    Attributes:
        model: hub id or path; the url of a server whose model is not named.
        server: the url of a server; None for a local model.
        facts: about the first target.
        memory: of each local target, by name.
        load_s: seconds that loading the model took, before the first call; of each local target, by name.
        texts: the source of the texts.
        documents_as_given: number of documents used unchanged.
        documents_made_up: number of documents built from the texts' words, in other orders or to a given length.
        is_warm: whether each call of a case had the same documents.
        seconds: the budget.
        load_before: running programs per core in the minute before; None if the system does not report it.
        cases: in the order in which they were measured.
    """

    model: str
    server: str | None
    facts: TargetFacts
    memory: dict[str, MemoryUse]
    load_s: dict[str, float]
    texts: str
    documents_as_given: int
    documents_made_up: int
    is_warm: bool
    seconds: float
    load_before: float | None
    cases: tuple[CaseResult, ...]

    @property
    def names(self) -> list[str]:
        """Names of the targets."""
        return list(dict.fromkeys(each.name for case in self.cases for each in case.targets))

    @property
    def has_lengths(self) -> bool:
        """Whether documents were made to a given length."""
        return any(case.document_tokens for case in self.cases)

    def to_json(self) -> dict[str, Any]:
        """All fields and the `notes`, as data for JSON."""
        plain = asdict(self)
        plain["facts"]["memory"] = plain.pop("memory")
        plain["facts"]["load_s"] = plain.pop("load_s")
        plain["notes"] = notes_of(self)
        plain["cases"] = list(plain.pop("cases"))
        for case in plain["cases"]:
            case["contestants"] = list(case.pop("targets"))  # the format's name for targets
        return plain


def notes_of(result: Result) -> list[str]:
    """What to know before relying on the results, one sentence each."""
    return [*warnings_of(result), *remarks_of(result)]


def warnings_of(result: Result) -> list[str]:
    """Reasons not to use the results."""
    licence = result.facts.licence
    return [
        *([DEMO_NOTE] if is_demo(result.model) else []),
        *([f"The model is licensed {licence}: not for commercial use."] if is_non_commercial(licence) else []),
        *_notes_of_noise(result),
    ]


def remarks_of(result: Result) -> list[str]:
    """How the results came about."""
    left_out = [case for case in result.cases if case.left_out]
    return [
        *_notes_of_percentiles(result),
        *_notes_of_texts(result),
        *(f"{Case(each.candidates, each.document_tokens)} left out: {each.left_out}." for each in left_out),
    ]


def _notes_of_noise(result: Result) -> list[str]:
    notes = []
    if result.load_before is not None and result.load_before > BUSY_LOAD:
        notes.append(
            f"{result.load_before:.1f} programs per core were running before the benchmark, so times are not reliable."
        )
    noisy = [case for case in result.cases if any(each.is_noisy for each in case.targets)]
    if noisy:
        named = ", ".join(f"{candidates:,}" for candidates in sorted({case.candidates for case in noisy}))
        noun = "candidate" if named == "1" else "candidates"
        notes.append(
            f"The times of calls with {named} {noun} vary too much, because the machine was busy with something "
            "else; run the benchmark again."
        )
    if any(each.is_noisy is None for case in result.cases for each in case.targets):
        notes.append("A single call cannot show whether the machine was idle; give more --seconds.")
    return notes


def _notes_of_percentiles(result: Result) -> list[str]:
    fewest = min((each.calls for case in result.cases for each in case.targets), default=100)
    if fewest >= calls_for(99):
        return []
    return [
        f"A percentile needs enough calls: {calls_for(50)} for p50, {calls_for(95)} for p95, {calls_for(99)} for p99."
    ]


def _notes_of_texts(result: Result) -> list[str]:
    notes = []
    if result.documents_made_up:
        share = f"{result.documents_made_up:,} of {result.documents_as_given + result.documents_made_up:,} documents"
        purpose = "each case had its own" if result.is_warm else "none was used twice"
        notes.append(
            f"{share} were made from the texts' words, so that {purpose} and all had the given length."
            if result.has_lengths
            else f"{share} have the words of the texts in another order, so that {purpose}."
        )
    if cut := sum(case.cut_documents for case in result.cases):
        cut_documents = f"{counted(cut, 'document')} {'was' if cut == 1 else 'were'}"
        notes.append(f"{cut_documents} truncated to fit max_tokens={result.facts.max_tokens}.")
    return notes
