"""A model's or a server's name and options -> its reranker, the same one for all who name the same.

Loads no torch until it is called, and none for a server.
"""

import asyncio
import os
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, NamedTuple, Union, cast
from weakref import WeakValueDictionary

from typing_extensions import Unpack

from onelogit.errors import InputError
from onelogit.options import LoadOptions, OpenOptions, RemoteOptions, check_place, is_url, plain_options

if TYPE_CHECKING:
    from onelogit.local.reranker import Reranker
    from onelogit.remote.reranker import RemoteReranker

AnyReranker = Union["Reranker", "RemoteReranker"]

# Weak: the weights go when the last user lets go of its reranker.
_open_rerankers: WeakValueDictionary[object, AnyReranker] = WeakValueDictionary()
_opening: dict[object, Future[AnyReranker]] = {}
_lock = threading.Lock()


def open_reranker(model_or_url: str, /, **options: Unpack[OpenOptions]) -> AnyReranker:
    """The reranker of a model, or of a server, opened once per process however many ask for it.

    Callers that name the same model and options share one set of weights for as long as one of them keeps the
    reranker; who closes it closes it for all. `Reranker.load` and `RemoteReranker` give a private one instead.

    Args:
        model_or_url: hub id or path of a folder; or a server's address, and then the model it serves as `model`.
        **options: see `OpenOptions`. Any that differs makes another reranker, but for the token.

    Raises:
        OnelogitError: as `Reranker.load` and `RemoteReranker`.
    """
    return _opened(model_or_url, options).result()


async def aopen_reranker(model_or_url: str, /, **options: Unpack[OpenOptions]) -> AnyReranker:
    """`open_reranker`, while the event loop goes on; cancelling it leaves others who wait as they are."""
    waiting = asyncio.wrap_future(_opened(model_or_url, options))
    waiting.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody may be there to read it
    return await asyncio.shield(waiting)


def _opened(model_or_url: str, options: OpenOptions) -> Future[AnyReranker]:
    """The reranker, or what it will be: each is opened in a thread of its own, which holds up no caller's."""
    key = _key(model_or_url, options)
    opening_key = (key, options.get("token"))
    with _lock:
        reranker = find_reranker(model_or_url, options)
        future = _opening.get(opening_key)
        if reranker is None and future is not None:
            return future
        future = Future()
        if reranker is not None:
            future.set_result(reranker)
            return future
        _opening[opening_key] = future
    named = _named(model_or_url, options)
    threading.Thread(target=_open, args=(named, key, opening_key, future), name="onelogit-opening", daemon=True).start()
    return future


def _open(named: "_Named", key: object, opening_key: object, future: Future[AnyReranker]) -> None:
    try:
        reranker = _load(named)
    except BaseException as error:
        _opening.pop(opening_key, None)
        future.set_exception(error)
        return
    with _lock:
        _open_rerankers[key] = reranker
        _opening.pop(opening_key, None)
    future.set_result(reranker)


def _forget_opening() -> None:
    """In a forked child: the threads that open are the parent's, and so is whoever holds the lock."""
    global _lock  # noqa: PLW0603  there is one in a process
    _lock = threading.Lock()
    _opening.clear()


os.register_at_fork(after_in_child=_forget_opening)


def find_reranker(model_or_url: str, options: OpenOptions) -> AnyReranker | None:
    """The reranker that `open_reranker` would give without loading one; None where it is not open."""
    reranker = _open_rerankers.get(_key(model_or_url, options))
    return None if reranker is None or reranker.is_closed else reranker


def is_named(reranker: AnyReranker, model_or_url: str, options: OpenOptions) -> bool:
    """Whether a reranker is what these name; the API key does not count, for it changes no model."""
    mine = _key(reranker.name, {**reranker.options, "api_key": None})
    return mine == _key(model_or_url, {**options, "api_key": None})


class _Named(NamedTuple):
    """A model of this process, or with a url one of a server."""

    url: str | None
    model: str | None
    options: OpenOptions


def _named(model_or_url: str, options: OpenOptions) -> _Named:
    given = dict(plain_options({**options, "url": model_or_url} if is_url(model_or_url) else options))
    check_place(cast("OpenOptions", given))
    url, model = given.pop("url", None), given.pop("model", None)
    if not is_url(model_or_url):
        if model is not None:
            raise InputError(f"two models are named, {model_or_url!r} and {model!r}; leave one out")
        model = model_or_url
    return _Named(cast("str | None", url), cast("str | None", model), cast("OpenOptions", given))


def _load(named: _Named) -> AnyReranker:
    if named.url is not None:
        from onelogit.remote.reranker import RemoteReranker  # noqa: PLC0415  transformers' tokenizers, and HTTP

        return RemoteReranker(named.url, named.model, **cast("RemoteOptions", named.options))
    from onelogit.local.reranker import Reranker  # noqa: PLC0415  this is where torch is loaded

    return Reranker.load(cast("str", named.model), **cast("LoadOptions", named.options))


def _key(model_or_url: str, options: OpenOptions) -> object:
    url, model, given = _named(model_or_url, options)
    # By identity: 0 equals False, but is a value, and a wrong one. A token changes no model.
    return url, model, _frozen({name: value for name, value in given.items() if value is not False and name != "token"})


def _frozen(value: object) -> object:
    """The value, with dictionaries in it as sets of pairs, so that it can be a key."""
    if isinstance(value, dict):
        return frozenset((name, _frozen(inner)) for name, inner in value.items())
    if isinstance(value, set):
        return frozenset(value)
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
