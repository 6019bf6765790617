"""A model or server with its options -> a ModelSpec: checked once, hashable, passed to everything that opens it."""

import os
import re
from collections.abc import Hashable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self, cast, get_args
from urllib.parse import unquote

from onelogit.endpoint import checked_endpoint
from onelogit.errors import InputError
from onelogit.option_checks import (
    check_cache_sizes,
    check_quantization,
    checked_options,
    plain_options,
    without_secrets,
)
from onelogit.options import (
    DEFAULT_PROTOCOL,
    LoadOptions,
    OpenOptions,
    Quantization,
    RemoteOptions,
    TokenProtocol,
    TruncatingProtocol,
    is_url,
)
from onelogit.recipes.lookup import recipe_of
from onelogit.recipes.recipe import recipe_fields
from onelogit.validation import checked_path

_MODEL_PAGE = re.compile(r"(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/([\w.-]+/[\w.-]+)")
_PATH = re.compile(r"/([\w.~!$&'()*+,;=:@%-]+/)*[\w.~!$&'()*+,;=:@%-]*", re.ASCII)


@dataclass(frozen=True, eq=False)
class ModelSpec:
    """Which reranker to open: a local model or a server, with options, which the constructor checks. Hashable.

    Specs are equal if they name the same model or server with the same options; the hub token is ignored. A relative
    path names the same folder for the whole life of a spec and its pickles, even if the working directory changes.
    Pickles contain all options, secrets included.

    Attributes:
        model: hub id or path of a folder; None for a server whose model is not named.
        url: of a server that serves the model; None for a local model.
        options: the options that are not None: of `LoadOptions`, or with a `url` of `RemoteOptions`.
        base: the folder in which relative paths begin; by default the working directory. Not shown by `repr`.

    Raises:
        InputError: the model is not a string or path and there is no url, or it is a url; or an option is unknown, out
            of range, does not apply, or contradicts another; or the url or a secret cannot be sent.
        RecipeError: the recipe is of an unknown family, or has a wrong field.
    """

    model: str | None
    url: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    base: str | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if self.url is None and not isinstance(self.model, str | os.PathLike):
            raise InputError(f"the model must be a hub id or a path, not a {type(self.model).__name__}")
        if isinstance(self.model, str) and not self.model.strip():
            raise InputError(f"the model's name is empty ({self.model!r}); it must be a hub id or a path")
        if self.url is not None and not str(self.url).strip():
            raise InputError(f"the url is empty ({self.url!r}); leave it out, or set it to None, for a local model")
        for name in (self.model, self.url):
            if isinstance(name, str) and (page := _MODEL_PAGE.match(name)):
                raise InputError(f"{name} is a page of the hub, not a server; give the model's id, {page.group(1)!r}")
        if is_url(self.model):
            raise InputError(
                "the model is the url of a server; use RemoteReranker(url, model), or open_reranker(url, model=...), "
                "with the name of the model that it serves"
            )
        object.__setattr__(self, "model", None if self.model is None else os.fspath(self.model))
        options = {name: value for name, value in checked_options(self.options).items() if value is not None}
        kind, advice = (
            (RemoteOptions, "a server: leave it out")
            if self.url is not None
            else (LoadOptions, "a local model: use RemoteReranker or give a url")
        )
        for name in options.keys() - kind.__annotations__:
            raise InputError(f"{name!r} is not an option of {advice}")
        if self.url is None:
            check_cache_sizes(options)
            check_quantization(options)
        else:
            checked_endpoint(self.url, options.get("api_key"), options.get("headers"))
            _check_server_options(options, has_model=self.model is not None)
        object.__setattr__(self, "options", MappingProxyType(options))
        if self.base is None:
            with suppress(OSError):  # the working directory was removed
                object.__setattr__(self, "base", os.getcwd())  # noqa: PTH109

    @classmethod
    def of(
        cls, model_or_url: "str | os.PathLike[str] | Self", options: OpenOptions, *, base: str | None = None
    ) -> Self:
        """The spec for the arguments of `open_reranker`: a server's url may be given as the model or as `url`."""
        if isinstance(model_or_url, cls) and options:
            raise InputError(f"a spec already contains its options; put {', '.join(options)} into the spec")
        if isinstance(model_or_url, cls):
            return model_or_url
        given = cast("dict[str, Any]", dict(options))
        url, model = given.pop("url", None), given.pop("model", None)
        kind, other = ("servers", url) if is_url(model_or_url) else ("models", model)
        if other is not None and other != model_or_url:
            raise InputError(f"two {kind} are named, {model_or_url!r} and {other!r}; leave one out")
        if is_url(model_or_url):
            return cls(model, str(model_or_url), given, base=base)
        return cls(model_or_url, url, given, base=base)  # type: ignore[arg-type]

    @property
    def name(self) -> str:
        """The model's id or path; the server's url if no model is named."""
        return str(self.url if self.model is None else self.model)

    @property
    def base_folder(self) -> Path:
        """The folder in which relative paths begin."""
        return Path(self.base or "")

    @property
    def folder(self) -> Path | None:
        """The model's local folder, as an absolute path; None for a model on the hub, and if there is no such folder.

        Raises:
            InputError: the model's name begins with an unknown user's home.
        """
        return None if not self.model else self._local(self.model)

    @property
    def base_model_folder(self) -> Path | None:
        """The local folder of the option `base_model`, as an absolute path; None for a hub id, or if it is not given.

        Raises:
            InputError: as `folder`.
        """
        name = self.options.get("base_model")
        return None if name is None else self._local(os.fspath(name))

    def _local(self, name: str) -> Path | None:
        folder = self.base_folder / checked_path(name)
        return folder if os.path.isdir(folder) else None  # noqa: PTH112  False for any string

    @property
    def open_options(self) -> OpenOptions:
        """The options to pass to `open_reranker` together with `name`."""
        url = {} if self.model is None or self.url is None else {"url": self.url}
        return cast("OpenOptions", {**self.options, **url})

    @property
    def quantization(self) -> Quantization | None:
        """Of the option `quantization`; None for exact weights, and for a server."""
        return cast("Quantization | None", self.options.get("quantization"))

    def with_quantization(self, quantization: str | None) -> "ModelSpec":
        """The spec of the same local model with another quantisation; raises InputError as the constructor."""
        return ModelSpec(self.model, None, {**self.options, "quantization": quantization}, base=self.base)

    @property
    def load_options(self) -> LoadOptions:
        return cast("LoadOptions", dict(self.options))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ModelSpec) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    @cached_property
    def key(self) -> tuple[object, ...]:
        """The values that equal specs share: url, model, and all options except the token."""
        return self._key_without("token")

    def is_same_model(self, other: "ModelSpec") -> bool:
        """Whether both name the same model and options; token and API key are ignored."""
        return self._key_without("token", "api_key") == other._key_without("token", "api_key")

    def __repr__(self) -> str:
        shown = dict(without_secrets(cast("OpenOptions", self.options)))
        return f"ModelSpec(model={self.model!r}, url={self.url!r}, options={shown!r})"

    def __reduce__(self) -> "tuple[partial[Self], tuple[str | None, str | None, dict[str, Any]]]":
        remake = partial(type(self), base=self.base)
        return remake, (self.model, self.url, dict(self.options))  # a read-only mapping cannot be pickled

    def _key_without(self, *names: str) -> tuple[object, ...]:
        plain = plain_options(cast("OpenOptions", self.options))
        if (recipe := recipe_of(plain.get("recipe"))) is not None:
            plain = {**plain, "recipe": recipe_fields(recipe)}
        with suppress(InputError):
            if (base_model := self.base_model_folder) is not None:
                plain = {**plain, "base_model": str(base_model)}
        given = {
            name: value
            for name, value in plain.items()
            if (value is not False or name == "raw_logits") and name not in names  # False is not its default
        }
        return self.url, self._model_key, _hashable(given)

    @cached_property
    def _model_key(self) -> str | None:
        try:
            folder = self.folder
        except InputError:  # raised when the model is opened
            folder = None
        return self.model if folder is None else str(folder)


