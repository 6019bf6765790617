"""What adapters do around a reranker: open it when it is first asked, drop duplicates, put up with failures.

Loads no torch until it is asked. Knows no framework.
"""

import asyncio
import logging
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Self, cast

from typing_extensions import TypedDict

from onelogit.inputs import check_score_threshold, check_text, check_top_n, checked_choice
from onelogit.open import AnyReranker, find_reranker, is_named, open_reranker
from onelogit.options import OpenOptions
from onelogit.recipes import Activation
from onelogit.scores import Ranked, to_score

logger = logging.getLogger(__name__)

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
        checked_choice("on_error", self.on_error, OnError)


class RerankerHandle:
    """An adapter's hold on the reranker that it names. Safe to share between threads.

    The weights are those of all who name the same model and options, and go when the last of them lets go. A copy
    shares them; a pickle leaves them behind, and they are opened again where it is read.

    Args:
        reranker: one that is there already, in place of one opened by name; whoever made it closes it.
    """

    def __init__(self, reranker: AnyReranker | None = None) -> None:
        self._given = reranker
        self._held: AnyReranker | None = None

    @property
    def is_open(self) -> bool:
        """Whether a reranker is held."""
        return self._held is not None

    def open(self, model: str, options: OpenOptions) -> AnyReranker:
        """The reranker; raises as `open_reranker`."""
        self._held = self._find(model, options) or open_reranker(model, **options)
        return self._held

    async def aopen(self, model: str, options: OpenOptions) -> AnyReranker:
        """`open`, while the event loop goes on."""
        if self._find(model, options) is not None:
            return self.open(model, options)
        return await asyncio.to_thread(self.open, model, options)

    def close(self) -> None:
        """Let go of the reranker; the next call opens it again."""
        self._held = None

    def rank(self, model: str, options: OpenOptions, request: RankRequest) -> list[Ranked | Kept]:
        """The documents that count, best first; for none, none, without loading the model.

        Raises:
            OnelogitError: as `open_reranker` and `Reranker.rank`, unless the request keeps the order then.
        """
        if not request.documents:
            return []
        try:
            check_text(request.query, "the query", is_blank_allowed=False)
            reranker = self.open(model, options)
            ranking = reranker.rank(
                request.query, request.documents, instruction=request.instruction, progress=request.progress
            )
        except Exception as error:
            return _in_old_order(request, error)
        return [*_selected(request, ranking)]

    async def arank(self, model: str, options: OpenOptions, request: RankRequest) -> list[Ranked | Kept]:
        """`rank`, while the event loop goes on, also while the model is loaded."""
        if not request.documents:
            return []
        try:
            check_text(request.query, "the query", is_blank_allowed=False)
            reranker = await self.aopen(model, options)
            ranking = await reranker.arank(
                request.query, request.documents, instruction=request.instruction, progress=request.progress
            )
        except Exception as error:
            return _in_old_order(request, error)
        return [*_selected(request, ranking)]

    def _find(self, model: str, options: OpenOptions) -> AnyReranker | None:
        given = self._given
        if given is not None and not given.is_closed and is_named(given, model, options):
            return given  # the adapter's fields have not been set anew since
        return find_reranker(model, options)

    def __copy__(self) -> Self:
        copy = type(self)(self._given)
        copy._held = self._held
        return copy

    def __deepcopy__(self, memo: object) -> Self:
        return self.__copy__()

    def __reduce__(self) -> tuple[type[Self], tuple[()]]:
        return type(self), ()


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


def _selected(request: RankRequest, ranking: Sequence[Ranked]) -> list[Ranked]:
    """The ranking without duplicates, on the scale that was asked for, cut to what was asked for."""
    if request.keys is not None:
        best = {request.keys[ranked.index]: ranked for ranked in reversed(ranking)}
        ranking = [ranked for ranked in ranking if best[request.keys[ranked.index]] is ranked]
    if (activation := request.activation) is not None:
        ranking = [ranked._replace(score=to_score(ranked.logit, activation)) for ranked in ranking]
    if (threshold := request.score_threshold) is not None:
        ranking = [ranked for ranked in ranking if ranked.score >= threshold]
    return list(ranking[: request.top_n])


def _in_old_order(request: RankRequest, error: Exception) -> list[Ranked | Kept]:
    if request.on_error == "raise":
        raise error
    logger.warning("documents keep their order, for they could not be ranked: %s", error, exc_info=error)
    keys = range(len(request.documents)) if request.keys is None else request.keys
    first = {key: index for index, key in reversed([*enumerate(keys)])}
    return [*map(Kept, sorted(first.values())[: request.top_n])]
