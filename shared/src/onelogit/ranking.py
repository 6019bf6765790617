"""Raw logits -> ranking. Plain Python floats from here on."""

import math
from collections.abc import Sequence
from html import escape
from operator import itemgetter
from typing import Any, NamedTuple, Self, SupportsIndex, overload

from onelogit.contents import ContentDocument
from onelogit.errors import LogitError, optional_import
from onelogit.recipes.recipe import Activation

_MAX_LINES = 20  # of a ranking in a terminal
_MAX_ROWS = 100  # of its table in a notebook
_MAX_CHARACTERS = 80  # of a text in a terminal
_MAX_CELL_CHARACTERS = 300
_LINE_BREAK = ",\n "
_NO_FORMULAS = "tex2jax_ignore mathjax_ignore"  # classes that keep MathJax from typesetting "$5 to $10"


class Ranked(NamedTuple):
    """One document in a ranking.

    Attributes:
        index: the document's position in the caller's list, from 0.
        logit: the raw logit, unbounded; documents are sorted by it.
        score: the logit on the scale of the model's card. It is for ordering documents; it is not the probability
            that a document is relevant.
    """

    index: int  # type: ignore[assignment]  # hides tuple.index, which is not needed
    logit: float
    score: float

    def __getitem__(self, key: Any) -> Any:
        """A field by its name or position; by "corpus_id", which is the index, as `CrossEncoder.rank` names it."""
        if not isinstance(key, str):
            return tuple.__getitem__(self, key)
        name = "index" if key == "corpus_id" else key
        if name not in self._names():
            advice = "; pass return_documents=True" if name == "text" else ""
            raise KeyError(f"a {type(self).__name__} has no {key!r}, but {', '.join(self._names())}{advice}")
        return getattr(self, name)

    def __repr__(self) -> str:
        shown = (f"{name}={_number(value)}" for name, value in zip(self._fields, self, strict=True))
        return f"{type(self).__name__}({', '.join(shown)})"

    def _names(self) -> tuple[str, ...]:
        return self._fields


class RankedDocument(Ranked):
    """One document in a ranking, with its text, which is an attribute and no item of the tuple.

    Attributes:
        text: of the document.
    """

    text: str

    @classmethod
    def of(cls, ranked: Ranked, text: str) -> Self:
        """The ranked document with its text."""
        document = cls(*ranked)
        document.text = text
        return document

    def _replace(self, **changes: Any) -> Self:
        return self.of(super()._replace(**changes), self.text)

    __replace__ = _replace  # of copy.replace, since Python 3.13

    def _names(self) -> tuple[str, ...]:
        return (*self._fields, "text")

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]}, text={_abbreviated(self.text, _MAX_CHARACTERS)!r})"


class Ranking(list[Ranked]):
    """A ranking, best first: a list that a notebook shows as a table, and that prints one document a line."""

    __slots__ = ()

    @overload
    def __getitem__(self, key: SupportsIndex) -> Ranked: ...

    @overload
    def __getitem__(self, key: slice) -> "Ranking": ...

    def __getitem__(self, key: SupportsIndex | slice) -> "Ranked | Ranking":
        """A document, or a part of the ranking, which is shown as the whole is."""
        return Ranking(super().__getitem__(key)) if isinstance(key, slice) else super().__getitem__(key)

    def __repr__(self) -> str:
        lines = [repr(ranked) for ranked in self[:_MAX_LINES]]
        rest = len(self) - len(lines)
        more = [f"... {rest} more"] if rest else []
        return f"[{_LINE_BREAK.join([*lines, *more])}]"

    def _repr_html_(self) -> str:
        """The table that a notebook shows; all texts are escaped, and no part of them becomes a formula."""
        has_texts = any(isinstance(ranked, RankedDocument) for ranked in self)
        columns = ["rank", "index", "score", "logit", *(["text"] if has_texts else [])]
        rows = [_row(place, ranked, has_text=has_texts) for place, ranked in enumerate(self[:_MAX_ROWS], start=1)]
        rest = len(self) - len(rows)
        more = f"<p>and {rest} more</p>" if rest else ""
        head = "".join(f"<th>{column}</th>" for column in columns)
        table = f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody>"
        return f'<table class="{_NO_FORMULAS}">{table}</table>{more if rows else "<p>no documents</p>"}'


