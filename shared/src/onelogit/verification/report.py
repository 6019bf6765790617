"""A Parity -> a table for the terminal, and a plot in a file."""

import os
from typing import TYPE_CHECKING

from rich.text import Text

from onelogit.errors import counted
from onelogit.io.outputs import PLOT_COLOURS, PLOT_MARKERS, figure_in, style_axes
from onelogit.io.tables import Cell, FigureTable
from onelogit.verification.comparison import Comparison
from onelogit.verification.parity import Parity

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def parity_table(parity: Parity) -> FigureTable:
    """A table with a row for each measurement, and a numbered column for each model compared with the original."""
    compared = parity.comparisons
    checked = f"{counted(parity.pair_count, 'pair')}, {parity.family}, {parity.dtype} on {parity.device}"
    numbers = [f"({number})" for number in range(1, len(compared) + 1)] if len(compared) > 1 else [compared[0].name]
    names = [f"{number} {comparison.name}" for number, comparison in zip(numbers, compared, strict=True)]
    table = FigureTable(
        ["compared with the original", *numbers],
        title=_title(parity),
        caption="\n".join([*(names if len(compared) > 1 else []), checked]),
    )
    for row in _comparison_rows(parity):
        table.add_row(*row)
    table.add_section()
    for name, value, is_passed in _check_rows(parity):
        table.add_row(name, value if is_passed else Text(value, style="red"))
    return table


def plot_parity(parity: Parity, path: str | os.PathLike[str]) -> None:
    """Write a plot of the other logits against the original's, with their differences below.

    The suffix of the path, such as .png or .svg, selects the format.

    Raises:
        InputError: matplotlib is not installed, or the image cannot be written.
    """
    with figure_in(path, 7, 8) as figure:
        _draw(parity, figure)


def _title(parity: Parity) -> Text:
    """What agrees with, or differs from, what: the other folder or server if there is one, otherwise the conversion."""
    model, others = _short_name(parity.model), parity.against
    if parity.quantization is not None and not others:
        verdict, style = ("reads the prompts of", "green") if parity.agrees else ("differs from", "red")
        return Text.assemble(
            f"{model}, quantised to {parity.quantization}, ",
            (verdict, style),
            " the original; its logits are approximate",
        )
    subject, original = (_other_name(others[0]), model) if others else (f"{model}, converted,", "the original")
    verdict, style = ("agrees with", "green") if parity.agrees else ("differs from", "red")
    return Text.assemble(subject, " ", (verdict, style), " ", original)


def _other_name(comparison: Comparison) -> str:
    """The name of the folder or the server, without the library that computed the logits."""
    return comparison.name.removesuffix(" by onelogit")


def _comparison_rows(parity: Parity) -> list[tuple[Cell, ...]]:
    compared = parity.comparisons
    return [
        (f"largest difference{_limit(parity)}", *(_largest(one, parity) for one in compared)),
        ("mean difference", *(f"{one.mean_difference:.1e}" for one in compared)),
        ("Kendall's tau of the ranking", *(_share(one.kendall_tau) for one in compared)),
        ("best 5 documents in common", *(_share(one.top_5_overlap) for one in compared)),
        ("best 10 documents in common", *(_share(one.top_10_overlap) for one in compared)),
        ("logits tied with another", *(str(one.ties_in_float32) for one in compared)),
        ("the same, rounded to bfloat16", *(str(one.ties_in_bfloat16) for one in compared)),
    ]


def _limit(parity: Parity) -> str:
    """The limit of the differences, if any model is held to it."""
    return f" (at most {parity.tolerance:.1e})" if parity.quantization is None or parity.against else ""


def _check_rows(parity: Parity) -> list[tuple[str, str, bool]]:
    count, prompts, complete = parity.pair_count, parity.prompts_equal, parity.pair_count - parity.truncated_count
    padding, limit = parity.pad_difference, parity.tolerance
    is_judged, most = parity.quantization is None, f" (at most {limit:.1e})"
    return [
        ("prompts equal, byte for byte", "-" if prompts is None else f"{prompts} of {count}", prompts in (None, count)),
        ("rows of token ids equal", f"{parity.rows_equal} of {complete}", parity.rows_equal == complete),
        ("documents truncated", str(parity.truncated_count), True),
        (
            f"difference caused by padding{most if is_judged else ''}",
            f"{padding:.1e}",
            padding <= limit or not is_judged,
        ),
        ("truncation keeps the rest of the prompt", "yes" if parity.is_frame_kept else "no", parity.is_frame_kept),
    ]


def _largest(comparison: Comparison, parity: Parity) -> Text:
    if comparison is parity.converted and parity.quantization is not None:
        return Text(f"{comparison.largest_difference:.1e} ({parity.quantization}: no limit)")
    colour = "green" if comparison.largest_difference <= parity.tolerance else "red"
    return Text(f"{comparison.largest_difference:.1e}", style=colour)


def _share(share: float | None) -> str:
    return "-" if share is None else f"{share:.4f}"


def _short_name(model: str) -> str:
    name = model.rstrip("/")
    return name if name.count("/") == 1 else name.rpartition("/")[2]


def _draw(parity: Parity, figure: "Figure") -> None:
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[2.4, 1])
    largest = max(comparison.largest_difference for comparison in parity.comparisons)
    figure.suptitle(
        f"{_short_name(parity.model)}: {counted(parity.pair_count, 'logit')}, largest difference {largest:.1e}",
        fontsize=13,
    )
    low, high = min(parity.original_logits), max(parity.original_logits)
    above.plot([low, high], [low, high], color="#b0b0b0", linewidth=1, zorder=1, label="equal")
    below.axhline(0, color="#b0b0b0", linewidth=1, zorder=1)
    for comparison, colour, marker in zip(parity.comparisons, PLOT_COLOURS, PLOT_MARKERS, strict=False):
        differences = [a - b for a, b in zip(comparison.logits, parity.original_logits, strict=True)]
        for axes, values in ((above, comparison.logits), (below, differences)):
            fill = colour if comparison is parity.converted else "none"
            style = {"s": 28, "marker": marker, "facecolor": fill, "edgecolor": colour, "alpha": 0.8, "zorder": 2}
            axes.scatter(parity.original_logits, values, label=comparison.name, **style)
    above.set_ylabel("logit")
    above.legend(frameon=False, loc="upper left")
    below.set_xlabel(f"original logit ({parity.dtype} on {parity.device})")
    below.set_ylabel("logit - original logit")
    below.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
    for axes in (above, below):
        style_axes(axes)
