"""Rankings -> nDCG@k, MRR@k, MAP and recall@k of each query, as ir_measures computes them."""

import random
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from onelogit.errors import InputError, optional_import
from onelogit.evaluation.data.dataset import LabelledQuery
from onelogit.validation import checked_count

_QUERIES_AT_ONCE = 1000

Ranking = Sequence[str]
MetricValues = dict[str, list[float]]


class Metric(NamedTuple):
    """A metric with its name in tables, such as nDCG@10, and in ir_measures (`kind`).

    Only the best `cutoff` documents count; all candidates if it is None.
    """

    name: str
    kind: str
    cutoff: int | None


def metrics_at(cutoffs: Sequence[int]) -> list[Metric]:
    """nDCG, MRR and recall at each cutoff, then MAP; the first of them is the main metric.

    Raises:
        InputError: there is no cutoff, a cutoff is not a whole number from 1 up, or a cutoff occurs twice.
    """
    for cutoff in cutoffs:
        checked_count("-k", cutoff)
    if not cutoffs or len(set(cutoffs)) < len(cutoffs):
        raise InputError(f"-k must be one or more different integers, not {', '.join(map(str, cutoffs))}")
    kinds = {"nDCG": "nDCG", "MRR": "RR", "recall": "R"}
    at_cutoffs = [Metric(f"{name}@{cutoff}", kind, cutoff) for cutoff in cutoffs for name, kind in kinds.items()]
    return [*at_cutoffs, Metric("MAP", "AP", None)]


def compute_metrics(
    queries: Sequence[LabelledQuery], rankings: Sequence[Ranking], metrics: Sequence[Metric]
) -> MetricValues:
    """For each metric, by name, its value for each query, 0 to 1, in the order of the queries.

    Args:
        queries: with labels.
        rankings: for each query, ids of documents, best first; a relevant document that is missing was not found.
        metrics: see `metrics_at`.

    Raises:
        InputError: ir_measures is not installed.
    """
    with optional_import("ir_measures"):
        import ir_measures  # noqa: PLC0415
    values: MetricValues = {metric.name: [0.0] * len(queries) for metric in metrics}
    for start in range(0, len(queries), _QUERIES_AT_ONCE):
        part = range(start, min(start + _QUERIES_AT_ONCE, len(queries)))
        # A larger cutoff changes no value, but some of ir_measures' providers allocate memory for it.
        largest = max(1, *(max(len(rankings[number]), len(queries[number].labels)) for number in part))
        names: dict[Any, list[str]] = {}
        for metric in metrics:
            kind = getattr(ir_measures, metric.kind)
            key = kind if metric.cutoff is None else kind @ min(metric.cutoff, largest)
            names.setdefault(key, []).append(metric.name)
        labels = {str(number): dict(queries[number].labels) for number in part}
        # Ranks serve as scores, because the library would sort documents with equal scores in its own way.
        run = {str(number): {id: float(-rank) for rank, id in enumerate(rankings[number])} for number in part}
        for found in ir_measures.iter_calc([*names], labels, run):
            for name in names[found.measure]:
                values[name][int(found.query_id)] = float(found.value)
    return values


def sort_by_logit(query: LabelledQuery, logits: Sequence[float]) -> list[str]:
    """The candidates, highest logit first; candidates with equal logits stay in the first stage's order."""
    candidates = query.candidates or ()
    return [candidates[index] for index in sorted(range(len(candidates)), key=lambda index: -logits[index])]


def shuffled(queries: Sequence[LabelledQuery], seed: int, number: int) -> Iterator[list[str]]:
    """The candidates of each query in a random order, which depends on the seed, the number and the query id."""
    for query in queries:
        order = [*(query.candidates or ())]
        random.Random(f"{seed} {number} {query.id}").shuffle(order)  # noqa: S311  not used for security
        yield order