def with_texts(ranking: Sequence[Ranked], documents: Sequence[str | ContentDocument]) -> Ranking:
    """The same ranking with the texts of its documents, which are given in the caller's order."""
    texts = [each if isinstance(each, str) else each.text for each in documents]
    return Ranking(RankedDocument.of(ranked, texts[ranked.index]) for ranked in ranking)


def rank_logits(
    logits: Sequence[float], activation: Activation, top_n: int | None = None, score_threshold: float | None = None
) -> Ranking:
    """The documents from best to worst; equal logits keep the caller's order.

    Args:
        logits: one for each document, in the caller's order.
        activation: "sigmoid" or "identity", from logit to score.
        top_n: return at most this many documents; None for all.
        score_threshold: return only documents with at least this score; None for all.

    Raises:
        LogitError: a logit is NaN or infinite.
    """
    for index, logit in enumerate(logits):
        check_logit(logit, index)
    order = sorted(range(len(logits)), key=lambda index: -logits[index])  # sorted() is stable: ties by index
    ranking = [Ranked(index, logits[index], to_score(logits[index], activation)) for index in order]
    return select_top(ranking, top_n, score_threshold)


def select_top(ranking: Sequence[Ranked], top_n: int | None, score_threshold: float | None) -> Ranking:
    """The first `top_n` documents with at least `score_threshold`, in the given order; None for no limit."""
    if score_threshold is not None:
        ranking = [ranked for ranked in ranking if ranked.score >= score_threshold]
    return Ranking(ranking[:top_n])


def best_logits(logits: Sequence[float], owners: Sequence[int]) -> list[float]:
    """The highest logit of each document's rows.

    Args:
        logits: one for each row.
        owners: the index of each row's document, in any order; every document has at least one row.

    Raises:
        LogitError: a logit is NaN or infinite.
    """
    best: dict[int, float] = {}
    for owner, logit in sorted(zip(owners, logits, strict=True), key=itemgetter(0)):
        check_logit(logit, owner)
        best[owner] = max(logit, best.get(owner, logit))
    return [*best.values()]


def to_score(logit: float, activation: Activation) -> float:
    """The logit itself, or its sigmoid, computed without overflow."""
    if activation == "identity":
        return logit
    small = math.exp(-abs(logit))
    return 1 / (1 + small) if logit >= 0 else small / (1 + small)


def check_logit(logit: float, index: int) -> None:
    """Check that the logit of document `index` is finite.

    Raises:
        LogitError: it is NaN or infinite.
    """
    if not math.isfinite(logit):
        raise LogitError(f"the logit of document {index} is {logit}; try dtype='float32'")


def kendall_tau(before: Sequence[float], after: Sequence[float]) -> float | None:
    """Kendall's tau-b of two lists of logits for the same documents: 1 for the same order, -1 for the reverse.

    Returns:
        None if either list has fewer than two different logits.

    Raises:
        InputError: scipy is not installed.
    """
    if len(set(before)) < 2 or len(set(after)) < 2:
        return None
    with optional_import("scipy"):
        from scipy.stats import kendalltau  # type: ignore[import-untyped]  # noqa: PLC0415
    return float(kendalltau(before, after).statistic)


def _row(place: int, ranked: Ranked, *, has_text: bool) -> str:
    """A row of a ranking's table in HTML."""
    cells = [str(place), *map(_number, (ranked.index, ranked.score, ranked.logit))]
    if has_text:
        cells.append(_abbreviated(getattr(ranked, "text", ""), _MAX_CELL_CHARACTERS))
    # A text is read in its own direction, as Arabic is, which does not reach beyond its cell.
    styles = ['style="text-align: right"'] * 4 + ['dir="auto" style="text-align: left"']
    shown = (f"<td {style}>{escape(cell)}</td>" for style, cell in zip(styles, cells, strict=False))
    return f"<tr>{''.join(shown)}</tr>"


def _number(value: object) -> str:
    """A number for people to read, which is not exact: six digits tell logits apart that differ by more than noise."""
    return f"{value:.6g}" if isinstance(value, float) else repr(value)


def _abbreviated(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 3]}..."
