"""What adapters do around a reranker: open it when it is first asked, drop duplicates, put up with failures.

Loads no torch until it is asked. Knows no framework.
"""

import logging
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple, Self, TypeVar, cast

from typing_extensions import TypedDict

from onelogit.errors import InputError, OnelogitError
from onelogit.inputs import check_score_threshold, check_text, check_top_n, checked_choice
from onelogit.open import AnyReranker, aopen_reranker, find_reranker, is_named, open_reranker
from onelogit.options import OpenOptions, without_secrets
from onelogit.recipes import Activation
from onelogit.scores import Ranked, to_score

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

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


GetOptions = Callable[[], OpenOptions]


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
        self._closed_count = 0

    @property
    def is_open(self) -> bool:
        """Whether a reranker is held."""
        return self._held is not None

    def warm_up(self, model: str, get_options: GetOptions, on_error: OnError = "raise") -> None:
        """Open the reranker and score once, unless it is held already; raises as `rank`."""
        try:
            if not self._holds(model, get_options()):
                self._open(model, get_options()).warm_up()
        except Exception as error:
            _put_up_with(error, on_error)

    async def awarm_up(self, model: str, get_options: GetOptions, on_error: OnError = "raise") -> None:
        """`warm_up`, while the event loop goes on."""
        try:
            if not self._holds(model, get_options()):
                await (await self._aopen(model, get_options())).awarm_up()
        except Exception as error:
            _put_up_with(error, on_error)

    def close(self) -> None:
        """Let go of the reranker, also of one that is being opened; the next call opens it again."""
        self._closed_count += 1
        self._held = None

    def rank(self, model: str, get_options: GetOptions, request: RankRequest) -> list[Ranked | Kept]:
        """The documents that count, best first; for none, none, without loading the model.

        Args:
            model: hub id or folder.
            get_options: gives the options; not called where there are no documents.
            request: what is asked.

        Raises:
            OnelogitError: as `open_reranker` and `Reranker.rank`, unless the request keeps the order then.
        """
        if not request.documents:
            return []
        try:
            check_text(request.query, "the query", is_blank_allowed=False)
            ask = partial(_ask, request)
            reranker = self._open(model, get_options())
            try:
                ranking = ask(reranker.rank)
            except OnelogitError:
                if not self._was_closed_by_another(reranker):
                    raise
                ranking = ask(self._open(model, get_options()).rank)
        except Exception as error:
            _put_up_with(error, request.on_error)
            return _in_old_order(request)
        return [*_selected(request, ranking)]

    async def arank(self, model: str, get_options: GetOptions, request: RankRequest) -> list[Ranked | Kept]:
        """`rank`, while the event loop goes on, also while the model is loaded."""
        if not request.documents:
            return []
        try:
            check_text(request.query, "the query", is_blank_allowed=False)
            ask = partial(_ask, request)
            reranker = await self._aopen(model, get_options())
            try:
                ranking = await ask(reranker.arank)
            except OnelogitError:
                if not self._was_closed_by_another(reranker):
                    raise
                ranking = await ask((await self._aopen(model, get_options())).arank)
        except Exception as error:
            _put_up_with(error, request.on_error)
            return _in_old_order(request)
        return [*_selected(request, ranking)]

    def _open(self, model: str, options: OpenOptions) -> AnyReranker:
        count = self._closed_count
        return self._keep(self._find(model, options) or open_reranker(model, **options), count)

    async def _aopen(self, model: str, options: OpenOptions) -> AnyReranker:
        count = self._closed_count
        return self._keep(self._find(model, options) or await aopen_reranker(model, **options), count)

    def _keep(self, reranker: AnyReranker, closed_count: int) -> AnyReranker:
        if closed_count == self._closed_count:  # else it was closed while this one was opened
            self._held = reranker
        return reranker

    def _find(self, model: str, options: OpenOptions) -> AnyReranker | None:
        given = self._given
        if given is None or not is_named(given, model, options):  # the adapter's fields may have been set anew
            return find_reranker(model, options)
        if given.is_closed:
            raise OnelogitError("the reranker that this was made from is closed")
        return given

    def _holds(self, model: str, options: OpenOptions) -> bool:
        return self._held is not None and self._held is self._find(model, options)

    def _was_closed_by_another(self, reranker: AnyReranker) -> bool:
        """Whether a shared reranker was closed, which any of its users can, after this one had found it open."""
        return reranker.is_closed and reranker is not self._given

    def __copy__(self) -> Self:
        copy = type(self)(self._given)
        copy._held = self._held
        return copy

    def __deepcopy__(self, memo: object) -> Self:
        return self.__copy__()

    def __reduce__(self) -> tuple[type[Self], tuple[()]]:
        return type(self), ()


def fields_of(reranker: AnyReranker, fields: Mapping[str, Any]) -> dict[str, Any]:
    """What an adapter is made with that uses a reranker which is there already.

    Args:
        reranker: whoever made it closes it.
        fields: further ones, about ranking.

    Raises:
        InputError: a field that the reranker has settled.
    """
    for name in ("model", "options", "device", "dtype", "token", "url", "protocol", "api_key"):
        if name in fields:
            raise InputError(f"{name} is settled by the reranker that is there already")
    return {**fields, "model": reranker.name, "options": without_secrets(reranker.options)}


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


def _ask(request: RankRequest, rank: Callable[..., Result]) -> Result:
    return rank(request.query, request.documents, instruction=request.instruction, progress=request.progress)


def _put_up_with(error: Exception, on_error: OnError) -> None:
    if on_error == "raise":
        raise error
    logger.warning("documents keep their order, for they could not be ranked: %s", error, exc_info=error)


def _in_old_order(request: RankRequest) -> list[Ranked | Kept]:
    keys = range(len(request.documents)) if request.keys is None else request.keys
    first = {key: index for index, key in reversed([*enumerate(keys)])}
    return [*map(Kept, sorted(first.values())[: request.top_n])]
