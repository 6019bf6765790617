"""Evaluation -> tables for a terminal."""

from collections.abc import Iterator, Sequence

from rich.markup import escape
from rich.table import Table

from onelogit.evaluation.bootstrap import Mean
from onelogit.evaluation.evaluation import Evaluation, SystemResult
from onelogit.evaluation.metrics import Measure
from onelogit.evaluation.report.notes import ORDER_ONLY, queries, remarks, warnings

_NARROW = 100  # columns of a terminal


def tables(evaluation: Evaluation, width: int) -> Iterator[Table | str]:
    """The comparison, its slices, how contestants moved documents, and what there is to know of them; with markup.

    Args:
        evaluation: what was found.
        width: of the terminal; in a narrow one, intervals stand in lines of their own.
    """
    between = "\n" if width < _NARROW else " "
    for measures in evaluation.by_cutoff:
        yield _comparison(evaluation, measures, between)
    if evaluation.slices:
        yield _slices(evaluation)
    if evaluation.pairings:
        yield _pairings(evaluation, between)
    yield "\n".join(
        [
            *(f"[yellow]{escape(warning)}[/]" for warning in warnings(evaluation)),
            *(escape(remark) for remark in remarks(evaluation)),
            f"[dim]{ORDER_ONLY}[/]",
        ]
    )


def shown(mean: Mean | None, form: str = "+.3f") -> str:
    """A mean with its interval, in a form of numbers; that of differences where left out."""
    if mean is None:
        return "-"
    interval = "" if mean.interval is None else f" ({mean.interval.low:{form}} to {mean.interval.high:{form}})"
    return f"{mean.value:{form}}{interval}"


def _comparison(evaluation: Evaluation, measures: Sequence[Measure], between: str) -> Table:
    main, *others = [measure.name for measure in measures]
    data = evaluation.data
    title = f"{escape(data.name)}: {queries(len(evaluation.queries))}, candidates from {escape(data.first_stage)}"
    table = Table(
        title=title if main == evaluation.main else None,
        caption=f"in brackets: 95 % interval over queries, paired bootstrap, seed {evaluation.seed}",
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("order", overflow="fold", min_width=8)
    table.add_column(main, justify="right", no_wrap=True)
    table.add_column(f"against the{between}first stage", justify="right", no_wrap=True)
    for other in others:
        table.add_column(other, justify="right", no_wrap=True)
    for place, entry in enumerate(evaluation.entries):
        cells = [f"{entry.means[other].value:.3f}" for other in others]
        name, mean, difference = _main_cells(entry, main, is_first=place == 0)
        table.add_row(name, mean, difference.replace(" (", f"{between}("), *cells, end_section=place == 1)
    return table


def _main_cells(entry: SystemResult, main: str, *, is_first: bool) -> tuple[str, str, str]:
    difference = "-" if is_first else _coloured(entry.differences[main])
    return (escape(entry.name), f"{entry.means[main].value:.3f}", difference)


def _coloured(mean: Mean) -> str:
    if mean.interval is None or mean.interval.low <= 0 <= mean.interval.high:
        return shown(mean)
    return f"[{'green' if mean.value > 0 else 'red'}]{shown(mean)}[/]"


def _slices(evaluation: Evaluation) -> Table:
    table = Table(title=f"{evaluation.main} by {escape(str(evaluation.slice_column))}", title_justify="left")
    table.add_column(escape(str(evaluation.slice_column)), overflow="fold")
    table.add_column("queries", justify="right")
    table.add_column("order", overflow="fold")
    table.add_column(evaluation.main, justify="right", no_wrap=True)
    table.add_column("against the first stage", justify="right", no_wrap=True)
    for part in evaluation.slices:
        for place, entry in enumerate(part.entries):
            heading = [escape(part.name), f"{len(part.places):,}"] if place == 0 else ["", ""]
            is_last = place == len(part.entries) - 1
            table.add_row(*heading, *_main_cells(entry, evaluation.main, is_first=place == 0), end_section=is_last)
    return table


def _pairings(evaluation: Evaluation, between: str) -> Table:
    table = Table(title="How documents move from one order to another", title_justify="left")
    table.add_column("from → to", overflow="fold")
    for name in ("pairs flipped", "Kendall's tau", "p-MRR"):
        table.add_column(name, justify="right", no_wrap=True)
    for each in evaluation.pairings:
        figures = (shown(each.flipped, ".1%"), shown(each.kendall_tau, ".3f"), shown(each.p_mrr))
        moved = escape(f"{each.before} → {each.after}")
        table.add_row(moved, *(cell.replace(" (", f"{between}(") for cell in figures))
    return table
