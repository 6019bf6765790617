"""A ModelSpec -> its reranker, opened once in a process and shared by all callers that open the same spec.

Loads torch only when a local model is opened.
"""

import asyncio
import threading
from collections.abc import Hashable
from typing import TYPE_CHECKING, Union
from weakref import WeakValueDictionary

from typing_extensions import Unpack

from onelogit.errors import CheckpointError, OnelogitError
from onelogit.model_spec import ModelSpec
from onelogit.options import OpenOptions
from onelogit.processes import new_lock, paused_collection, run_in_forked_children
from onelogit.threads import Outcome, start_thread

if TYPE_CHECKING:
    from onelogit.checkpoints.model_state import ModelFiles
    from onelogit.local.reranker import Reranker
    from onelogit.remote.reranker import RemoteReranker

AnyReranker = Union["Reranker", "RemoteReranker"]

_MAX_LOADS = 3  # of a model whose files change meanwhile

# Weak, so that the weights are freed when the last user drops its reranker.
_open_rerankers: WeakValueDictionary[Hashable, AnyReranker] = WeakValueDictionary()
_opening: dict[Hashable, Outcome[AnyReranker]] = {}
_lock = new_lock()


def open_reranker(model_or_url: str, /, **options: Unpack[OpenOptions]) -> AnyReranker:
    """The reranker of a local model or a server, opened once per process.

    Callers that name the same model and options share one reranker and its weights, which are freed when the last of
    them drops it. Closing it closes it for all of them. `Reranker.load` and `RemoteReranker` create a private one.
    A model is the same if its files are: if a folder, what a symlink points to, or the revision in the hub's cache has
    changed since the reranker was opened, this opens the new model; a reranker that is open never changes.

    Args:
        model_or_url: hub id or path of a folder; or a server's url, with the model that it serves as `model`.
        **options: see `OpenOptions`. Different options open a different reranker; the token is ignored.

    Raises:
        OnelogitError: as `Reranker.load` and `RemoteReranker`.
        CheckpointError: the model's files change each time that they are read.
    """
    return open_spec(ModelSpec.of(model_or_url, options))


def open_spec(spec: ModelSpec) -> AnyReranker:
    """Like `open_reranker`, for a `ModelSpec`."""
    return _opening_of(spec).result()


async def aopen_spec(spec: ModelSpec) -> AnyReranker:
    """`open_spec` without blocking the event loop. Cancelling it does not affect other callers."""
    opening = await asyncio.to_thread(_opening_of, spec)
    try:
        return await opening.aresult()
    finally:
        del opening  # an error refers to this frame, and to those that hold weights


def find_spec(spec: ModelSpec) -> AnyReranker | None:
    """The reranker that `open_spec` would return without loading one, or None."""
    return _find(_key(spec, files_of(spec).state()))


def files_of(spec: ModelSpec) -> "ModelFiles":
    """The model's files, whose state differs once they have changed."""
    from onelogit.checkpoints.model_state import ModelFiles  # noqa: PLC0415  loads the hub's client

    return ModelFiles(spec)


def _find(key: Hashable) -> AnyReranker | None:
    reranker = _open_rerankers.get(key)
    return None if reranker is None or reranker.is_closed else reranker


def _key(spec: ModelSpec, state: Hashable) -> Hashable:
    """Equal for the same files, however their folder is spelled; but the folder's name may determine the recipe."""
    url, model, options = spec.key
    folder = None if state is None else spec.folder
    return url, model if folder is None else folder.name, options, state


def _opening_of(spec: ModelSpec) -> Outcome[AnyReranker]:
    """The reranker, which is opened in its own thread, so that no caller's thread is blocked."""
    own_key = _key(spec, files_of(spec).state())
    key = (own_key, spec.options.get("token"))
    with _lock:
        reranker = _find(own_key)
        if reranker is None and key in _opening:
            return _opening[key]
        outcome: Outcome[AnyReranker] = Outcome()
        if reranker is not None:
            outcome.set_result(reranker)
            return outcome
        thread = threading.Thread(target=_open, args=(spec, key, outcome), name="onelogit-opening", daemon=True)
        start_thread(thread)
        _opening[key] = outcome
    return outcome


def _open(spec: ModelSpec, key: Hashable, outcome: Outcome[AnyReranker]) -> None:
    with _lock:
        if _opening.get(key) is not outcome:
            return  # Ctrl-C ended the call that started this thread, and nobody waits for it
    try:
        reranker, state = _load_unchanged(spec)
    except BaseException as error:
        _opening.pop(key, None)
        outcome.set_error(error)
        del outcome  # the error refers to this frame, and to those that hold weights
        return
    with _lock:
        _open_rerankers[_key(spec, state)] = reranker
        _opening.pop(key, None)
    outcome.set_result(reranker)


def _load_unchanged(spec: ModelSpec) -> tuple[AnyReranker, Hashable]:
    """The reranker, and the state of its files before and after they were read; read again if these differ."""
    for _ in range(_MAX_LOADS):
        before = files_of(spec).state()
        try:
            reranker = _load(spec)
        except OnelogitError:
            if before is None or before == files_of(spec).state():
                raise
            continue
        after = files_of(spec).state()
        if before in (None, after):  # None: it was not downloaded yet
            return reranker, after
        reranker.close()
    raise CheckpointError(
        f"the files of {spec.name} changed while they were read, {_MAX_LOADS} times; open the model again once they "
        "are complete, or write them to another folder and rename that"
    )


def _load(spec: ModelSpec) -> AnyReranker:
    if spec.url is not None:
        from onelogit.remote.reranker import RemoteReranker  # noqa: PLC0415  loads an HTTP client

        return RemoteReranker(spec)
    with paused_collection():
        from onelogit.local.reranker import Reranker  # noqa: PLC0415  loads torch
    return Reranker.load(spec)


run_in_forked_children(_opening.clear)  # the threads that open rerankers exist only in the parent
