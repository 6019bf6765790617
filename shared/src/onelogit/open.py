"""A model's name and options -> its reranker, the same one for all who name the same. Loads no torch until called."""

import threading
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from typing_extensions import Unpack

from onelogit.options import LoadOptions, plain_options

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
    if (reranker := find_reranker(model, options)) is not None:
        return reranker
    from onelogit.reranker import Reranker  # noqa: PLC0415  this is where torch is loaded

    with _lock:
        reranker = find_reranker(model, options)  # somebody may have opened it meanwhile
        if reranker is None:
            reranker = _open_rerankers[_key(model, options)] = Reranker.load(model, **options)
        return reranker


def find_reranker(model: str, options: LoadOptions) -> "Reranker | None":
    """The reranker that `open_reranker` would give without loading one; None where it is not open."""
    reranker = _open_rerankers.get(_key(model, options))
    return None if reranker is None or reranker.is_closed else reranker


def is_named(reranker: "Reranker", model: str, options: LoadOptions) -> bool:
    """Whether a reranker is what these name; the token does not count, for it does not change a model."""
    mine, theirs = ({**each, "token": None} for each in (reranker.options, options))
    return _key(reranker.name, mine) == _key(model, theirs)  # type: ignore[arg-type]


def _key(model: str, options: LoadOptions) -> tuple[str, object]:
    # By identity: 0 equals False, but is a value, and a wrong one.
    return model, _frozen({name: value for name, value in plain_options(options).items() if value is not False})


def _frozen(value: object) -> object:
    """The value, with dictionaries in it as sets of pairs, so that it can be a key."""
    if isinstance(value, dict):
        return frozenset((name, _frozen(inner)) for name, inner in value.items())
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
