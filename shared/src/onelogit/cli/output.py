"""The results of a command -> JSON and tables on stdout, and messages on stderr."""

import json
import logging
import unicodedata
from collections.abc import Sequence
from itertools import compress
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from onelogit.io.tables import console
from onelogit.options import DEMO_NOTE, is_demo
from onelogit.ranking import Ranked
from onelogit.recipes.recipe import is_non_commercial

if TYPE_CHECKING:
    from onelogit.registry import AnyReranker

_MAX_CHARACTERS = 2000  # more than any terminal has columns
_COLUMNS = {"rank": 0, "index": 80, "logit": 0, "score": 48, "": 48}  # name -> minimum terminal width
_JOINERS = "\u200c\u200d"  # used in Persian words and in emoji
_ISOLATE, _END_ISOLATE = "\u2068", "\u2069"


def print_json(content: object) -> None:
    """Print one line of JSON. Control characters are escaped, so that they cannot affect a terminal."""
    text = json.dumps(content, ensure_ascii=False)
    control = ("Cc", "Cf", "Zl", "Zp")
    print("".join(json.dumps(c)[1:-1] if unicodedata.category(c) in control else c for c in text))  # noqa: T201


class SafeFormatter(logging.Formatter):
    """Formats messages of loggers so that no control character in them affects a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """The message, safe to print."""
        return printable_lines(super().format(record))


def say(text: str) -> None:
    """Print a message on stderr; names in it may be those of a stranger's files."""
    console(is_error=True, soft_wrap=True).print(f"onelogit: {printable_lines(text)}", markup=False)


def mention_demo(model: str | None) -> None:
    """Print a note if the model is the demo model, whose results are meaningless."""
    if model is not None and is_demo(model):
        say(DEMO_NOTE)


def mention_quantization(reranker: "AnyReranker") -> None:
    """Print how far the model's quantisation moves its logits, if it is quantised."""
    report = getattr(reranker, "quantization_report", None)  # a remote reranker has none
    if report is not None:
        say(str(report))


def ranking_table(
    query: str, ranking: Sequence[Ranked], documents: Sequence[str], console: Console, top_n: int | None = None
) -> Table:
    """A table with a row for each of the best `top_n` documents, best first, with a bar for its logit.

    All documents are in the ranking, so that bars can span from the lowest to the highest logit. The width and
    encoding of the console decide which columns and characters are used.
    """
    title = Text(printable(query))
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, expand=True, padding=(0, 1, 0, 0))
    is_column_shown = [console.width >= least_width for least_width in _COLUMNS.values()]
    left_out = [name for name in compress(_COLUMNS, [not shown for shown in is_column_shown]) if name]
    if left_out:
        table.caption = Text(f"Left out at this width: {', '.join(left_out)}. --json has them.", style="dim")
        table.caption_justify = "left"
    for name in compress(_COLUMNS, is_column_shown):
        table.add_column(name, justify="right" if name else "left", no_wrap=True)
    table.add_column("document", no_wrap=True, overflow="ellipsis", ratio=1)
    block = "#" if console.options.ascii_only else "█"
    bar_width = max(6, min(24, console.width // 6))
    fractions = bar_fractions([ranked.logit for ranked in ranking])
    for rank, (ranked, fraction) in enumerate(zip(ranking[:top_n], fractions, strict=False), start=1):
        bar = Text(block * max(1, round(fraction * bar_width)), style="cyan")
        cells: list[str | Text] = [str(rank), str(ranked.index), f"{ranked.logit:+.3f}", f"{ranked.score:.4f}", bar]
        table.add_row(*compress(cells, is_column_shown), Text(printable(documents[ranked.index])))
    return table


def ranking_caption(reranker: "AnyReranker", console: Console) -> str:
    """The model, its licence, and what the scores mean, and the bars if the console is wide enough for them."""
    licence = reranker.licence or "see the model's card"
    licence = f"{licence}, not for commercial use" if is_non_commercial(licence) else licence
    bars = "Bars show the logit, from the lowest to the highest. " if console.width >= _COLUMNS[""] else ""
    legend = f"{bars}Scores are for ordering; they are not probabilities."
    return f"{printable(reranker.name)}; licence of the model: {printable(licence)}\n{legend}"


def bar_fractions(logits: Sequence[float]) -> list[float]:
    """The position of each logit between the lowest (0) and the highest (1); 1 for all if they are equal."""
    low, high = min(logits, default=0.0), max(logits, default=0.0)
    return [1.0 if high == low else (logit - low) / (high - low) for logit in logits]


def printable(text: str) -> str:
    """The text as one line that is safe to print: white space is collapsed, control characters are escaped.

    Right-to-left text is isolated, so that it does not reorder the rest of the line.
    """
    beginning = " ".join(text.lstrip()[:_MAX_CHARACTERS].split())
    if not beginning:
        return "(empty)"
    return _isolated("".join(_escaped(character) for character in beginning))


def printable_lines(text: str) -> str:
    """The whole text, safe to print: only newlines are kept, other control characters are escaped."""
    lines = text.split("\n")
    return "\n".join(_isolated("".join(_escaped(character) for character in line)) for line in lines)


def _isolated(line: str) -> str:
    is_right_to_left = any(unicodedata.bidirectional(character) in ("R", "AL") for character in line)
    return f"{_ISOLATE}{line}{_END_ISOLATE}" if is_right_to_left else line


def _escaped(character: str) -> str:
    if character in _JOINERS or unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"):
        return character
    return character.encode("unicode_escape").decode()
