"""The results of cpu.py -> a plot of what a document costs, by the number of documents and by their length."""

from pathlib import Path
from typing import Any

from onelogit.benchmarking.report import format_log_axes
from onelogit.io.outputs import PLOT_COLOURS, figure_in

_PANELS = {"growth": ("documents", "documents per call"), "lengths": ("document_tokens", "tokens per document")}


def draw(run: dict[str, Any], path: Path) -> None:
    """Draw one panel for each of growth and lengths that was measured."""
    panels = {name: run["parts"][name] for name in _PANELS if run["parts"].get(name)}
    if not panels:
        raise SystemExit("--plot needs the measurement growth or lengths; neither was run")
    names = list(dict.fromkeys(name for calls in panels.values() for call in calls for name in call["contestants"]))
    options = run["options"]
    title = f"{options['shape']}, {options['layers']} layers, {options['dtype']}, {run['machine']['cores']} cores"
    with figure_in(path, 5.6 * len(panels), 4.4) as figure:
        axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for axis, (panel, calls) in zip(axes, panels.items(), strict=True):
            field, label = _PANELS[panel]
            for colour, name in zip(PLOT_COLOURS, names, strict=False):
                measured = [call for call in calls if name in call["contestants"]]
                costs = [1000 / call["contestants"][name]["pairs_per_s"] for call in measured]
                positions = [call[field] for call in measured]
                axis.plot(positions, costs, marker="o", markersize=4, linewidth=1.8, color=colour, label=name)
            format_log_axes(axis, [call[field] for call in calls])
            axis.set_xlabel(label)
        axes[0].set_ylabel("milliseconds per document")
        axes[0].legend(frameon=False, fontsize=9)
        figure.suptitle(f"Cost of a document ({title})", fontsize=11)
