"""A model's name and options -> its reranker, the same one for all who name the same. Loads no torch until called."""

import threading
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from typing_extensions import Unpack

from onelogit.options import LoadOptions

if TYPE_CHECKING:
    from onelogit.reranker import Reranker

# Weak: the weights go when the last user lets go of its reranker.
_open_rerankers: "WeakValueDictionary[object, Reranker]" = WeakValueDictionary()
_lock = threading.Lock()


def open_reranker(model: str, **options: Unpack[LoadOptions]) -> "Reranker":
    """The reranker of a model, loaded once per process however many ask for it.

    Callers that name the same model and options share one set of weights for as long as one of them keeps the
    reranker. `Reranker.load` gives a private one instead.

    Args:
        model: hub id or path of a folder.
        **options: see `LoadOptions`.

    Raises:
        OnelogitError: as `Reranker.load`.
    """
    from onelogit.reranker import Reranker  # noqa: PLC0415  this is where torch is loaded

    # By identity: 0 equals False, but is a value, and a wrong one.
    given = {name: value for name, value in options.items() if value is not None and value is not False}
    key = (model, _frozen(given))
    reranker = _open_rerankers.get(key)
    if reranker is not None and not reranker.is_closed:
        return reranker
    with _lock:
        reranker = _open_rerankers.get(key)
        if reranker is None or reranker.is_closed:
            reranker = Reranker.load(model, **options)
            _open_rerankers[key] = reranker
        return reranker


def _frozen(value: object) -> object:
    """The value, with dictionaries in it as sets of pairs, so that it can be a key."""
    if isinstance(value, dict):
        return frozenset((name, _frozen(inner)) for name, inner in value.items())
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
