"""Evaluation -> tables for a terminal."""

from collections.abc import Iterator, Sequence

from rich.text import Text

from onelogit.evaluation.bootstrap import MeanEstimate
from onelogit.evaluation.evaluation import Evaluation
from onelogit.evaluation.metrics import Metric
from onelogit.evaluation.report.notes import SCORE_NOTE, interval_note, query_count, remarks, warnings
from onelogit.io.tables import FigureTable

_COLOURS = {"gain": "green", "loss": "red", "same": ""}


def tables(evaluation: Evaluation) -> Iterator[FigureTable | Text]:
    """The comparison, the groups, the pairwise comparisons, and the notes."""
    for metrics in evaluation.metrics_by_cutoff:
        yield _comparison(evaluation, metrics)
        yield Text()
    if evaluation.system_differences:
        yield _system_differences(evaluation)
        yield Text()
    if evaluation.groups:
        yield _groups(evaluation)
    if evaluation.comparisons:
        yield _pairwise(evaluation)
    for warning in warnings(evaluation):
        yield Text(warning, style="yellow")
    for remark in remarks(evaluation):
        yield Text(remark)
    yield Text(SCORE_NOTE, style="dim")


def _comparison(evaluation: Evaluation, metrics: Sequence[Metric]) -> FigureTable:
    main, *others = [metric.name for metric in metrics]
    dataset = evaluation.dataset
    title = f"{dataset.name}: {query_count(len(evaluation.queries))}, candidates from {dataset.first_stage}"
    table = FigureTable(
        ["order", main, "against the\nfirst stage", *others],
        title=title if main == evaluation.main_metric else "",
        caption=f"in brackets: 95 % confidence interval over queries, paired bootstrap, seed {evaluation.seed}",
    )
    for number, result in enumerate(evaluation.results):
        difference = Text("-") if number == 0 else _coloured(result.differences[main])
        mean, *means = [f"{result.means[name].value:.3f}" for name in (main, *others)]
        table.add_row(result.name, mean, difference, *means)
        if number == 1:
            table.add_section()
    return table


def _system_differences(evaluation: Evaluation) -> FigureTable:
    names = [metrics[0].name for metrics in evaluation.metrics_by_cutoff]
    table = FigureTable(["A less B", *names], title="Differences between systems", caption="--json has all metrics")
    for each in evaluation.system_differences:
        table.add_row(each.name, *(_coloured(each.means[name]) for name in names))
    return table


def _coloured(mean: MeanEstimate) -> Text:
    return Text(_formatted(mean), style=_COLOURS[mean.verdict])


def _formatted(mean: MeanEstimate | None, form: str = "+.3f") -> str:
    if mean is None:
        return "-"
    interval = "" if mean.interval is None else f"\n({mean.interval.low:{form}} to {mean.interval.high:{form}})"
    return f"{mean.value:{form}}{interval}"


def _groups(evaluation: Evaluation) -> FigureTable:
    main, column = evaluation.main_metric, str(evaluation.group_column)
    table = FigureTable([column, main, "against the\nfirst stage"], title=f"{main} by {column}")
    for group in evaluation.groups:
        facts = [query_count(len(group.indices)), interval_note(group)]
        table.add_heading(f"{group.name}: {', '.join(filter(None, facts))}")
        for number, result in enumerate(group.results):
            difference = Text("-") if number == 0 else _coloured(result.differences[main])
            table.add_row(result.name, f"{result.means[main].value:.3f}", difference)
        table.add_section()
    return table


def _pairwise(evaluation: Evaluation) -> FigureTable:
    columns = ["from → to", "pairs flipped", "Kendall's tau", "p-MRR"]
    table = FigureTable(columns, title="How documents move from one order to another")
    for each in evaluation.comparisons:
        cells = (_formatted(each.flipped, ".1%"), _formatted(each.kendall_tau, ".3f"), _formatted(each.p_mrr))
        table.add_row(f"{each.before} → {each.after}", *cells)
    return table
