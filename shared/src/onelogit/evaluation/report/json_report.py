"""Evaluation -> what JSON files say of it, in sum and for each query."""

import json
from collections.abc import Iterator
from typing import Any

from onelogit.evaluation.bootstrap import Mean
from onelogit.evaluation.evaluation import Evaluation, SystemResult
from onelogit.evaluation.pairwise import Move
from onelogit.evaluation.report.notes import remarks, warnings
from onelogit.evaluation.systems import without_secret


def plain_evaluation(evaluation: Evaluation) -> dict[str, Any]:
    """All but the single queries, as dicts, lists, strings and numbers."""
    return {
        "data": evaluation.data.name,
        "data_digest": evaluation.data.digest(),
        "first_stage": evaluation.data.first_stage,
        "queries": len(evaluation.queries),
        "queries_without_candidates": evaluation.without_candidates,
        "candidates_recall": evaluation.candidates_recall,
        "left_out": dict(evaluation.data.left_out),
        "skipped": {kind: skipped._asdict() for kind, skipped in evaluation.skipped.items()},
        "notes": [*warnings(evaluation), *remarks(evaluation)],
        "seed": evaluation.seed,
        "measures": [measure.name for measure in evaluation.measures],
        "entries": [_plain_entry(entry) for entry in evaluation.entries],
        "slices": [
            {"name": part.name, "queries": len(part.places), "entries": [_plain_means(entry) for entry in part.entries]}
            for part in evaluation.slices
        ],
        "pairings": [
            {**pairing._asdict(), **{name: _plain(getattr(pairing, name)) for name in Move._fields}}
            for pairing in evaluation.pairings
        ],
    }


def lines_of_queries(evaluation: Evaluation) -> Iterator[str]:
    """A line of JSON for each query: its id, its group, and each measure of each entry."""
    group_of = {place: part.name for part in evaluation.slices for place in part.places}
    for place, query in enumerate(evaluation.queries):
        measured = {
            entry.name: {name: values[place] for name, values in entry.figures.items()} for entry in evaluation.entries
        }
        plain = {"query": query.id, "text": query.text, "slice": group_of.get(place), "measured": measured}
        yield json.dumps(plain, ensure_ascii=False)


def _plain_entry(entry: SystemResult) -> dict[str, Any]:
    plain = _plain_means(entry)
    if entry.run is None:
        return plain
    one, card = entry.run.system, entry.run.card
    return {
        **plain,
        "model": without_secret(one.model),
        "server": None if one.server is None else without_secret(one.server),
        "instruction": one.instruction,
        "template": None if one.template is None else str(one.template),
        "licence": card.licence,
        "recipe": card.family,
        "documents_cut": entry.cut_count,
    }


def _plain_means(entry: SystemResult) -> dict[str, Any]:
    return {
        "name": entry.name,
        "means": {name: _plain(mean) for name, mean in entry.means.items()},
        "differences_from_first_stage": {name: _plain(mean) for name, mean in entry.differences.items()},
    }


def _plain(mean: Mean | None) -> dict[str, Any] | None:
    if mean is None:
        return None
    return {"mean": mean.value, "interval_95": None if mean.interval is None else list(mean.interval)}
