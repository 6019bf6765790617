"""Runs on labelled queries -> Evaluation: metrics of each ranking with intervals and differences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

from onelogit.errors import InputError
from onelogit.evaluation.bootstrap import MeanEstimate, estimate_means
from onelogit.evaluation.data.dataset import Dataset, LabelledQuery
from onelogit.evaluation.metrics import Metric, MetricValues, Ranking, compute_metrics, shuffled
from onelogit.evaluation.pairwise import PairwiseComparison, compare_pairs
from onelogit.evaluation.scoring import SystemRun
from onelogit.evaluation.systems import FIRST_STAGE, RANDOM_ORDER
from onelogit.io.bad_lines import SkippedItems

RANDOM_ORDERS = 5
_ALL_CANDIDATES = Metric("candidates", "R", 2**31)
_LENGTH = "length"
_MAX_GROUPS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemResult:
    """The metrics of one ranking of the candidates.

    Attributes:
        name: the system's name, `FIRST_STAGE` or `RANDOM_ORDER`.
        values: for each metric, its value for each query.
        means: the mean of each metric.
        differences: the mean difference of each metric from the first stage.
        run: the system's run; None for the first stage and random order.
    """

    name: str
    values: MetricValues
    means: Mapping[str, MeanEstimate]
    differences: Mapping[str, MeanEstimate]
    run: SystemRun | None = None

    @property
    def seconds(self) -> float | None:
        """How long scoring took; None if that is not known for each query."""
        known = [] if self.run is None else [query.seconds for query in self.run.scored.values()]
        return None if not known or None in known else sum(each for each in known if each is not None)

    @property
    def truncated_count(self) -> int:
        """The number of documents that were truncated to fit."""
        return 0 if self.run is None else sum(query.truncated_count for query in self.run.scored.values())


class SystemDifference(NamedTuple):
    """The mean difference of each metric between two systems: that of `system` less that of `other`."""

    system: str
    other: str
    means: Mapping[str, MeanEstimate]

    @property
    def name(self) -> str:
        """What is subtracted from what."""
        return f"{self.system} less {self.other}"


class Group(NamedTuple):
    """Queries that share the value `name`, by their positions among all queries, and `results` for them alone."""

    name: str
    indices: Sequence[int]
    results: Sequence[SystemResult]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """All results of an evaluation.

    Attributes:
        dataset: all data, including queries that a system could not score.
        queries: the queries that every system scored; all results are for these.
        metrics: the first is the main metric.
        results: the first stage, random order, and the systems, in this order.
        system_differences: between any two systems, in their order.
        candidates_recall: the share of relevant documents among the candidates, an upper bound of recall.
        groups: empty if the queries are not split.
        group_column: the field that the queries are split by.
        comparisons: pairwise comparisons of systems with the same model.
        seed: for random order and the bootstrap.
        skipped: lines and queries that were skipped, by kind.
    """

    dataset: Dataset
    queries: Sequence[LabelledQuery]
    metrics: Sequence[Metric]
    results: Sequence[SystemResult]
    system_differences: Sequence[SystemDifference]
    candidates_recall: float
    groups: Sequence[Group]
    group_column: str | None
    comparisons: Sequence[PairwiseComparison]
    seed: int
    skipped: Mapping[str, SkippedItems]

    @property
    def main_metric(self) -> str:
        """The name of the main metric, which plots and examples show."""
        return self.metrics[0].name

    @property
    def metrics_by_cutoff(self) -> Sequence[Sequence[Metric]]:
        """A list of metrics for each cutoff; metrics without a cutoff are in the first list."""
        cutoffs = [*dict.fromkeys(metric.cutoff for metric in self.metrics if metric.cutoff is not None)]
        return [
            [metric for metric in self.metrics if (cutoffs[0] if metric.cutoff is None else metric.cutoff) == cutoff]
            for cutoff in cutoffs
        ]

    @property
    def system_results(self) -> Sequence[SystemResult]:
        """The results without the first stage and random order."""
        return self.results[2:]

    @property
    def candidate_counts(self) -> tuple[int, int]:
        """The smallest and the largest number of candidates of a query."""
        counts = [len(query.candidates or ()) for query in self.queries]
        return min(counts), max(counts)

    @property
    def without_candidates(self) -> int:
        """The number of queries for which the first stage found nothing; they count as 0."""
        return sum(not query.candidates for query in self.queries)


def evaluate(
    dataset: Dataset,
    runs: Sequence[SystemRun],
    metrics: Sequence[Metric],
    *,
    seed: int,
    group_column: str | None,
    is_pairwise: bool,
    skipped: Mapping[str, SkippedItems],
) -> Evaluation:
    """The metrics of the first stage, random order and all runs, for a dataset with candidates.

    With `is_pairwise`, systems with the same model are compared to each other. Other arguments: see `Evaluation`.

    Raises:
        InputError: no query was scored by all systems, there are no systems to compare, or the queries cannot be split.
    """
    queries = [query for query in dataset.queries if all(run.scored[query.id].logits is not None for run in runs)]
    if not queries:
        raise InputError("no query could be scored by every model")
    first_stage = [query.candidates or () for query in queries]
    rankings: list[Sequence[Ranking]] = [first_stage, *([run.ranking(query) for query in queries] for run in runs)]
    values = [compute_metrics(queries, each, metrics) for each in rankings]
    values.insert(1, _random_order_values(queries, metrics, seed))
    recall = compute_metrics(queries, first_stage, [_ALL_CANDIDATES])["candidates"]
    groups = {} if group_column is None else group_queries(queries, dataset.documents, group_column)
    results = _results(values, runs, seed)
    return Evaluation(
        dataset=dataset,
        queries=queries,
        metrics=metrics,
        results=results,
        system_differences=_system_differences(results[2:], seed),
        candidates_recall=sum(recall) / len(recall),
        groups=[
            Group(name, indices, _results([_at(each, indices) for each in values], runs, seed))
            for name, indices in groups.items()
        ],
        group_column=group_column,
        comparisons=compare_pairs(queries, runs, seed) if is_pairwise else (),
        seed=seed,
        skipped=skipped,
    )


def _random_order_values(queries: Sequence[LabelledQuery], metrics: Sequence[Metric], seed: int) -> MetricValues:
    """For each query, the mean over several random orders of its candidates."""
    orders = [compute_metrics(queries, [*shuffled(queries, seed, n)], metrics) for n in range(RANDOM_ORDERS)]
    return {
        name: [sum(values) / RANDOM_ORDERS for values in zip(*(each[name] for each in orders), strict=True)]
        for name in orders[0]
    }


def _at(values: MetricValues, indices: Sequence[int]) -> MetricValues:
    return {name: [column[index] for index in indices] for name, column in values.items()}


def _results(values: Sequence[MetricValues], runs: Sequence[SystemRun], seed: int) -> list[SystemResult]:
    """The results of the first stage, random order and the runs. All intervals come from the same resamples."""
    names = [FIRST_STAGE, RANDOM_ORDER, *(run.system.name for run in runs)]
    first = values[0]
    differences = [
        [after - before for after, before in zip(column, first[name], strict=True)]
        for each in values
        for name, column in each.items()
    ]
    estimates = iter(estimate_means([*(column for each in values for column in each.values()), *differences], seed))
    mean_rows, difference_rows = ([{name: next(estimates) for name in first} for _ in values] for _ in range(2))
    return [
        SystemResult(name=name, values=each, means=means, differences=difference, run=run)
        for name, each, means, difference, run in zip(
            names, values, mean_rows, difference_rows, [None, None, *runs], strict=True
        )
    ]


def _system_differences(results: Sequence[SystemResult], seed: int) -> list[SystemDifference]:
    """The differences between any two systems, whose intervals come from the resamples of `_results`."""
    pairs = [*combinations(results, 2)]
    columns = [
        [mine - other for mine, other in zip(one.values[name], two.values[name], strict=True)]
        for one, two in pairs
        for name in one.values
    ]
    estimates = iter(estimate_means(columns, seed))
    return [SystemDifference(one.name, two.name, {name: next(estimates) for name in one.values}) for one, two in pairs]


def group_queries(queries: Sequence[LabelledQuery], documents: Mapping[str, str], column: str) -> dict[str, list[int]]:
    """The indices of the queries in each group, by the value of a column.

    Args:
        queries: at least one.
        documents: text by id.
        column: a field of the queries. If no query has a field "length", the column "length" gives three groups of
            equal size by the length of the longest relevant document, in characters.

    Raises:
        InputError: no query has the field, or it has more than 50 values.
    """
    groups: dict[str, list[int]] = {}
    if any(column in query.fields for query in queries):
        for index, query in enumerate(queries):
            groups.setdefault(query.fields.get(column, "(not given)"), []).append(index)
    elif column == _LENGTH:
        return _group_by_length(queries, documents)
    else:
        known = sorted({name for query in queries for name in query.fields})
        raise InputError(f"no query has the field {column!r}; the fields are {', '.join([*known, _LENGTH])}")
    if len(groups) > _MAX_GROUPS:
        raise InputError(f"{column!r} splits the queries into {len(groups)} groups, more than {_MAX_GROUPS}")
    return dict(sorted(groups.items()))


def _group_by_length(queries: Sequence[LabelledQuery], documents: Mapping[str, str]) -> dict[str, list[int]]:
    lengths = [max(len(documents[id]) for id in query.relevant) for query in queries]
    order = sorted(range(len(queries)), key=lambda index: lengths[index])
    groups = {}
    for number, name in enumerate(("short", "middle", "long")):
        part = order[len(order) * number // 3 : len(order) * (number + 1) // 3]
        if part:
            groups[f"{name} ({lengths[part[0]]:,} to {lengths[part[-1]]:,} characters)"] = sorted(part)
    return groups
