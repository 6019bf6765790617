"""A model's or a server's name and options -> its reranker, the same one for all who name the same.

Loads no torch until it is called, and none for a server.
"""

import threading
from typing import TYPE_CHECKING, NamedTuple, Union, cast
from weakref import WeakValueDictionary

from typing_extensions import Unpack

from onelogit.errors import InputError
from onelogit.options import LoadOptions, OpenOptions, RemoteOptions, check_place, is_url, plain_options

if TYPE_CHECKING:
    from onelogit.remote import RemoteReranker
    from onelogit.reranker import Reranker

AnyReranker = Union["Reranker", "RemoteReranker"]

# Weak: the weights go when the last user lets go of its reranker.
_open_rerankers: WeakValueDictionary[object, AnyReranker] = WeakValueDictionary()
_lock = threading.Lock()


def open_reranker(model_or_url: str, /, **options: Unpack[OpenOptions]) -> AnyReranker:
    """The reranker of a model, or of a server, opened once per process however many ask for it.

    Callers that name the same model and options share one set of weights for as long as one of them keeps the
    reranker. `Reranker.load` and `RemoteReranker` give a private one instead.

    Args:
        model_or_url: hub id or path of a folder; or a server's address, and then the model it serves as `model`.
        **options: see `OpenOptions`.

    Raises:
        OnelogitError: as `Reranker.load` and `RemoteReranker`.
    """
    if (reranker := find_reranker(model_or_url, options)) is not None:
        return reranker
    with _lock:
        reranker = find_reranker(model_or_url, options)  # somebody may have opened it meanwhile
        if reranker is None:
            reranker = _open_rerankers[_key(model_or_url, options)] = _open(_named(model_or_url, options))
        return reranker


def find_reranker(model_or_url: str, options: OpenOptions) -> AnyReranker | None:
    """The reranker that `open_reranker` would give without loading one; None where it is not open."""
    reranker = _open_rerankers.get(_key(model_or_url, options))
    return None if reranker is None or reranker.is_closed else reranker


def is_named(reranker: AnyReranker, model_or_url: str, options: OpenOptions) -> bool:
    """Whether a reranker is what these name; secrets do not count, for they change no model."""
    secrets: OpenOptions = {"token": None, "api_key": None}
    mine = _key(reranker.name, cast("OpenOptions", {**reranker.options, **secrets}))
    return mine == _key(model_or_url, {**options, **secrets})


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


def _open(named: _Named) -> AnyReranker:
    if named.url is not None:
        from onelogit.remote import RemoteReranker  # noqa: PLC0415  transformers' tokenizers, and HTTP

        return RemoteReranker(named.url, named.model, **cast("RemoteOptions", named.options))
    from onelogit.reranker import Reranker  # noqa: PLC0415  this is where torch is loaded

    return Reranker.load(cast("str", named.model), **cast("LoadOptions", named.options))


def _key(model_or_url: str, options: OpenOptions) -> object:
    url, model, given = _named(model_or_url, options)
    # By identity: 0 equals False, but is a value, and a wrong one.
    return url, model, _frozen({name: value for name, value in given.items() if value is not False})


def _frozen(value: object) -> object:
    """The value, with dictionaries in it as sets of pairs, so that it can be a key."""
    if isinstance(value, dict):
        return frozenset((name, _frozen(inner)) for name, inner in value.items())
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
