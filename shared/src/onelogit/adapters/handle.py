"""An adapter's handle to its reranker: opens it on first use, keeps it, and handles its failures.

Loads torch only when a local model is opened. Knows no framework.
"""

import asyncio
import logging
from collections.abc import Callable
from copy import deepcopy
from typing import Any, Self, TypeVar

from onelogit.adapters.parameters import PARAMETERS, adapter_options
from onelogit.adapters.request import Kept, OnError, RankRequest
from onelogit.contents import ContentDocument
from onelogit.errors import InputError, OnelogitError
from onelogit.model_spec import ModelSpec
from onelogit.ranking import Ranked
from onelogit.registry import AnyReranker, aopen_spec, files_of, find_spec, open_spec

logger = logging.getLogger(__name__)

_UNKNOWN = object()

Result = TypeVar("Result")


class RerankerHandle:
    """An adapter's handle to the reranker that its fields name. Safe to share between threads.

    All adapters with the same model and options share the weights, which are freed when the last of them is closed or
    deleted. A copy shares them. A pickle does not contain them; the unpickled handle opens the reranker again.

    Each call checks whether the model's files have changed, and then drops the reranker and opens the new model. If
    the files are gone, it logs a warning and goes on with the weights that it has. A relative path begins in the
    working directory in which the adapter was created, or its field `model` was changed; so it does in a pickle.

    Args:
        reranker: use this one instead of opening one; the caller remains responsible for closing it.
    """

    def __init__(self, reranker: AnyReranker | None = None) -> None:
        self._given = reranker
        self._base = None if reranker is None or reranker.spec is None else reranker.spec.base
        self._given_spec = None if reranker is None else ModelSpec.of(reranker.name, reranker.options, base=self._base)
        self._held: AnyReranker | None = None
        self._held_spec: ModelSpec | None = None
        self._held_state: object = _UNKNOWN  # of the model's files when it was loaded
        self._closed_count = 0
        self._spec: tuple[tuple[Any, ...], ModelSpec] | None = None
        self._is_orphaned = False  # whether the files of the held reranker were found to be gone

    @property
    def is_open(self) -> bool:
        """Whether the handle keeps a reranker."""
        return self._held is not None

    def spec(self, adapter: Any, *, token: str | None = None, api_key: str | None = None) -> ModelSpec:
        """The spec for an adapter's fields; built and checked again only if a field has changed.

        Args:
            adapter: with attributes `model`, `options`, `device`, `dtype`, `url` and `protocol`, and `ModelParameters`.
            token: the adapter's own parameter.
            api_key: the adapter's own parameter.

        Raises:
            InputError: as `ModelSpec` and `adapter_options`.
        """
        parameters = [getattr(adapter, name, None) for name in PARAMETERS]
        fields = (adapter.model, adapter.options, parameters, token, api_key)
        if self._spec is None or self._spec[0] != fields:
            options = adapter_options(adapter, token=token, api_key=api_key)
            # A deep copy, so that a change inside the options, such as to a header, is noticed too.
            spec = ModelSpec.of(adapter.model, deepcopy(options), base=self._base_of(adapter.model))
            self._spec = deepcopy(fields), spec
        return self._spec[1]

    def _base_of(self, model: object) -> str | None:
        """The folder in which a relative path begins: the same until the model is changed."""
        if self._spec is None:
            return self._base
        (before, *_), spec = self._spec
        return spec.base if before == model else None

    def warm_up(self, spec: ModelSpec, on_error: OnError = "raise") -> None:
        """Open the reranker and score once, unless it is open already; raises as `rank`."""
        try:
            if not self._holds(spec):
                self._open(spec).warm_up()
        except Exception as error:
            _raise_or_log(error, on_error)

    async def awarm_up(self, spec: ModelSpec, on_error: OnError = "raise") -> None:
        """`warm_up` without blocking the event loop."""
        try:
            if not self._holds(spec):
                await (await self._aopen(spec)).awarm_up()
        except Exception as error:
            _raise_or_log(error, on_error)

    def close(self) -> None:
        """Drop the reranker, even one that is still being opened; the next call opens it again."""
        self._closed_count += 1
        self._held = None

    def rank(self, get_spec: Callable[[], ModelSpec], request: RankRequest) -> list[Ranked | Kept]:
        """The selected documents, best first. An empty list needs no model and loads none.

        Args:
            get_spec: returns the spec; not called if there are no documents.
            request: the query, its documents, and how many to return.

        Raises:
            OnelogitError: as `open_reranker` and `Reranker.rank`, unless the request has on_error="keep_order".
        """
        if not request.documents:
            return []
        try:
            texts = request.texts()
            spec = get_spec()
            reranker = self._open(spec)
            try:
                ranking = _rank(request, texts, reranker.rank)
            except OnelogitError:
                if not self._was_closed_elsewhere(reranker):
                    raise
                ranking = _rank(request, texts, self._open(spec).rank)
        except Exception as error:
            _raise_or_log(error, request.on_error)
            return [*request.in_given_order()]
        return [*request.selected(ranking)]

    async def arank(self, get_spec: Callable[[], ModelSpec], request: RankRequest) -> list[Ranked | Kept]:
        """`rank` without blocking the event loop, even while the model is loaded."""
        if not request.documents:
            return []
        try:
            texts = await asyncio.to_thread(request.texts)  # it may read images from files
            spec = get_spec()
            reranker = await self._aopen(spec)
            try:
                ranking = await _rank(request, texts, reranker.arank)
            except OnelogitError:
                if not self._was_closed_elsewhere(reranker):
                    raise
                ranking = await _rank(request, texts, (await self._aopen(spec)).arank)
        except Exception as error:
            _raise_or_log(error, request.on_error)
            return [*request.in_given_order()]
        return [*request.selected(ranking)]

    def _open(self, spec: ModelSpec) -> AnyReranker:
        count = self._closed_count
        return self._keep(self._find(spec) or open_spec(spec), spec, count)

    async def _aopen(self, spec: ModelSpec) -> AnyReranker:
        count = self._closed_count
        return self._keep(self._find(spec) or await aopen_spec(spec), spec, count)

    def _keep(self, reranker: AnyReranker, spec: ModelSpec, closed_count: int) -> AnyReranker:
        if closed_count == self._closed_count:  # else the handle was closed while the reranker was opening
            is_new = reranker is not self._held or spec is not self._held_spec
            if is_new or (self._held_state is _UNKNOWN and reranker is not self._given):
                self._hold(reranker, spec)
        return reranker

    def _hold(self, reranker: AnyReranker, spec: ModelSpec) -> None:
        self._is_orphaned = self._is_orphaned and reranker is self._held
        self._held, self._held_spec, self._files = reranker, spec, files_of(spec)
        state = self._files.state()
        # The files may have changed since they were read; then the next call looks for their reranker.
        self._held_state = state if find_spec(spec) is reranker else _UNKNOWN

    def _find(self, spec: ModelSpec) -> AnyReranker | None:
        held = self._held if self._held_spec is spec else None
        if self._given is not None and (held is self._given or self._is_given(spec)):
            if self._given.is_closed:
                raise OnelogitError("the reranker given to from_reranker is closed")
            return self._given
        if held is None or held.is_closed:
            return None
        state = self._files.state()
        if state == self._held_state:
            return held
        found = find_spec(spec)
        if found is not None:
            return found
        if state is not None:
            self._held = None  # frees the old weights before the new ones are loaded
            return None
        if not self._is_orphaned:
            logger.warning("the files of %s are gone; the weights that were loaded are still used", spec.name)
        self._is_orphaned = True
        return held

    def _is_given(self, spec: ModelSpec) -> bool:
        """Whether the spec is that of the given reranker: the fields of an adapter may have changed since."""
        return self._given_spec is not None and self._given_spec.is_same_model(spec)

    def _holds(self, spec: ModelSpec) -> bool:
        return self._held is not None and self._held is self._find(spec)

    def _was_closed_elsewhere(self, reranker: AnyReranker) -> bool:
        """Whether another user of a shared reranker closed it after this handle had found it open."""
        return reranker.is_closed and reranker is not self._given

    def __eq__(self, other: object) -> bool:
        """Whether adapters with equal fields use the same reranker: the same given one, or the same relative paths."""
        if not isinstance(other, RerankerHandle):
            return NotImplemented
        return self._given is other._given and self._current_base == other._current_base

    __hash__ = None  # type: ignore[assignment]  # what it equals changes with its adapter's fields

    @property
    def _current_base(self) -> str | None:
        return self._base if self._spec is None else self._spec[1].base

    def __copy__(self) -> Self:
        copy = type(self)(self._given)
        copy._held, copy._held_spec, copy._spec = self._held, self._held_spec, self._spec
        if copy._held is not None and copy._held_spec is not None:
            copy._hold(copy._held, copy._held_spec)
        copy._base, copy._is_orphaned = self._base, self._is_orphaned
        return copy

    def __deepcopy__(self, memo: object) -> Self:
        return self.__copy__()

    def check_picklable(self) -> None:
        """Raise InputError if the unpickled handle would open another reranker than the given one."""
        if self._given is not None and not self._given.is_described_by_spec:
            raise InputError(
                "this adapter cannot be pickled: its reranker was created from objects, or has a custom HTTP client or "
                "another activation than its options say; create the adapter with a model and options, which is a "
                "saved folder for objects"
            )

    def __reduce__(self) -> tuple[type[Self], tuple[()], dict[str, object]]:
        self.check_picklable()
        return type(self), (), {"_base": self._current_base}


def _rank(request: RankRequest, texts: list[str | ContentDocument], rank: Callable[..., Result]) -> Result:
    return rank(request.query, texts, instruction=request.instruction, progress=request.progress)


def _raise_or_log(error: Exception, on_error: OnError) -> None:
    if on_error == "raise":
        raise error
    logger.warning("the documents could not be ranked and keep their order: %s", error, exc_info=error)
