"""An adapter's arguments -> checked and plain; its fields -> `OpenOptions`. Declares the options that are parameters.

To add a parameter: its name and type here, twice, and a line in the tables of the READMEs.
"""

import os
import re
from collections.abc import Collection, Mapping
from typing import Annotated, Any, cast

from typing_extensions import TypedDict, dataclass_transform

from onelogit.adapters.plain import plain_options
from onelogit.errors import InputError
from onelogit.option_checks import without_secrets
from onelogit.option_names import unknown_option
from onelogit.options import LongDocuments, OpenOptions, Quantization, is_secret_header, is_url
from onelogit.recipes.recipe import Recipe
from onelogit.registry import AnyReranker


class ModelParameters(TypedDict, total=False):
    """The parameters, as keyword arguments of a constructor; see `onelogit.LoadOptions`.

    Attributes:
        max_tokens: maximum length of a prompt, in tokens.
        long_documents: "cut" or "chunk_max": what to read of a document that does not fit.
        batch_tokens: maximum tokens in one forward pass.
        document_cache_bytes: memory that keeps keys and values between calls.
        quantization: "int8": approximate but faster, on a CPU.
        quantization_config: a configuration of transformers, or its fields.
        trust_remote_code: allow the checkpoint's own Python code to run.
        recipe: the name of a family, a `Recipe`, its fields, or a JSON file with them.
        revision: branch, tag or commit of a model on the hub.
    """

    max_tokens: int | None
    long_documents: LongDocuments | None
    batch_tokens: int | None
    document_cache_bytes: int | None
    quantization: Quantization | None
    quantization_config: Any
    trust_remote_code: bool | None
    recipe: Recipe | dict[str, Any] | str | os.PathLike[str] | None
    revision: str | None


@dataclass_transform(kw_only_default=True)
class _Fields:
    """Tells type checkers that a subclass's annotations are arguments of the constructor, as pydantic makes them."""


class _Unchanged:
    """Tells pydantic to keep a field's value: of a dictionary that is checked already, it would make a Recipe."""

    def __get_pydantic_core_schema__(self, source: object, handler: Any) -> Any:
        return handler.generate_schema(Any)


class ModelFields(_Fields):
    """`ModelParameters` as fields: a base for the pydantic models of frameworks. It needs no pydantic itself."""

    max_tokens: int | None = None
    long_documents: LongDocuments | None = None
    batch_tokens: int | None = None
    document_cache_bytes: int | None = None
    quantization: Quantization | None = None
    quantization_config: Any = None
    trust_remote_code: bool | None = None
    recipe: Annotated[Recipe | dict[str, Any] | str | os.PathLike[str] | None, _Unchanged()] = None
    revision: str | None = None


PARAMETERS = ("device", "dtype", "url", "protocol", *ModelParameters.__annotations__)
"""The options that are parameters of every adapter, except secrets."""


def keep_recipe_plain(adapter: Any) -> None:
    """Turn a Recipe in the options of a pydantic model, which makes one of a dictionary, into data that it can dump."""
    if isinstance(adapter.options.get("recipe"), Recipe):
        adapter.options = plain_options(adapter.options)


def adapter_fields(given: Mapping[str, Any], known: Collection[str]) -> dict[str, Any]:
    """The arguments of an adapter's constructor, with those that are options checked, and plain data of their types.

    Args:
        given: the arguments by name.
        known: the names that the constructor has.

    Raises:
        InputError: a name is unknown, with what is meant; or an option is malformed, or contains what is no plain data.
        RecipeError: the recipe is of an unknown family, or has a wrong field.
    """
    check_names(given, known)
    parameters = {name: given[name] for name in PARAMETERS if given.get(name) is not None}
    return {**given, **plain_options(cast("OpenOptions", parameters))}


def check_names(given: Collection[str], known: Collection[str], *, is_call: bool = False) -> None:
    """Check the names of arguments.

    Args:
        given: of an adapter's constructor, or of a call.
        known: those that it has.
        is_call: whether they are a call's.

    Raises:
        InputError: a name is unknown; the message says what is meant, and where it belongs.
    """
    say = "{name} is set when the adapter is created" if is_call else "{name} belongs in options={{'{name}': ...}}"
    for name in given:
        if name not in known:
            raise unknown_option(name, known, {say: OpenOptions.__annotations__})


def adapter_options(adapter: Any, *, token: str | None = None, api_key: str | None = None) -> OpenOptions:
    """The options of an adapter, merged with the options that are separate parameters of it.

    Args:
        adapter: with attributes `options`, `device`, `dtype`, `url` and `protocol`, and any of `ModelParameters`.
        token: the adapter's own parameter.
        api_key: the adapter's own parameter.

    Raises:
        InputError: an option is given in both places, or the url or options hold a secret, which dumps would contain.
    """
    options: OpenOptions = adapter.options
    for name in ("token", "api_key"):
        if options.get(name) is not None:
            raise InputError(f"{name} in the options would be written into dumps; pass it as {name}=, which is not")
    for address in filter(is_url, (adapter.model, adapter.url, options.get("url"))):
        if re.search(r"//[^/]*@|[?#]", address):
            raise InputError(
                "the url contains a user name, password or query, which would be written into dumps; pass the server's "
                "root as the url and a bearer token as api_key="
            )
    for header in [name for name, value in (options.get("headers") or {}).items() if is_secret_header(name, value)]:
        raise InputError(
            f"the header {header} in the options would be written into dumps; pass a bearer token as api_key=, which "
            "is not, or pass any other secret to a RemoteReranker and use from_reranker"
        )
    parameters = {**{name: getattr(adapter, name, None) for name in PARAMETERS}, "token": token, "api_key": api_key}
    given = {name: value for name, value in parameters.items() if value is not None}
    for name in given:
        if options.get(name) is not None:
            raise InputError(f"{name} is given twice, as a parameter and in the options; leave one out")
    return cast("OpenOptions", {**options, **given})


def uses_server(adapter: Any) -> bool:
    """Whether an adapter's fields name a server, in any of the places that `ModelSpec.of` accepts."""
    return is_url(adapter.model) or adapter.url is not None or adapter.options.get("url") is not None


def fields_of(reranker: AnyReranker, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of an adapter that uses an existing reranker.

    Args:
        reranker: the caller remains responsible for closing it.
        fields: further fields, about ranking.

    Raises:
        InputError: a field is given that the reranker determines.
    """
    for name in ("model", "options", *PARAMETERS, "token", "api_key"):
        if name in fields:
            raise InputError(f"{name} cannot be set: from_reranker takes it from the given reranker")
    return {**fields, "model": reranker.name, "options": without_secrets(reranker.options)}