def _check_server_options(options: Mapping[str, Any], *, has_model: bool) -> None:
    """Raise InputError if a server's options contradict each other, or `path` is invalid."""
    protocol = options.get("protocol") or DEFAULT_PROTOCOL
    template = options.get("template")
    sends_tokens = protocol in get_args(TokenProtocol)
    if sends_tokens and template not in (None, "client"):
        raise InputError(f"protocol={protocol!r} sends token ids, so template must be 'client', not {template!r}")
    if not sends_tokens and template not in ("client", "server"):
        raise InputError(
            f"protocol={protocol!r} sends texts, so template must be 'client' to send whole prompts, or 'server' "
            f"if the server applies the model's chat template, not {template!r}"
        )
    can_cut = protocol in get_args(TruncatingProtocol) and options.get("long_documents") == "cut"
    for name in ("max_tokens", "long_documents"):
        if template == "server" and not has_model and name in options and not (can_cut and name == "long_documents"):
            raise InputError(
                f"{name} needs the model's tokenizer, because the server writes the prompts; pass the model's hub id "
                f"or folder as model, or leave {name} out"
            )
    check_single_activation(options.get("activation"), is_raw=options.get("raw_logits") is not False)
    _check_path(options.get("path"))


def check_single_activation(activation: str | None, *, is_raw: bool) -> None:
    """Raise InputError if a server's scores, which are not raw logits, would be activated a second time."""
    if not is_raw and activation == "sigmoid":
        raise InputError(
            "the server's scores are used as they are (raw_logits=False), so activation='sigmoid' would be applied "
            "to scores; leave it out"
        )


def _check_path(path: object) -> None:
    if path is None:
        return
    is_path = isinstance(path, str) and _PATH.fullmatch(path)
    if not is_path or {".", ".."} & {*unquote(str(path)).split("/")}:
        raise InputError(f"path must be the path of the requests below the url, such as '/v1/rerank', not {path!r}")


def _hashable(value: object) -> object:
    """The value with frozen containers, and the repr of what has no hash. Equal numbers of any types stay equal."""
    if isinstance(value, Mapping):
        return frozenset((name, _hashable(inner)) for name, inner in value.items())
    if isinstance(value, list | tuple):
        return tuple(map(_hashable, value))
    return value if isinstance(value, Hashable) else repr(value)
