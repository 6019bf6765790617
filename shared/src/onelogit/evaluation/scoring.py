"""Contestants and queries -> logits, each contestant's in a file as they come; what is there is not scored again."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple, cast

from onelogit.errors import InputError, LogitError
from onelogit.evaluation.data.bad_lines import Faults
from onelogit.evaluation.data.dataset import DataSet, JudgedQuery
from onelogit.evaluation.run_file import Card, RunFile, Scored
from onelogit.evaluation.systems import Identity, System, without_secret
from onelogit.io.progress import tracked, waiting
from onelogit.registry import AnyReranker, open_reranker


class SystemRun(NamedTuple):
    """All that one contestant gave.

    Attributes:
        system: who.
        card: what is known of its model.
        scored: by the query's id.
    """

    system: System
    card: Card
    scored: Mapping[str, Scored]


def score(
    systems: Sequence[System], identities: Sequence[Identity], data: DataSet, folder: Path, faults: Faults
) -> list[SystemRun]:
    """The logits of all contestants for all candidates.

    A query is scored by itself, so that its logits are the same wherever a run was broken off.

    Args:
        systems: those with the same options object share a reranker, one after the other.
        identities: theirs.
        data: with candidates.
        folder: where the runs are written, and those that are there are gone on with.
        faults: takes queries that a model cannot score.

    Raises:
        InputError: a file holds another run, or cannot be written.
        OnelogitError: as `open_reranker` and `Reranker.logits`.
    """
    queries = {query.id: query for query in data.queries}
    with ExitStack() as stack:
        # All of them first: a run that does not fit is found before anything is scored.
        files = [
            stack.enter_context(RunFile(path, identity, queries))
            for identity, path in zip(identities, paths(folder, len(systems)), strict=True)
        ]
        rerankers = _Rerankers()
        stack.callback(rerankers.close)
        return [_run(one, data, file, rerankers, faults) for one, file in zip(systems, files, strict=True)]


def paths(folder: Path, count: int) -> list[Path]:
    """Where the runs of so many contestants are."""
    return [folder / f"run-{number:02}.jsonl" for number in range(1, count + 1)]


class _Rerankers:
    """One reranker at a time."""

    def __init__(self) -> None:
        self._system: System | None = None
        self._reranker: AnyReranker | None = None

    def open(self, one: System) -> AnyReranker:
        """The contestant's; the one before it is closed where it was another's."""
        if self._system is None or self._system.options is not one.options or self._reranker is None:
            self.close()
            with waiting(f"loading {without_secret(one.model)}"):
                self._reranker = open_reranker(one.model, **one.options)
            self._system = one
        return self._reranker

    def close(self) -> None:
        """Let go of it."""
        if self._reranker is not None:
            self._reranker.close()
        self._reranker = None


def _run(one: System, data: DataSet, file: RunFile, rerankers: _Rerankers, faults: Faults) -> SystemRun:
    for query_id, scored in file.scored.items():
        _report(one, query_id, scored, faults)
    missing = file.missing
    if missing or file.card is None:
        reranker = rerankers.open(one)
        file.begin(_card(reranker))
        for query in tracked(missing, one.name):
            scored = _scored(one, query, data.documents, reranker)
            _report(one, query.id, scored, faults)
            file.add(query, scored)
    return SystemRun(one, cast("Card", file.card), file.scored)


def _report(one: System, query_id: str, scored: Scored, faults: Faults) -> None:
    if scored.fault is not None:
        faults.add("queries that a model could not score", f"{one.name}, query {query_id!r}", scored.fault)


def _scored(one: System, query: JudgedQuery, documents: Mapping[str, str], reranker: AnyReranker) -> Scored:
    texts = [documents[id] for id in query.found or ()]
    try:
        logits, truncated_count = reranker.logits_and_truncation(query.text, texts, one.instruction_for(query))
    except (InputError, LogitError) as error:
        return Scored(None, fault=str(error))
    return Scored(logits, truncated_count)


def _card(reranker: AnyReranker) -> Card:
    recipe = reranker.recipe
    return Card(
        family=None if recipe is None else recipe.family,
        licence=reranker.licence,
        instruction=None if recipe is None else recipe.default_instruction,
        source=None if recipe is None else recipe.source,
        max_tokens=getattr(reranker, "max_tokens", None),
        device=getattr(reranker, "device", None),
    )
