"""A Result -> tables for the terminal, and a plot in a file."""

import math
import os
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from onelogit.benchmarking.latency import LatencySummary
from onelogit.benchmarking.result import Result
from onelogit.benchmarking.runner import CaseResult
from onelogit.io.outputs import PLOT_COLOURS, PLOT_MARKERS, figure_in, style_axes
from onelogit.io.tables import FigureTable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LEAST_TICKS, _MOST_TICKS = 3, 9  # of the y axis


def tables_of(result: Result) -> list[FigureTable]:
    """One table of times per target, with a row per case; for several targets, also tables of ratios."""
    names = result.names
    titles = names if len(names) > 1 else [title_of(result)]
    headers = ["calls", "p50", "p95", "p99", "pairs/s", "tokens/s"]
    times = [_table(result, name, title, headers, _times) for name, title in zip(names, titles, strict=True)]
    headers = ["median", "least", "greatest"]
    ratios = [(name, f"How many times as fast {names[0]} is as {name}") for name in names[1:]]
    return times + [_table(result, name, title, headers, _ratio) for name, title in ratios]


def title_of(result: Result) -> str:
    """The title: the model, and its device or server."""
    facts = result.facts
    server = "a server" if result.server in (None, result.model) else f"a server at {result.server}"
    where = server if facts.device is None else f"{facts.dtype} on {facts.device}"
    name = "" if facts.device_name is None else f" ({facts.device_name})"
    return f"{result.model}: {where}{name}"


def lines_below(result: Result) -> list[str]:
    """The lines below the tables: load time, memory, agreement of logits, texts, versions, licence."""
    lines = [f"{name} was loaded in {_duration(seconds)}" for name, seconds in result.load_s.items()]
    lines += [
        f"Memory of {name}: at most {_bytes(memory.peak)} while scoring"
        + ("" if memory.loaded is None else f", {_bytes(memory.loaded)} after loading")
        for name, memory in result.memory.items()
    ]
    differences = [case.largest_difference for case in result.cases if case.largest_difference is not None]
    if differences:
        lines.append(f"Largest difference between the logits of the two: {max(differences):.1e}")
    tokens = [case.prompt_tokens for case in result.cases if case.prompt_tokens is not None]
    if tokens:
        few, many = f"{min(tokens):,.0f}", f"{max(tokens):,.0f}"
        lines.append(f"Tokens are of whole prompts: on average {few if few == many else f'{few} to {many}'} per pair")
    repeats = "the same documents in each call" if result.is_warm else "no text was scored twice"
    versions = ", ".join(f"{name} {version}" for name, version in result.facts.versions.items())
    licence = result.facts.licence or "see its card"
    return [*lines, f"Texts: {result.texts}; {repeats}", f"Versions: {versions}", f"Licence of the model: {licence}"]


def plot_result(result: Result, path: str | os.PathLike[str]) -> None:
    """Write a plot of latency and throughput against the number of candidates or, if it is constant, their length.

    The suffix of the path, such as .png or .svg, selects the format.

    Raises:
        InputError: matplotlib is not installed, or the image cannot be written.
    """
    with figure_in(path, 10, 4.4) as figure:
        left, right = figure.subplots(1, 2)
        by_length = len({case.candidates for case in result.cases}) == 1 and bool(result.cases[0].document_tokens)
        for axes, label in ((left, "milliseconds per call"), (right, "pairs per second")):
            _draw(axes, result, by_length=by_length, is_time=axes is left)
            axes.set_xlabel("tokens per document" if by_length else "candidates per call")
            axes.set_ylabel(label)
        left.legend(frameon=False, fontsize=9)
        figure.suptitle(title_of(result), fontsize=11)


def format_log_axes(axes: "Axes", ticks: Sequence[int]) -> None:
    """Make both axes logarithmic, with these ticks on the x axis, and round ones on the y axis."""
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(ticks, labels=[f"{tick:,}" for tick in ticks])
    axes.minorticks_off()
    axes.set_yticks(_round_ticks(*axes.get_ylim()))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.12g}")
    style_axes(axes)


