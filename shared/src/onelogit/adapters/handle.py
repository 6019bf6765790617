"""What adapters do around a reranker: open it when it is first asked, hold it, put up with its failures.

Loads no torch until it is asked. Knows no framework.
"""

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Self, TypeVar

from onelogit.adapters.request import Kept, OnError, RankRequest
from onelogit.errors import InputError, OnelogitError
from onelogit.options import OpenOptions, without_secrets
from onelogit.ranking import Ranked
from onelogit.registry import AnyReranker, aopen_reranker, find_reranker, is_named, open_reranker
from onelogit.validation import check_text

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

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
            return [*request.in_old_order()]
        return [*request.selected(ranking)]

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
            return [*request.in_old_order()]
        return [*request.selected(ranking)]

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


def _ask(request: RankRequest, rank: Callable[..., Result]) -> Result:
    return rank(request.query, request.documents, instruction=request.instruction, progress=request.progress)


def _put_up_with(error: Exception, on_error: OnError) -> None:
    if on_error == "raise":
        raise error
    logger.warning("documents keep their order, for they could not be ranked: %s", error, exc_info=error)
