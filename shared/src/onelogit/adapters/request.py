"""One call of an adapter -> what it asks for, and what becomes of the ranking. Plain data; knows no reranker."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, cast

from typing_extensions import TypedDict

from onelogit.ranking import Ranked, to_score
from onelogit.recipes.recipe import Activation
from onelogit.validation import check_score_threshold, check_top_n, checked_choice

OnError = Literal["raise", "keep_order"]


class Kept(NamedTuple):
    """A document that keeps its place, for its list could not be ranked; `index` is that place."""

    index: int  # type: ignore[assignment]  # hides tuple.index, as in Ranked


class RankOptions(TypedDict, total=False):
    """What may be said anew with each call; what is left out, or None, is as the adapter was made.

    Attributes:
        top_n: keep this many at most.
        score_threshold: keep documents whose score is at least this.
        instruction: what "relevant" means here; "" for none.
    """

    top_n: int | None
    score_threshold: float | None
    instruction: str | None


def rank_options(made: object, anew: RankOptions) -> RankOptions:
    """What is said anew with a call, and for the rest what an adapter was made with.

    Args:
        made: the adapter; it has attributes of the same names.
        anew: may hold more than these options.
    """
    said = {name: anew.get(name) for name in RankOptions.__annotations__}
    return cast("RankOptions", {name: getattr(made, name) if new is None else new for name, new in said.items()})


@dataclass(frozen=True, slots=True, kw_only=True)
class RankRequest:
    """One call of an adapter.

    Attributes:
        query: what is looked for.
        documents: their texts.
        keys: documents with the same key count once, by the best of them; None where all count.
        top_n: keep this many at most; None for all.
        score_threshold: keep documents whose score is at least this; None for all.
        instruction: what "relevant" means here; None for the reranker's own, "" for none.
        activation: from logit to score, in place of the reranker's own.
        on_error: "raise", or "keep_order" to log what went wrong and hand the first `top_n` documents back unranked.
        progress: show a progress bar.

    Raises:
        InputError: a limit or a choice that is none.
    """

    query: str
    documents: Sequence[str]
    keys: Sequence[Hashable] | None = None
    top_n: int | None = None
    score_threshold: float | None = None
    instruction: str | None = None
    activation: Activation | None = None
    on_error: OnError = "raise"
    progress: bool = False

    def __post_init__(self) -> None:
        check_top_n(self.top_n)
        check_score_threshold(self.score_threshold)
        checked_choice("on_error", str(self.on_error), OnError)
        checked_choice("activation", self.activation, Activation)

    def selected(self, ranking: Sequence[Ranked]) -> list[Ranked]:
        """A ranking of all documents without duplicates, on the scale that was asked for, cut to what was asked for."""
        keys, activation, threshold = self.keys, self.activation, self.score_threshold
        if keys is not None:
            best = {keys[ranked.index]: ranked for ranked in reversed(ranking)}
            ranking = [ranked for ranked in ranking if best[keys[ranked.index]] is ranked]
        if activation is not None:
            ranking = [ranked._replace(score=to_score(ranked.logit, activation)) for ranked in ranking]
        if threshold is not None:
            ranking = [ranked for ranked in ranking if ranked.score >= threshold]
        return list(ranking[: self.top_n])

    def in_old_order(self) -> list[Kept]:
        """As many of the documents as were asked for, without duplicates, as they came."""
        keys = range(len(self.documents)) if self.keys is None else self.keys
        first = {key: index for index, key in reversed([*enumerate(keys)])}
        return [Kept(index) for index in sorted(first.values())[: self.top_n]]


def text_with_metadata(text: str, metadata: Mapping[str, object], fields: Sequence[str], separator: str) -> str:
    """A document's text behind the metadata that are to be read with it; those it lacks are left out.

    Args:
        text: of the document itself.
        metadata: all there are.
        fields: names of those to read, in order; a value that is None counts as lacking.
        separator: between two of them, and before the text.
    """
    values = [str(metadata[field]) for field in fields if metadata.get(field) is not None]
    return separator.join([*values, text])
