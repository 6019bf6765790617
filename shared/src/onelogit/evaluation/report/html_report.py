"""Evaluation -> a self-contained HTML page without scripts or network access. All texts from the data are escaped."""

from base64 import b64encode
from collections.abc import Iterator, Sequence
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from onelogit import __version__
from onelogit.evaluation.bootstrap import RESAMPLES, MeanEstimate
from onelogit.evaluation.evaluation import RANDOM_ORDERS, Evaluation, SystemResult
from onelogit.evaluation.report.examples import find_examples, metric_changes
from onelogit.evaluation.report.notes import SCORE_NOTE, interval_note, query_count, remarks, warnings
from onelogit.evaluation.systems import redact_credentials
from onelogit.io.outputs import versions
from onelogit.recipes.recipe import is_non_commercial

_FOLDER = Path(__file__).parent
_MAX_BARS = 160
_MIN_SLOTS = 24  # so that a few bars are not drawn as wide blocks
_LIBRARIES = ("onelogit", "ir-measures", "pytrec-eval-terrier", "bm25s", "numpy", "torch", "transformers")
_CONTROLS = {code: "\ufffd" for code in (*range(32), *range(127, 160)) if chr(code) not in "\t\n"}


class PlotScale(NamedTuple):
    """Maps the values from `low` to `high` to positions in a plot, in per cent of its width."""

    low: float
    high: float

    def at(self, value: float) -> str:
        """The position of a value, as an SVG length."""
        return f"{2 + 96 * (value - self.low) / (self.high - self.low):.2f}%"  # leaves room for dots at both ends

    @property
    def ticks(self) -> list[float]:
        """At most six round values."""
        step = next(step for step in (0.01, 0.02, 0.05, 0.1, 0.2, 0.25, 1.0) if (self.high - self.low) / step <= 5)
        first = -int(-self.low / step // 1)
        return [number * step for number in range(first, int(self.high / step + 1e-9) + 1)]


class ChangeBar(NamedTuple):
    """One bar of a plot: x and width in per cent, y and height in pixels, and its kind: "gain", "loss" or "same"."""

    x: str
    width: str
    y: float
    height: float
    kind: str


def render_page(evaluation: Evaluation, command: str) -> str:
    """The HTML page; it shows `command` as the command that repeats the evaluation."""
    style = (_FOLDER / "page.css").read_text(encoding="utf-8")
    main = evaluation.main_metric
    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_without_controls,
    )
    environment.filters |= {"number": _number, "interval": _interval}
    return environment.get_template("page.html.jinja").render(
        evaluation=evaluation,
        style=style,
        style_hash=b64encode(sha256(style.encode()).digest()).decode(),
        main=main,
        scale=_scale(evaluation.results, main),
        group_scale=_scale([result for group in evaluation.groups for result in group.results], main),
        examples=[
            (result, find_examples(evaluation, result), metric_changes(evaluation, result))
            for result in evaluation.system_results
        ],
        warnings=[*warnings(evaluation)],
        remarks=[*remarks(evaluation), SCORE_NOTE],
        change_bars=change_bars,
        query_count=query_count,
        interval_note=interval_note,
        facts=[*_facts(evaluation)],
        is_non_commercial=is_non_commercial,
        redact_credentials=redact_credentials,
        command=command,
        resamples=RESAMPLES,
        random_orders=RANDOM_ORDERS,
        versions=[f"{name} {version}" for name, version in versions(_LIBRARIES).items()],
        duration=_duration,
        version=__version__,
    )


def _facts(evaluation: Evaluation) -> Iterator[str]:
    """What the results depend on, in a few words each."""
    yield query_count(len(evaluation.queries))
    least, greatest = evaluation.candidate_counts
    counts = f"{greatest:,}" if least == greatest else f"{least:,} to {greatest:,}"
    noun = "candidate" if greatest == 1 else "candidates"
    yield f"{counts} {noun} per query, from {evaluation.dataset.first_stage}"
    infos = [result.run.model_info for result in evaluation.system_results if result.run is not None]
    numbers = [f"{info.dtype} on {info.device}" for info in infos if info.dtype is not None]
    if numbers:
        yield ", ".join(dict.fromkeys(numbers))
    seconds = [result.seconds for result in evaluation.system_results]
    known = [each for each in seconds if each is not None]
    if known and len(known) == len(seconds):
        yield f"scored in {_duration(sum(known))}"
    yield f"{datetime.now().astimezone():%Y-%m-%d %H:%M %Z}"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def change_bars(changes: Sequence[float]) -> list[ChangeBar]:
    """A bar for each change, from the largest gain to the largest loss; at most 160, then for evenly spaced changes."""
    ordered = sorted(changes, reverse=True)
    count = min(len(ordered), _MAX_BARS)
    chosen = [ordered[(2 * number + 1) * len(ordered) // (2 * count)] for number in range(count)]
    largest = max((abs(change) for change in ordered), default=0.0) or 1.0
    step, middle = 100 / max(count, _MIN_SLOTS), 50.0
    return [
        ChangeBar(
            x=f"{number * step + step * 0.1:.3f}%",
            width=f"{step * 0.8:.3f}%",
            y=round(middle - max(change, 0.0) / largest * 46, 2),
            height=round(max(abs(change) / largest * 46, 0.6), 2),
            kind="gain" if change > 0 else "loss" if change < 0 else "same",
        )
        for number, change in enumerate(chosen)
    ]


def _scale(results: Sequence[SystemResult], metric: str) -> PlotScale:
    means = [result.means[metric] for result in results]
    ends = [end for mean in means for end in (mean.value, *(mean.interval or ()))] or [0.0, 1.0]
    room = max(max(ends) - min(ends), 0.02) * 0.06
    low, high = max(min(ends) - room, 0.0), max(ends) + room
    return PlotScale(low, min(high, 1.0) if high - low > 0.02 else 1.0)


def _number(value: float, form: str = ".3f") -> str:
    return format(value, form).replace("-", "−")


def _interval(mean: MeanEstimate, form: str) -> str:
    return "" if mean.interval is None else " to ".join(_number(end, form) for end in mean.interval)


def _without_controls(value: Any) -> Any:
    """Text without the control characters that HTML does not allow."""
    return value.translate(_CONTROLS) if type(value) is str else value
