"""Orders of documents -> what ir_measures says of each query's: nDCG@k, MRR@k, MAP, recall@k."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from onelogit.errors import InputError, optional_import
from onelogit.evaluation.data.dataset import JudgedQuery
from onelogit.validation import checked_count

_QUERIES_AT_ONCE = 1000

Order = Sequence[str]
MetricValues = dict[str, list[float]]


class Measure(NamedTuple):
    """A measure, by the name that tables give it.

    Attributes:
        name: such as nDCG@10.
        kind: as ir_measures calls it.
        cutoff: how many of the best documents count; None for all candidates.
    """

    name: str
    kind: str
    cutoff: int | None


def measures(cutoffs: Sequence[int]) -> list[Measure]:
    """The measures at these cutoffs; the first of them is what comparisons are made by.

    Raises:
        InputError: a cutoff is no count, or stands twice.
    """
    for cutoff in cutoffs:
        checked_count("-k", cutoff)
    if not cutoffs or len(set(cutoffs)) < len(cutoffs):
        raise InputError(f"-k must be one or more different whole numbers, not {', '.join(map(str, cutoffs))}")
    kinds = {"nDCG": "nDCG", "MRR": "RR", "recall": "R"}
    at = [Measure(f"{name}@{cutoff}", kind, cutoff) for cutoff in cutoffs for name, kind in kinds.items()]
    return [*at, Measure("MAP", "AP", None)]


def figures(queries: Sequence[JudgedQuery], orders: Sequence[Order], wanted: Sequence[Measure]) -> MetricValues:
    """The value of each measure for each query, 0 to 1, in the order of the queries.

    Args:
        queries: that are judged.
        orders: of each query the ids of documents, best first; a relevant one that is missing counts as not found.
        wanted: the measures.

    Raises:
        InputError: ir_measures is not installed.
    """
    with optional_import("ir_measures"):
        import ir_measures  # noqa: PLC0415
    found: MetricValues = {measure.name: [0.0] * len(queries) for measure in wanted}
    for start in range(0, len(queries), _QUERIES_AT_ONCE):
        part = range(start, min(start + _QUERIES_AT_ONCE, len(queries)))
        # A cutoff beyond all that could count changes nothing, but some of ir_measures' providers reserve room for it.
        deepest = max(1, *(max(len(orders[place]), len(queries[place].labels)) for place in part))
        names: dict[Any, list[str]] = {}
        for measure in wanted:
            names.setdefault(_of_library(ir_measures, measure, deepest), []).append(measure.name)
        labels = {str(place): dict(queries[place].labels) for place in part}
        run = {str(place): _descending(orders[place]) for place in part}
        for metric in ir_measures.iter_calc([*names], labels, run):
            for name in names[metric.measure]:
                found[name][int(metric.query_id)] = float(metric.value)
    return found


def _of_library(ir_measures: Any, measure: Measure, deepest: int) -> Any:
    kind = getattr(ir_measures, measure.kind)
    return kind if measure.cutoff is None else kind @ min(measure.cutoff, deepest)


def _descending(order: Order) -> dict[str, float]:
    """A score for each document that says its place and nothing else: equal ones would be in the library's order."""
    return {id: float(-place) for place, id in enumerate(order)}


def mean_of(values: Sequence[float]) -> float:
    """The arithmetic mean."""
    return sum(values) / len(values)


def by_logit(query: JudgedQuery, logits: Sequence[float]) -> list[str]:
    """The candidates, those with the highest logit first; equal ones in the first stage's order."""
    found = query.found or ()
    return [found[place] for place in sorted(range(len(found)), key=lambda place: -logits[place])]


def shuffled(queries: Sequence[JudgedQuery], seed: int, number: int) -> Iterator[list[str]]:
    """The candidates of each query in a random order, the same for the same seed, number and id."""
    import random  # noqa: PLC0415

    for query in queries:
        order = [*(query.found or ())]
        random.Random(f"{seed} {number} {query.id}").shuffle(order)  # noqa: S311  no secret
        yield order
