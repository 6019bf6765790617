"""Evaluation -> a plot in a file: the mean of each order with its interval, and the same in each slice."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from onelogit.evaluation.evaluation import Evaluation, SystemResult
from onelogit.evaluation.report.notes import queries
from onelogit.io.outputs import figure_in
from onelogit.io.text_files import shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_GREYS = ("#6b7480", "#b4bac2")
_COLOURS = ("#0b5fa5", "#c8501e", "#2f8f5b", "#8a5aa8", "#d99a2b", "#937264")


def plot_evaluation(evaluation: Evaluation, path: str | os.PathLike[str]) -> None:
    """Write a plot.

    Args:
        evaluation: what was found.
        path: of the image; its ending says the format, such as .png or .svg.

    Raises:
        InputError: matplotlib is not installed, or the image cannot be written.
    """
    panels = [("all queries", len(evaluation.queries), evaluation.entries)]
    panels += [(part.name, len(part.places), part.entries) for part in evaluation.slices]
    height = 1.1 + sum(0.55 + 0.34 * len(evaluation.entries) for _ in panels)
    with figure_in(path, 8.5, height) as figure:
        _draw(figure, panels, evaluation)


def _draw(figure: "Figure", panels: Sequence[tuple[str, int, Sequence[SystemResult]]], evaluation: Evaluation) -> None:
    all_axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (name, count, entries) in zip(all_axes, panels, strict=True):
        _draw_panel(axes, entries, evaluation.main)
        title = "" if len(panels) == 1 else f"{shortened(name, 60)} ({queries(count)})"
        axes.set_title(title, fontsize=9, loc="left", color="#3a4048")
    all_axes[-1].set_xlabel(f"{evaluation.main}, with the 95 % interval over queries", fontsize=9)
    figure.suptitle(
        f"{shortened(evaluation.data.name, 50)}: {queries(len(evaluation.queries))}",
        fontsize=12,
        x=0.02,
        ha="left",
    )


def _draw_panel(axes: "Axes", entries: Sequence[SystemResult], measure: str) -> None:
    axes.axvline(entries[0].means[measure].value, color="#c9ced5", linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    for place, entry in enumerate(entries):
        mean = entry.means[measure]
        colour = _GREYS[place] if place < 2 else _COLOURS[(place - 2) % len(_COLOURS)]
        if mean.interval is not None:
            axes.plot([*mean.interval], [place, place], color=colour, linewidth=2, solid_capstyle="round", zorder=2)
        axes.plot([mean.value], [place], marker="o", markersize=6.5, color=colour, zorder=3)
        axes.annotate(
            f"{mean.value:.3f}",
            (mean.value, place),
            xytext=(0, 7),
            textcoords="offset points",
            ha="center",
            fontsize=7.5,
            color=colour,
        )
    axes.set_yticks(range(len(entries)), labels=[shortened(entry.name, 60) for entry in entries], fontsize=9)
    axes.set_ylim(len(entries) - 0.4, -0.75)
    axes.tick_params(length=0, labelsize=9)
    axes.grid(axis="x", color="#ececec", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color("#c9ced5")
