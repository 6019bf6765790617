"""Evaluation -> a plot in a file: each ranking's mean with its interval, over all queries and in each group."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from onelogit.evaluation.evaluation import Evaluation, SystemResult
from onelogit.evaluation.report.notes import interval_note, query_count
from onelogit.io.lines import shortened
from onelogit.io.outputs import PLOT_COLOURS, figure_in, style_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BASELINE_COLOURS = ("#6b7480", "#9a7b2c")  # of the first stage and of random order


def plot_evaluation(evaluation: Evaluation, path: str | os.PathLike[str]) -> None:
    """Write a plot of the main metric. The suffix of the path, such as .png or .svg, selects the format.

    Raises:
        InputError: matplotlib is not installed, or the image cannot be written.
    """
    panels = [("", evaluation.results)]
    for group in evaluation.groups:
        facts = ": ".join(filter(None, [query_count(len(group.indices)), interval_note(group)]))
        panels.append((f"{shortened(group.name, 60)} ({facts})", group.results))
    if evaluation.groups:
        panels[0] = (f"all queries ({query_count(len(evaluation.queries))})", evaluation.results)
    height = 1.1 + len(panels) * (0.55 + 0.34 * len(evaluation.results))
    with figure_in(path, 8.5, height) as figure:
        all_axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
        for axes, (title, results) in zip(all_axes, panels, strict=True):
            _draw(axes, results, evaluation.main_metric)
            axes.set_title(title, fontsize=9, loc="left", color="#3a4048")
        all_axes[-1].set_xlabel(f"{evaluation.main_metric} with its 95 % confidence interval over queries", fontsize=9)
        name = shortened(evaluation.dataset.name, 50)
        figure.suptitle(f"{name}: {query_count(len(evaluation.queries))}", fontsize=12, x=0.02, ha="left")


def _draw(axes: "Axes", results: Sequence[SystemResult], metric: str) -> None:
    for baseline, colour, style in zip(results[:2], _BASELINE_COLOURS, ((0, (4, 3)), (0, (1, 2))), strict=True):
        axes.axvline(baseline.means[metric].value, color=colour, linewidth=1, linestyle=style, zorder=1, alpha=0.6)
    for row, result in enumerate(results):
        mean = result.means[metric]
        colour = _BASELINE_COLOURS[row] if row < 2 else PLOT_COLOURS[(row - 2) % len(PLOT_COLOURS)]
        if mean.interval is not None:
            axes.plot([*mean.interval], [row, row], color=colour, linewidth=2, solid_capstyle="round", zorder=2)
        axes.plot([mean.value], [row], marker="o", markersize=6.5, color=colour, zorder=3)
        above: dict[str, object] = {"xytext": (0, 7), "textcoords": "offset points", "ha": "center"}
        above["bbox"] = {"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none"}  # hides the lines
        axes.annotate(f"{mean.value:.3f}", (mean.value, row), fontsize=7.5, color=colour, **above)  # type: ignore[arg-type]
    axes.set_yticks(range(len(results)), labels=[shortened(result.name, 60) for result in results], fontsize=9)
    axes.set_ylim(len(results) - 0.4, -0.75)
    axes.tick_params(length=0, labelsize=9)
    style_axes(axes, grid="x")
    axes.spines["left"].set_visible(False)
    axes.spines["bottom"].set_color("#c9ced5")
