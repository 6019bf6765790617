"""Systems and queries -> logits, written to one run file per system. Queries in a run file are not scored again."""

import time
from array import array
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import NamedTuple, cast

from onelogit.errors import InputError, LogitError
from onelogit.evaluation.data.dataset import Dataset, LabelledQuery
from onelogit.evaluation.metrics import Ranking, sort_by_logit
from onelogit.evaluation.run_file import ModelInfo, RunFile, ScoredQuery
from onelogit.evaluation.systems import Identity, System, redact_credentials
from onelogit.io.bad_lines import BadLines
from onelogit.io.progress import progress_bar, waiting
from onelogit.registry import AnyReranker, open_spec


class SystemRun(NamedTuple):
    """The logits of one system: its scored queries by id, with facts about its model."""

    system: System
    model_info: ModelInfo
    scored: Mapping[str, ScoredQuery]

    def logits(self, query: LabelledQuery) -> Sequence[float]:
        """The logits of the candidates of a query, which must have been scored."""
        return cast("Sequence[float]", self.scored[query.id].logits)

    def ranking(self, query: LabelledQuery) -> Ranking:
        """The candidates of a query, which must have been scored, highest logit first."""
        return sort_by_logit(query, self.logits(query))


def score_systems(
    systems: Sequence[System], files: Sequence[tuple[Path, Identity]], dataset: Dataset, bad_lines: BadLines
) -> list[SystemRun]:
    """The logits of all systems for all candidates.

    Each query is scored on its own, so that a resumed run gives the same logits as an uninterrupted one.

    Args:
        systems: neighbours with equal specs share a reranker; one reranker is loaded at a time.
        files: the path of each system's run file, and the system's identity; existing files are continued.
        dataset: with candidates.
        bad_lines: collects queries that a system cannot score.

    Raises:
        InputError: a file belongs to another run, or cannot be written.
        OnelogitError: as `open_reranker` and `Reranker.logits`.
    """
    queries = {query.id: query for query in dataset.queries}
    runs: list[SystemRun] = []
    with ExitStack() as stack:
        # Open all files first, to find files that belong to other runs before anything is scored.
        run_files = [stack.enter_context(closing(RunFile(path, identity, queries))) for path, identity in files]
        for _, group in groupby(zip(systems, run_files, strict=True), key=lambda each: each[0].spec):
            runs += _score_with_one_reranker([*group], dataset, bad_lines)
    return runs


def _score_with_one_reranker(
    members: Sequence[tuple[System, RunFile]], dataset: Dataset, bad_lines: BadLines
) -> list[SystemRun]:
    with ExitStack() as stack:

        @cache
        def load() -> AnyReranker:
            spec = members[0][0].spec
            with waiting(f"loading {redact_credentials(spec.name)}"):
                reranker = open_spec(spec)
            stack.callback(reranker.close)
            return reranker

        for system, file in members:
            for query_id, scored in file.scored.items():
                _report_error(system, query_id, scored, bad_lines)
            if file.model_info is None:
                file.model_info = _model_info(load())
            unscored = file.unscored
            with progress_bar(system.name, len(dataset.queries), len(dataset.queries) - len(unscored)) as advance:
                for query in unscored:
                    scored = _score_query(system, query, dataset.documents, load())
                    _report_error(system, query.id, scored, bad_lines)
                    file.add(query, scored)
                    advance(1)
        return [SystemRun(system, cast("ModelInfo", file.model_info), file.scored) for system, file in members]


def _report_error(system: System, query_id: str, scored: ScoredQuery, bad_lines: BadLines) -> None:
    if scored.error is not None:
        bad_lines.add("queries that a model could not score", f"{system.name}, query {query_id!r}", scored.error)


def _score_query(
    system: System, query: LabelledQuery, documents: Mapping[str, str], reranker: AnyReranker
) -> ScoredQuery:
    texts = [documents[id] for id in query.candidates or ()]
    start = time.perf_counter()
    try:
        logits, truncated_count = reranker.logits_and_truncation(query.text, texts, system.instruction_for(query))
    except (InputError, LogitError) as error:
        return ScoredQuery(None, error=str(error), seconds=_seconds_since(start))
    return ScoredQuery(array("d", logits), truncated_count, seconds=_seconds_since(start))


def _seconds_since(start: float) -> float:
    return round(time.perf_counter() - start, 4)  # as in the file, so that a resumed run reports the same time


def _model_info(reranker: AnyReranker) -> ModelInfo:
    limits = {name: getattr(reranker, name, None) for name in ("max_tokens", "device")}
    classifier = getattr(reranker, "classifier", None)  # a remote reranker has none
    dtype = None if classifier is None else str(classifier.dtype).removeprefix("torch.")
    info, recipe = ModelInfo(licence=reranker.licence, dtype=dtype, **limits), reranker.recipe
    if recipe is None:
        return info
    return replace(info, family=recipe.family, instruction=recipe.default_instruction, source=recipe.source)
