"""Runs on judged data -> Evaluation: figures of each order, with intervals and differences, whole and in slices."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from onelogit.errors import InputError
from onelogit.evaluation.bootstrap import Mean, means_of
from onelogit.evaluation.data.bad_lines import Skipped
from onelogit.evaluation.data.dataset import DataSet, JudgedQuery
from onelogit.evaluation.metrics import Measure, MetricValues, Order, by_logit, figures, mean_of, shuffled
from onelogit.evaluation.pairwise import Pairing, logits_of, pair
from onelogit.evaluation.scoring import SystemRun
from onelogit.evaluation.systems import FIRST, RANDOM

RANDOM_ORDERS = 5
_ALL_CANDIDATES = Measure("candidates", "R", 2**31)
LENGTH = "length"
_MOST_GROUPS = 50
_THIRDS = ("short", "middle", "long")
_NOT_GIVEN = "(not given)"

Groups = dict[str, list[int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemResult:
    """One order of the candidates among those that are compared.

    Attributes:
        name: of the contestant; or `FIRST` or `RANDOM`.
        figures: of each measure, for each query.
        means: of each measure.
        differences: of each measure's mean from the first stage's.
        run: the contestant's; None for the two that are no contestants.
    """

    name: str
    figures: MetricValues
    means: Mapping[str, Mean]
    differences: Mapping[str, Mean]
    run: SystemRun | None = None

    @property
    def cut_count(self) -> int:
        """How many documents were cut to fit."""
        return 0 if self.run is None else sum(scored.cut_count for scored in self.run.scored.values())


class Group(NamedTuple):
    """A group of queries.

    Attributes:
        name: what they have in common.
        places: theirs among all queries.
        entries: as those of all queries.
    """

    name: str
    places: Sequence[int]
    entries: Sequence[SystemResult]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What was found.

    Attributes:
        data: what it was measured on, with all its queries.
        queries: those that every contestant scored; the figures are theirs.
        measures: the first of them is what the others are compared by.
        entries: the first stage, random order, and the contestants in their order.
        candidates_recall: the share of relevant documents that are among the candidates: no order can do better.
        slices: groups of queries; empty where nothing is split.
        slice_column: what they are split by.
        pairings: of contestants of one model.
        seed: of random order and bootstrap.
        skipped: lines and queries that were passed over, by their kind.
    """

    data: DataSet
    queries: Sequence[JudgedQuery]
    measures: Sequence[Measure]
    entries: Sequence[SystemResult]
    candidates_recall: float
    slices: Sequence[Group] = ()
    slice_column: str | None = None
    pairings: Sequence[Pairing] = ()
    seed: int = 0
    skipped: Mapping[str, Skipped] = field(default_factory=dict)

    @property
    def main(self) -> str:
        """The name of the measure by which others are compared."""
        return self.measures[0].name

    @property
    def by_cutoff(self) -> Sequence[Sequence[Measure]]:
        """The measures, those of one cutoff together, those of none with the first ones."""
        cutoffs = dict.fromkeys(measure.cutoff for measure in self.measures if measure.cutoff is not None)
        first = next(iter(cutoffs))
        return [
            [measure for measure in self.measures if (first if measure.cutoff is None else measure.cutoff) == cutoff]
            for cutoff in cutoffs
        ]

    @property
    def systems(self) -> Sequence[SystemResult]:
        """The entries that a model made."""
        return self.entries[2:]

    @property
    def without_candidates(self) -> int:
        """Queries for which the first stage found nothing; they count as 0."""
        return sum(not query.found for query in self.queries)


def evaluate(
    data: DataSet,
    runs: Sequence[SystemRun],
    wanted: Sequence[Measure],
    *,
    seed: int = 0,
    slice_column: str | None = None,
    is_pairwise: bool = False,
    skipped: Mapping[str, Skipped] | None = None,
) -> Evaluation:
    """The figures of all orders.

    Args:
        data: with candidates.
        runs: of the contestants.
        wanted: the measures.
        seed: of random order and bootstrap.
        slice_column: see `groups`.
        is_pairwise: whether orders of one model are compared with one another.
        skipped: what was passed over so far.

    Raises:
        InputError: no query was scored by all, or there is nothing to pair or split.
    """
    queries = _scored_by_all(data, runs)
    all_figures = _figures_of_all(queries, runs, wanted, seed)
    places_of = {} if slice_column is None else groups(queries, data.documents, slice_column)
    return Evaluation(
        data=data,
        queries=queries,
        measures=wanted,
        entries=_entries(all_figures, runs, seed),
        candidates_recall=mean_of(figures(queries, _found(queries), [_ALL_CANDIDATES])["candidates"]),
        slices=_slices(all_figures, runs, seed, places_of),
        slice_column=slice_column,
        pairings=pair(queries, runs, seed) if is_pairwise else (),
        seed=seed,
        skipped={} if skipped is None else dict(skipped),
    )


