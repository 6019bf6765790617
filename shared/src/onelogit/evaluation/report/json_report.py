"""Evaluation -> JSON: one object with all results, and one line for each query."""

import json
from collections.abc import Iterator
from typing import Any

from onelogit.evaluation.bootstrap import MeanEstimate
from onelogit.evaluation.evaluation import Evaluation, SystemResult
from onelogit.evaluation.pairwise import RankingChange
from onelogit.evaluation.report.notes import has_few_queries, remarks, warnings
from onelogit.evaluation.systems import redact_credentials


def evaluation_json(evaluation: Evaluation) -> dict[str, Any]:
    """All results except the values of each query, as data for JSON."""
    return {
        "data": evaluation.dataset.name,
        "data_digest": evaluation.dataset.digest(),
        "first_stage": evaluation.dataset.first_stage,
        "queries": len(evaluation.queries),
        "queries_without_candidates": evaluation.without_candidates,
        "candidates_recall": evaluation.candidates_recall,
        "left_out": dict(evaluation.dataset.excluded),
        "skipped": {kind: skipped._asdict() for kind, skipped in evaluation.skipped.items()},
        "notes": [*warnings(evaluation), *remarks(evaluation)],
        "candidates_per_query": dict(zip(("least", "greatest"), evaluation.candidate_counts, strict=True)),
        "seed": evaluation.seed,
        "measures": [metric.name for metric in evaluation.metrics],
        "entries": [*map(_result_json, evaluation.results)],
        "system_differences": [
            {
                "system": each.system,
                "less": each.other,
                "differences": {name: _estimate_json(mean) for name, mean in each.means.items()},
            }
            for each in evaluation.system_differences
        ],
        "slices": [
            {
                "name": group.name,
                "queries": len(group.indices),
                "has_few_queries": has_few_queries(group),
                "entries": [*map(_means_json, group.results)],
            }
            for group in evaluation.groups
        ],
        "pairings": [
            {**each._asdict(), **{name: _estimate_json(getattr(each, name)) for name in RankingChange._fields}}
            for each in evaluation.comparisons
        ],
    }


def query_lines(evaluation: Evaluation) -> Iterator[str]:
    """One line of JSON for each query: its id, text, group, and the value of each metric for each result."""
    group_of = {index: group.name for group in evaluation.groups for index in group.indices}
    for index, query in enumerate(evaluation.queries):
        measured = {
            result.name: {name: values[index] for name, values in result.values.items()}
            for result in evaluation.results
        }
        fields = {"query": query.id, "text": query.text, "slice": group_of.get(index), "measured": measured}
        yield json.dumps(fields, ensure_ascii=False)


def _result_json(result: SystemResult) -> dict[str, Any]:
    fields = _means_json(result)
    if result.run is None:
        return fields
    system, info = result.run.system, result.run.model_info
    return {
        **fields,
        "model": redact_credentials(system.spec.name),
        "server": None if system.spec.url is None else redact_credentials(system.spec.url),
        "instruction": system.instruction,
        "template": None if system.template is None else str(system.template),
        "licence": info.licence,
        "recipe": info.family,
        "documents_cut": result.truncated_count,
        "device": info.device,
        "dtype": info.dtype,
        "seconds": result.seconds,
    }


def _means_json(result: SystemResult) -> dict[str, Any]:
    return {
        "name": result.name,
        "means": {name: _estimate_json(mean) for name, mean in result.means.items()},
        "differences_from_first_stage": {name: _estimate_json(mean) for name, mean in result.differences.items()},
    }


def _estimate_json(mean: MeanEstimate | None) -> dict[str, Any] | None:
    if mean is None:
        return None
    return {"mean": mean.value, "interval_95": None if mean.interval is None else list(mean.interval)}
