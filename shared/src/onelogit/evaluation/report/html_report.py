"""Evaluation -> a page of HTML that needs nothing else: no network, no script. Whatever a text holds stays text."""

from base64 import b64encode
from collections.abc import Sequence
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from onelogit import __version__
from onelogit.evaluation.bootstrap import RESAMPLES, Mean
from onelogit.evaluation.evaluation import RANDOM_ORDERS, Evaluation, SystemResult
from onelogit.evaluation.report.examples import changes, stories
from onelogit.evaluation.report.notes import ORDER_ONLY, queries, remarks, warnings
from onelogit.evaluation.systems import without_secret
from onelogit.io.outputs import versions
from onelogit.recipes.recipe import is_non_commercial

_HERE = Path(__file__).parent
_BARS = 160
_FEWEST_BARS = 24  # else a few would be blocks
_LIBRARIES = ("onelogit", "ir-measures", "pytrec-eval-terrier", "bm25s", "numpy", "torch", "transformers")
_CONTROLS = {code: "\ufffd" for code in (*range(32), *range(127, 160)) if chr(code) not in "\t\n"}


class Scale(NamedTuple):
    """From values to per cent of a plot's width.

    Attributes:
        low: the value at its left end.
        high: at its right end.
    """

    low: float
    high: float

    def at(self, value: float) -> str:
        """Where a value is, as SVG writes it."""
        return f"{self._share(value):.2f}%"

    def width(self, low: float, high: float) -> str:
        """How wide the space between two values is."""
        return f"{self._share(high) - self._share(low):.2f}%"

    @property
    def ticks(self) -> list[float]:
        """Round values, four or five of them."""
        step = next(step for step in (0.01, 0.02, 0.05, 0.1, 0.2, 0.25, 1.0) if (self.high - self.low) / step <= 5)
        first = -int(-self.low / step // 1)
        return [number * step for number in range(first, int(self.high / step + 1e-9) + 1)]

    def _share(self, value: float) -> float:
        return 2 + 96 * (value - self.low) / (self.high - self.low)  # dots have room at both ends


class Bar(NamedTuple):
    """One bar of a plot, in per cent of its width and pixels of its height: a "gain", a "loss", or the "same"."""

    x: str
    width: str
    y: float
    height: float
    kind: str


def write_page(evaluation: Evaluation, command: str) -> str:
    """The page.

    Args:
        evaluation: what was found.
        command: how to ask for the same again.
    """
    style = (_HERE / "page.css").read_text(encoding="utf-8")
    template = _environment().get_template("page.html.jinja")
    return template.render(
        evaluation=evaluation,
        style=style,
        style_hash=b64encode(sha256(style.encode()).digest()).decode(),
        main=evaluation.main,
        entries=evaluation.entries,
        scale=_scale(evaluation.entries, evaluation.main),
        slice_scale=_scale([entry for part in evaluation.slices for entry in part.entries], evaluation.main),
        readings=[
            (entry, stories(evaluation, entry), bars(changes(evaluation, entry))) for entry in evaluation.systems
        ],
        warnings=[*warnings(evaluation)],
        remarks=[*remarks(evaluation)],
        order_only=ORDER_ONLY,
        queries=queries,
        is_non_commercial=is_non_commercial,
        without_secret=without_secret,
        verdict=_verdict,
        command=command,
        resamples=RESAMPLES,
        random_orders=RANDOM_ORDERS,
        versions=[f"{name} {version}" for name, version in versions(_LIBRARIES).items()],
        day=f"{datetime.now().astimezone():%Y-%m-%d}",
        version=__version__,
    )


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_clean,
    )
    environment.filters |= {
        "signed": _signed,
        "figure": lambda value: f"{value:.3f}",
        "bracket": _bracket,
        "number": _number,
    }
    return environment


def bars(rises: Sequence[float]) -> list[Bar]:
    """The rises, from the greatest to the least; of many queries, evenly chosen ones."""
    ordered = sorted(rises, reverse=True)
    count = min(len(ordered), _BARS)
    chosen = [ordered[(2 * place + 1) * len(ordered) // (2 * count)] for place in range(count)]
    most = max((abs(rise) for rise in ordered), default=0.0) or 1.0
    step, middle = 100 / max(count, _FEWEST_BARS), 50.0
    return [
        Bar(
            x=f"{place * step + step * 0.1:.3f}%",
            width=f"{step * 0.8:.3f}%",
            y=round(middle - max(rise, 0.0) / most * 46, 2),
            height=round(max(abs(rise) / most * 46, 0.6), 2),
            kind="gain" if rise > 0 else "loss" if rise < 0 else "same",
        )
        for place, rise in enumerate(chosen)
    ]


def _scale(entries: Sequence[SystemResult], measure: str) -> Scale:
    ends = [0.0, 1.0] if not entries else []
    for entry in entries:
        mean = entry.means[measure]
        ends += [mean.value, *(mean.interval or ())]
    low, high = min(ends), max(ends)
    room = max(high - low, 0.02) * 0.06
    return Scale(max(low - room, 0.0), min(high + room, 1.0) if high + room - max(low - room, 0.0) > 0.02 else 1.0)


def _verdict(mean: Mean) -> str:
    if mean.interval is None or mean.interval.low <= 0 <= mean.interval.high:
        return "same"
    return "gain" if mean.value > 0 else "loss"


def _number(value: float, form: str) -> str:
    return format(value, form).replace("-", "−")


def _signed(value: float) -> str:
    return _number(value, "+.3f")


def _bracket(mean: Mean, form: str = "+.3f") -> str:
    return "" if mean.interval is None else " to ".join(_number(end, form) for end in mean.interval)


def _clean(value: Any) -> Any:
    """Text without characters that HTML does not allow."""
    return value.translate(_CONTROLS) if type(value) is str else value