def _scored_by_all(data: DataSet, runs: Sequence[SystemRun]) -> list[JudgedQuery]:
    queries = [query for query in data.queries if all(run.scored[query.id].logits is not None for run in runs)]
    if not queries:
        raise InputError("there is no query that every model could score")
    return queries


def _figures_of_all(
    queries: Sequence[JudgedQuery], runs: Sequence[SystemRun], wanted: Sequence[Measure], seed: int
) -> list[MetricValues]:
    """Of the first stage's order, of random order, and of each run's."""
    random = _mean_figures([figures(queries, [*shuffled(queries, seed, n)], wanted) for n in range(RANDOM_ORDERS)])
    of_runs = [figures(queries, _orders(queries, run), wanted) for run in runs]
    return [figures(queries, _found(queries), wanted), random, *of_runs]


def _found(queries: Sequence[JudgedQuery]) -> list[Order]:
    return [query.found or () for query in queries]


def _orders(queries: Sequence[JudgedQuery], run: SystemRun) -> list[Order]:
    return [by_logit(query, logits_of(run, query)) for query in queries]


def _mean_figures(several: Sequence[MetricValues]) -> MetricValues:
    """Of each query the mean over several orders."""
    return {
        name: [mean_of(values) for values in zip(*(one[name] for one in several), strict=True)] for name in several[0]
    }


def _slices(
    all_figures: Sequence[MetricValues], runs: Sequence[SystemRun], seed: int, places_of: Groups
) -> list[Group]:
    return [
        Group(name, places, _entries([_part(each, places) for each in all_figures], runs, seed))
        for name, places in places_of.items()
    ]


def _part(of_all: MetricValues, places: Sequence[int]) -> MetricValues:
    return {name: [values[place] for place in places] for name, values in of_all.items()}


def _entries(all_figures: Sequence[MetricValues], runs: Sequence[SystemRun], seed: int) -> list[SystemResult]:
    names = [FIRST, RANDOM, *(run.system.name for run in runs)]
    means, differences = _compared(all_figures, seed)
    return [
        SystemResult(name=name, figures=each, means=mean, differences=difference, run=run)
        for name, each, mean, difference, run in zip(
            names, all_figures, means, differences, [None, None, *runs], strict=True
        )
    ]


def _compared(all_figures: Sequence[MetricValues], seed: int) -> tuple[list[dict[str, Mean]], list[dict[str, Mean]]]:
    """Means, and differences from the first of them, the first stage; all from the same resamples."""
    first = all_figures[0]
    columns = [values for each in all_figures for values in each.values()]
    columns += [
        [after - before for after, before in zip(values, first[name], strict=True)]
        for each in all_figures
        for name, values in each.items()
    ]
    found = means_of(columns, seed)
    width = len(first)
    rows = [dict(zip(first, found[start : start + width], strict=True)) for start in range(0, len(found), width)]
    return rows[: len(all_figures)], rows[len(all_figures) :]


def groups(queries: Sequence[JudgedQuery], documents: Mapping[str, str], column: str) -> Groups:
    """The places of the queries in each group, by what the column says.

    Args:
        queries: at least one.
        documents: text by id.
        column: a field of the queries; or "length" where they have no such field: three equal parts by the length of
            the longest relevant document in characters.

    Raises:
        InputError: no query has the field, or it tells nearly all of them apart.
    """
    if not any(column in query.fields for query in queries):
        if column == LENGTH:
            return _by_length(queries, documents)
        known = sorted({name for query in queries for name in query.fields})
        raise InputError(f"no query has the field {column!r}; there are {', '.join([*known, LENGTH])}")
    found: Groups = {}
    for place, query in enumerate(queries):
        found.setdefault(query.fields.get(column, _NOT_GIVEN), []).append(place)
    if len(found) > _MOST_GROUPS:
        raise InputError(f"{column!r} splits the queries into {len(found)} groups, which are more than {_MOST_GROUPS}")
    return dict(sorted(found.items()))


def _by_length(queries: Sequence[JudgedQuery], documents: Mapping[str, str]) -> Groups:
    lengths = [max(len(documents[id]) for id in query.relevant) for query in queries]
    order = sorted(range(len(queries)), key=lambda place: lengths[place])
    found: Groups = {}
    for number, name in enumerate(_THIRDS):
        part = order[len(order) * number // 3 : len(order) * (number + 1) // 3]
        if part:
            found[f"{name} ({lengths[part[0]]:,} to {lengths[part[-1]]:,} characters)"] = sorted(part)
    return found
