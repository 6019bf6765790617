"""What a run found -> a table for the terminal, a plot for a file."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from rich import box
from rich.table import Table

from onelogit.benchmarking.latency import LatencySummary
from onelogit.benchmarking.result import Result
from onelogit.benchmarking.runner import Measured
from onelogit.io.outputs import figure_in

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = ("#0b6e99", "#d9730d", "#6940a5", "#448361", "#ad1a72", "#937264", "#5a5a5a", "#c4a000")
_MARKERS = "osD^v<>P"
_STEPS = [step * 10.0**power for power in range(-4, 8) for step in (1, 2, 5)]
_NARROW = 64  # columns of a terminal


class Titled(NamedTuple):
    """A table and the line above it, which may be wider."""

    title: str
    table: Table


def tables_of(result: Result, width: int) -> list[Titled]:
    """A table for each contestant, a row a case; and where there are several, one of ratios.

    Args:
        result: what was measured.
        width: of the terminal; a narrow one gets fewer columns.
    """
    names = result.names
    times = [Titled(name, _table_of_times(result, name, width)) for name in names]
    ratios = [
        Titled(f"{names[0]} is so many times as fast as {name}", _table_of_ratios(result, name)) for name in names[1:]
    ]
    return [Titled(title_of(result), times[0].table)] if not ratios else [*times, *ratios]


def title_of(result: Result) -> str:
    """The model, and where it computes."""
    facts = result.facts
    server = "a server" if result.server in (None, result.model) else f"a server at {result.server}"
    where = server if facts.device is None else f"{facts.dtype} on {facts.device}"
    name = "" if facts.device_name is None else f" ({facts.device_name})"
    return f"{result.model}: {where}{name}"


def _table_of_times(result: Result, name: str, width: int) -> Table:
    is_wide = width >= _NARROW
    headers = ["calls", "p50", *(["p95", "p99"] if is_wide else []), "pairs/s", *(["tokens/s"] if is_wide else [])]
    table = _table(result, headers)
    for case, figures in _found(result, name):
        cells = _cells(figures)
        table.add_row(*_begin(result, case), *(cells if is_wide else (*cells[:2], cells[4])))
    return table


def _table_of_ratios(result: Result, name: str) -> Table:
    table = _table(result, ["median", "least", "greatest"])
    for case, figures in _found(result, name):
        table.add_row(*_begin(result, case), *(f"{each:.2f}" for each in figures.times_as_fast or ()))
    return table


def _found(result: Result, name: str) -> list[tuple[Measured, LatencySummary]]:
    """The cases in which a contestant was measured, and its figures there."""
    return [(case, each) for case in result.cases for each in case.targets if each.name == name]


def _table(result: Result, headers: Sequence[str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in ("candidates", *(["length"] if result.has_lengths else []), *headers):
        table.add_column(name, justify="right", overflow="fold")
    return table


def _begin(result: Result, case: Measured) -> list[str]:
    return [f"{case.candidates:,}", *([f"{case.document_tokens:,}"] if result.has_lengths else [])]


def lines_below(result: Result) -> list[str]:
    """What stands below the table: memory, agreement, versions, licence."""
    lines = [
        f"Memory of {name}: {_bytes(memory.peak)} at most while scoring"
        + ("" if memory.loaded is None else f", {_bytes(memory.loaded)} once loaded")
        for name, memory in result.memory.items()
    ]
    differences = [case.largest_difference for case in result.cases if case.largest_difference is not None]
    if differences:
        lines.append(f"Largest difference of a logit between the two: {max(differences):.1e}")
    tokens = [case.prompt_tokens for case in result.cases if case.prompt_tokens is not None]
    if tokens:
        lines.append(f"Tokens count whole prompts, {min(tokens):,.0f} to {max(tokens):,.0f} a pair on the average")
    lines.append(f"Texts: {result.texts}; {'documents met again' if result.is_warm else 'no text scored twice'}")
    versions = ", ".join(f"{name} {version}" for name, version in result.facts.versions.items())
    lines.append(f"Versions: {versions}")
    lines.append(f"Licence of the model: {result.facts.licence or 'see its card'}")
    return lines


def plot_result(result: Result, path: str | os.PathLike[str]) -> None:
    """Write a plot: the time of a call, and pairs a second, against the candidates, or against their length.

    Args:
        result: what was measured.
        path: of the image; its ending says the format, such as .png or .svg.

    Raises:
        InputError: matplotlib is not installed, or the image cannot be written.
    """
    with figure_in(path, 10, 4.4) as figure:
        left, right = figure.subplots(1, 2)
        by_length = len({case.candidates for case in result.cases}) == 1 and bool(result.cases[0].document_tokens)
        for axes, label in ((left, "milliseconds a call"), (right, "pairs a second")):
            _draw(axes, result, by_length=by_length, is_time=axes is left)
            axes.set_xlabel("tokens in a document" if by_length else "candidates in a call")
            axes.set_ylabel(label)
        left.legend(frameon=False, fontsize=9)
        figure.suptitle(title_of(result), fontsize=11)


def _cells(figures: LatencySummary) -> list[str]:
    median = _seconds(figures.p50_s) if figures.calls > 1 else f"once {_seconds(figures.least_s)}"
    tokens = "-" if figures.tokens_per_s is None else f"{figures.tokens_per_s:,.0f}"
    beyond = [_seconds(each) for each in (figures.p95_s, figures.p99_s)]
    return [f"{figures.calls}", median, *beyond, f"{figures.pairs_per_s:,.1f}", tokens]


def _seconds(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"


def _bytes(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"


def _draw(axes: "Axes", result: Result, *, by_length: bool, is_time: bool) -> None:
    lengths = [None] if by_length else list(dict.fromkeys(case.document_tokens for case in result.cases))
    series = [(name, length) for name in result.names for length in lengths]
    for place, (name, length) in enumerate(series):
        points = [
            _point(case, name, by_length=by_length) for case in result.cases if length in (None, case.document_tokens)
        ]
        known = [point for point in points if point is not None]
        places = [x for x, _ in known]
        label = name if length is None else f"{name}, {length:,} tokens"
        colour, marker = _COLOURS[place % len(_COLOURS)], _MARKERS[place % len(_MARKERS)]
        if is_time:
            low, high = ([1000 * getattr(each, end) for _, each in known] for end in ("least_s", "greatest_s"))
            axes.fill_between(places, low, high, color=colour, alpha=0.1, linewidth=0)
        values = [1000 * _middle(each) if is_time else each.pairs_per_s for _, each in known]
        axes.plot(places, values, marker=marker, markersize=5, linewidth=1.6, color=colour, label=label)
    ticks = sorted({case.document_tokens or 0 if by_length else case.candidates for case in result.cases})
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(ticks, labels=[f"{tick:,}" for tick in ticks])
    axes.minorticks_off()
    bottom, top = axes.get_ylim()
    axes.set_yticks([tick for tick in _STEPS if bottom <= tick <= top])
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.grid(color="#ececec", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _point(case: Measured, name: str, *, by_length: bool) -> tuple[int, LatencySummary] | None:
    figures = next((each for each in case.targets if each.name == name), None)
    place = case.document_tokens if by_length else case.candidates
    return None if figures is None or place is None else (place, figures)


def _middle(figures: LatencySummary) -> float:
    return figures.least_s if figures.p50_s is None else figures.p50_s