def _round_ticks(bottom: float, top: float) -> list[float]:
    """Round values of a logarithmic axis from `bottom` to `top`: powers of ten, or more if these are too few."""
    powers = [10.0**power for power in range(math.floor(math.log10(bottom)), math.ceil(math.log10(top)) + 1)]
    for digits in ((1,), (1, 2, 5), range(1, 10), (each / 10 for each in range(10, 100))):
        steps = [*digits]
        ticks = [power * step for power in powers for step in steps if bottom <= power * step <= top]
        if len(ticks) >= _LEAST_TICKS:
            return ticks[:: math.ceil(len(ticks) / _MOST_TICKS)]
    return [float(f"{tick:.4g}") for tick in (bottom, math.sqrt(bottom * top), top)]


def _table(
    result: Result, name: str, title: str, headers: Sequence[str], cells: Callable[[LatencySummary], Sequence[str]]
) -> FigureTable:
    table = FigureTable(["candidates", *headers], title=title)
    digits = max(len(f"{case.candidates:,}") for case in result.cases)
    for case, summary in _summaries(result, name):
        length = "" if case.document_tokens is None else f" of {case.document_tokens:,} tokens"
        table.add_row(f"{case.candidates:>{digits},}{length}", *cells(summary))
    return table


def _summaries(result: Result, name: str) -> Iterator[tuple[CaseResult, LatencySummary]]:
    """The cases in which a target was measured."""
    return ((case, each) for case in result.cases for each in case.targets if each.name == name)


def _times(summary: LatencySummary) -> list[str]:
    median = _duration(summary.p50_s) if summary.calls > 1 else f"once {_duration(summary.least_s)}"
    tokens = "-" if summary.tokens_per_s is None else f"{summary.tokens_per_s:,.0f}"
    beyond = [_duration(summary.p95_s), _duration(summary.p99_s)]
    return [f"{summary.calls}", median, *beyond, f"{summary.pairs_per_s:,.1f}", tokens]


def _ratio(summary: LatencySummary) -> list[str]:
    ratio = summary.times_as_fast
    return [] if ratio is None else [f"{each:.2f}" for each in (ratio.median, ratio.least, ratio.greatest)]


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"


def _bytes(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"


def _draw(axes: "Axes", result: Result, *, by_length: bool, is_time: bool) -> None:
    """Draw one line per target and, unless lengths are on the x axis, per length."""

    def place(case: CaseResult) -> int:
        return (case.document_tokens or 0) if by_length else case.candidates

    lengths = [None] if by_length else list(dict.fromkeys(case.document_tokens for case in result.cases))
    for index, (name, length) in enumerate((name, length) for name in result.names for length in lengths):
        points = [
            (place(case), each) for case, each in _summaries(result, name) if length in (None, case.document_tokens)
        ]
        places = [x for x, _ in points]
        label = name if length is None else f"{name}, {length:,} tokens"
        colour, marker = PLOT_COLOURS[index % len(PLOT_COLOURS)], PLOT_MARKERS[index % len(PLOT_MARKERS)]
        if is_time:
            least, greatest = ([1000 * getattr(each, end) for _, each in points] for end in ("least_s", "greatest_s"))
            axes.fill_between(places, least, greatest, color=colour, alpha=0.15, linewidth=0)
            if len(places) == 1:  # a band of no width
                axes.vlines(places, least, greatest, color=colour, alpha=0.3, linewidth=8)
        medians = [1000 * (each.least_s if each.p50_s is None else each.p50_s) for _, each in points]
        values = medians if is_time else [each.pairs_per_s for _, each in points]
        axes.plot(places, values, marker=marker, markersize=5, linewidth=1.6, color=colour, label=label)
    if is_time:
        axes.fill_between([], [], color="#6b7480", alpha=0.3, linewidth=0, label="from the fastest to the slowest call")
    format_log_axes(axes, sorted({place(case) for case in result.cases}))
