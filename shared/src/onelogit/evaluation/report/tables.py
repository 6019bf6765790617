"""Evaluation -> tables for a terminal."""

from collections.abc import Iterator, Sequence

from rich.markup import escape
from rich.table import Table

from onelogit.evaluation.bootstrap import MeanEstimate
from onelogit.evaluation.evaluation import Evaluation, SystemResult
from onelogit.evaluation.metrics import Metric
from onelogit.evaluation.report.notes import SCORE_NOTE, query_count, remarks, warnings

_NARROW = 100  # columns of a terminal


def tables(evaluation: Evaluation, width: int) -> Iterator[Table | str]:
    """The comparison, the groups, the pairwise comparisons, and the notes, with rich markup.

    In a narrow terminal (`width`), intervals are on separate lines.
    """
    between = "\n" if width < _NARROW else " "
    for metrics in evaluation.metrics_by_cutoff:
        yield _comparison(evaluation, metrics, between)
    if evaluation.groups:
        yield _groups(evaluation)
    if evaluation.comparisons:
        yield _pairwise(evaluation, between)
    yield "\n".join(
        [
            *(f"[yellow]{escape(warning)}[/]" for warning in warnings(evaluation)),
            *(escape(remark) for remark in remarks(evaluation)),
            f"[dim]{SCORE_NOTE}[/]",
        ]
    )


def _comparison(evaluation: Evaluation, metrics: Sequence[Metric], between: str) -> Table:
    main, *others = [metric.name for metric in metrics]
    dataset = evaluation.dataset
    counted = query_count(len(evaluation.queries))
    title = f"{escape(dataset.name)}: {counted}, candidates from {escape(dataset.first_stage)}"
    caption = f"in brackets: 95 % confidence interval over queries, paired bootstrap, seed {evaluation.seed}"
    columns = ["order", main, f"against the{between}first stage", *others]
    table = _table(title if main == evaluation.main_metric else None, columns, texts=["order"], caption=caption)
    for number, result in enumerate(evaluation.results):
        name, mean, difference = _main_cells(result, main, is_first=number == 0)
        cells = [f"{result.means[other].value:.3f}" for other in others]
        table.add_row(name, mean, difference.replace(" (", f"{between}("), *cells, end_section=number == 1)
    return table


def _table(title: str | None, columns: Sequence[str], texts: Sequence[str], caption: str | None = None) -> Table:
    """An empty table. Columns that are not in `texts` are for numbers, which are never wrapped."""
    table = Table(title=title, caption=caption, title_justify="left", caption_justify="left")
    for name in columns:
        if name in texts:
            table.add_column(name, overflow="fold", min_width=8)
        else:
            table.add_column(name, justify="right", no_wrap=True)
    return table


def _main_cells(result: SystemResult, metric: str, *, is_first: bool) -> tuple[str, str, str]:
    difference = "-" if is_first else _coloured(result.differences[metric])
    return (escape(result.name), f"{result.means[metric].value:.3f}", difference)


def _coloured(mean: MeanEstimate) -> str:
    colour = {"gain": "green", "loss": "red", "same": None}[mean.verdict]
    return _formatted(mean) if colour is None else f"[{colour}]{_formatted(mean)}[/]"


def _formatted(mean: MeanEstimate | None, form: str = "+.3f") -> str:
    if mean is None:
        return "-"
    interval = "" if mean.interval is None else f" ({mean.interval.low:{form}} to {mean.interval.high:{form}})"
    return f"{mean.value:{form}}{interval}"


def _groups(evaluation: Evaluation) -> Table:
    main, column = evaluation.main_metric, escape(str(evaluation.group_column))
    columns = [column, "queries", "order", main, "against the first stage"]
    table = _table(f"{main} by {column}", columns, texts=[column, "order"])
    for group in evaluation.groups:
        for number, result in enumerate(group.results):
            heading = [escape(group.name), f"{len(group.indices):,}"] if number == 0 else ["", ""]
            table.add_row(*heading, *_main_cells(result, main, is_first=number == 0))
        table.add_section()
    return table


def _pairwise(evaluation: Evaluation, between: str) -> Table:
    columns = ["from → to", "pairs flipped", "Kendall's tau", "p-MRR"]
    table = _table("How documents move from one order to another", columns, texts=columns[:1])
    for each in evaluation.comparisons:
        cells = (_formatted(each.flipped, ".1%"), _formatted(each.kendall_tau, ".3f"), _formatted(each.p_mrr))
        names = escape(f"{each.before} → {each.after}")
        table.add_row(names, *(cell.replace(" (", f"{between}(") for cell in cells))
    return table
