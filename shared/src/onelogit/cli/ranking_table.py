"""A ranking -> a table with bars, for any terminal and whatever stands in the documents."""

import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from onelogit.ranking import Ranked
from onelogit.recipes.recipe import is_non_commercial

if TYPE_CHECKING:
    from onelogit.registry import AnyReranker

_MOST_CHARACTERS = 2000  # more than any terminal has columns
_NARROW, _WIDE = 48, 80
_JOINERS = "\u200c\u200d"  # of Persian words, and of emoji
_ISOLATE, _END_ISOLATE = "\u2068", "\u2069"


def ranking_table(
    query: str, ranking: Sequence[Ranked], documents: Sequence[str], console: Console, top_n: int | None = None
) -> Table:
    """One row a document, the best first.

    A bar is as long as its logit lies high between the lowest and the highest of all documents.

    Args:
        query: stands above.
        ranking: of all documents.
        documents: in the order that the ranking's indices mean.
        console: says how wide it is, and whether it has block characters.
        top_n: rows at most.
    """
    table = Table(
        title=Text(shown(query)), title_justify="left", box=box.SIMPLE_HEAD, expand=True, padding=(0, 1, 0, 0)
    )
    table.add_column("rank", justify="right", no_wrap=True)
    if console.width >= _WIDE:
        table.add_column("index", justify="right", no_wrap=True)
    table.add_column("logit", justify="right", no_wrap=True)
    if console.width >= _NARROW:
        table.add_column("score", justify="right", no_wrap=True)
        table.add_column("", no_wrap=True)
    table.add_column("document", no_wrap=True, overflow="ellipsis", ratio=1)
    shares = shares_of([ranked.logit for ranked in ranking])
    width = max(6, min(24, console.width // 6))
    for place, (ranked, share) in enumerate(zip(ranking[:top_n], shares, strict=False), start=1):
        index = [str(ranked.index)] if console.width >= _WIDE else []
        bar = Text(_bar(share, width, console), style="cyan")
        score: list[str | Text] = [f"{ranked.score:.4f}", bar] if console.width >= _NARROW else []
        cells: list[str | Text] = [str(place), *index, f"{ranked.logit:+.3f}", *score]
        table.add_row(*cells, Text(shown(documents[ranked.index])))
    return table


def caption_of(reranker: "AnyReranker") -> str:
    """Whose logits these are, under which licence, and what they are not."""
    licence = reranker.licence or "see the model's card"
    licence = f"{licence}, not for commercial use" if is_non_commercial(licence) else licence
    said = "Bars span the logits from the lowest to the highest. A score orders documents; it is no probability."
    return f"{shown(reranker.name)}; licence of the model: {shown(licence)}\n{said}"


def shares_of(logits: Sequence[float]) -> list[float]:
    """Where each logit lies between the lowest (0) and the highest (1); 1 for all where they are equal."""
    low, high = min(logits, default=0.0), max(logits, default=0.0)
    return [1.0 if high == low else (logit - low) / (high - low) for logit in logits]


def shown(text: str) -> str:
    """A text as one line that does nothing to a terminal: white space made one space, controls spelled out.

    A text with letters that run from right to left is isolated, so that the row's other cells stay where they are.
    """
    beginning = " ".join(text.lstrip()[:_MOST_CHARACTERS].split())
    if not beginning:
        return "(empty)"
    harmless = "".join(_spelled(character) for character in beginning)
    runs_left = any(unicodedata.bidirectional(character) in ("R", "AL") for character in harmless)
    return f"{_ISOLATE}{harmless}{_END_ISOLATE}" if runs_left else harmless


def _spelled(character: str) -> str:
    if character in _JOINERS or unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Co", "Cn"):
        return character
    return character.encode("unicode_escape").decode()


def _bar(share: float, width: int, console: Console) -> str:
    return ("#" if console.options.ascii_only else "█") * max(1, round(share * width))
