"""A ModelSpec -> its reranker, opened once in a process and shared by all callers that open the same spec.

Loads torch only when a local model is opened.
"""

import asyncio
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Union
from weakref import WeakValueDictionary

from typing_extensions import Unpack

from onelogit.model_spec import ModelSpec
from onelogit.options import OpenOptions
from onelogit.processes import ProcessLock, run_in_forked_children

if TYPE_CHECKING:
    from onelogit.local.reranker import Reranker
    from onelogit.remote.reranker import RemoteReranker

AnyReranker = Union["Reranker", "RemoteReranker"]

# Weak, so that the weights are freed when the last user drops its reranker.
_open_rerankers: WeakValueDictionary[ModelSpec, AnyReranker] = WeakValueDictionary()
_opening: dict[object, Future[AnyReranker]] = {}
_lock = ProcessLock()


def open_reranker(model_or_url: str, /, **options: Unpack[OpenOptions]) -> AnyReranker:
    """The reranker of a local model or a server, opened once per process.

    Callers that name the same model and options share one reranker and its weights, which are freed when the last of
    them drops it. Closing it closes it for all of them. `Reranker.load` and `RemoteReranker` create a private one.

    Args:
        model_or_url: hub id or path of a folder; or a server's url, with the model that it serves as `model`.
        **options: see `OpenOptions`. Different options open a different reranker; the token is ignored.

    Raises:
        OnelogitError: as `Reranker.load` and `RemoteReranker`.
    """
    return open_spec(ModelSpec.of(model_or_url, options))


def open_spec(spec: ModelSpec) -> AnyReranker:
    """Like `open_reranker`, for a `ModelSpec`."""
    return _opening_of(spec).result()


async def aopen_spec(spec: ModelSpec) -> AnyReranker:
    """`open_spec` without blocking the event loop. Cancelling it does not affect other callers."""
    waiting = asyncio.wrap_future(_opening_of(spec))
    waiting.add_done_callback(lambda done: done.cancelled() or done.exception())  # or asyncio logs unread errors
    return await asyncio.shield(waiting)


def find_reranker(model_or_url: str, options: OpenOptions) -> AnyReranker | None:
    """The reranker that `open_reranker` would return without opening one, or None."""
    return find_spec(ModelSpec.of(model_or_url, options))


def find_spec(spec: ModelSpec) -> AnyReranker | None:
    """The reranker that `open_spec` would return without loading one, or None."""
    reranker = _open_rerankers.get(spec)
    return None if reranker is None or reranker.is_closed else reranker


def _opening_of(spec: ModelSpec) -> Future[AnyReranker]:
    """A future for the reranker, which is opened in its own thread, so that no caller's thread is blocked."""
    key = (spec, spec.options.get("token"))
    with _lock:
        reranker = find_spec(spec)
        if reranker is None and key in _opening:
            return _opening[key]
        future: Future[AnyReranker] = Future()
        if reranker is not None:
            future.set_result(reranker)
            return future
        _opening[key] = future
    threading.Thread(target=_open, args=(spec, key, future), name="onelogit-opening", daemon=True).start()
    return future


def _open(spec: ModelSpec, key: object, future: Future[AnyReranker]) -> None:
    try:
        reranker = _load(spec)
    except BaseException as error:
        _opening.pop(key, None)
        future.set_exception(error)
        return
    with _lock:
        _open_rerankers[spec] = reranker
        _opening.pop(key, None)
    future.set_result(reranker)


def _load(spec: ModelSpec) -> AnyReranker:
    if spec.url is not None:
        from onelogit.remote.reranker import RemoteReranker  # noqa: PLC0415  loads an HTTP client

        return RemoteReranker(spec)
    from onelogit.local.reranker import Reranker  # noqa: PLC0415  loads torch

    return Reranker.load(spec)


run_in_forked_children(_opening.clear)  # the threads that open rerankers exist only in the parent
