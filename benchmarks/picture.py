"""A run -> a picture: what a call costs against the number of documents, and against their length."""

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes

mpl.use("Agg")
from matplotlib import pyplot as plt

COLOURS = ("#0b5fa5", "#c8501e", "#d99a2b", "#6b7480", "#2f8f5b", "#8a5aa8")


def draw(run: dict[str, Any], path: Path) -> None:
    """Two panels, as far as the run has figures for them."""
    panels = [
        ("growth", "documents", "documents in a call"),
        ("lengths", "document_tokens", "tokens in a document"),
    ]
    panels = [panel for panel in panels if run["parts"].get(panel[0])]
    if not panels:
        raise SystemExit("a picture needs the part growth or lengths; neither was run")
    figure, axes = plt.subplots(1, len(panels), figsize=(5.6 * len(panels), 4.4), squeeze=False, layout="constrained")
    names = list(
        dict.fromkeys(name for panel in panels for part in run["parts"][panel[0]] for name in part["contestants"])
    )
    for axis, (part, field, label) in zip(axes[0], panels, strict=True):
        _draw_panel(axis, run["parts"][part], field, names)
        axis.set_xlabel(label)
    axes[0][0].set_ylabel("milliseconds a document")
    axes[0][0].legend(frameon=False, fontsize=9)
    options = run["options"]
    title = f"{options['shape']}, {options['layers']} layers, {options['dtype']}, {run['machine']['cores']} cores"
    figure.suptitle(f"What a document costs ({title})", fontsize=11)
    figure.savefig(path, dpi=150, facecolor="white")
    plt.close(figure)


def _draw_panel(axis: Axes, parts: list[dict[str, Any]], field: str, names: list[str]) -> None:
    for colour, name in zip(COLOURS, names, strict=False):
        present = [part for part in parts if name in part["contestants"]]
        places = [part[field] for part in present]
        costs = [1000 / part["contestants"][name]["pairs_per_s"] for part in present]
        axis.plot(places, costs, marker="o", markersize=4, linewidth=1.8, color=colour, label=name)
    axis.set_xscale("log")
    axis.set_yscale("log")
    ticks = [part[field] for part in parts]
    axis.set_xticks(ticks, labels=[f"{tick:,}" for tick in ticks])
    axis.minorticks_off()
    low, high = axis.get_ylim()
    steps = [step * 10**power for power in range(-1, 6) for step in (1, 2, 5)]
    axis.set_yticks([step for step in steps if low <= step <= high])
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.grid(color="#e3e6ea", linewidth=0.7)
    axis.spines[["top", "right"]].set_visible(False)
