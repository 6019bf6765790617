"""The most used options of a model, as parameters of every adapter of their own, and the check of all parameters.

To add one: its name and type here, twice, and a line in the tables of the READMEs.
"""

from collections.abc import Collection, Mapping
from typing import Any, cast

from typing_extensions import TypedDict, dataclass_transform

from onelogit.adapters.plain import plain_options
from onelogit.option_names import unknown_option
from onelogit.options import LongDocuments, OpenOptions
from onelogit.recipes.recipe import Recipe


class ModelParameters(TypedDict, total=False):
    """The parameters, as keyword arguments of a constructor; see `onelogit.LoadOptions`.

    Attributes:
        max_tokens: maximum length of a prompt, in tokens.
        long_documents: "cut" or "chunk_max": what to read of a document that does not fit.
        batch_tokens: maximum tokens in one forward pass.
        document_cache_bytes: memory that keeps keys and values between calls.
        quantization_config: a configuration of transformers, or its fields.
        trust_remote_code: allow the checkpoint's own Python code to run.
        recipe: the name of a family, a `Recipe`, or its fields.
        revision: branch, tag or commit of a model on the hub.
    """

    max_tokens: int | None
    long_documents: LongDocuments | None
    batch_tokens: int | None
    document_cache_bytes: int | None
    quantization_config: Any
    trust_remote_code: bool | None
    recipe: Recipe | dict[str, Any] | str | None
    revision: str | None


@dataclass_transform(kw_only_default=True)
class _Fields:
    """Tells type checkers that a subclass's annotations are arguments of the constructor, as pydantic makes them."""


class ModelFields(_Fields):
    """`ModelParameters` as fields: a base for the pydantic models of frameworks. It needs no pydantic itself."""

    max_tokens: int | None = None
    long_documents: LongDocuments | None = None
    batch_tokens: int | None = None
    document_cache_bytes: int | None = None
    quantization_config: Any = None
    trust_remote_code: bool | None = None
    recipe: Recipe | dict[str, Any] | str | None = None
    revision: str | None = None


def adapter_fields(given: Mapping[str, Any], known: Collection[str]) -> dict[str, Any]:
    """The arguments of an adapter's constructor, with `ModelParameters` as plain data of their types.

    Args:
        given: the arguments by name.
        known: the names that the constructor has.

    Raises:
        InputError: a name is unknown, with what is meant; or an option is malformed, or contains what is no plain data.
    """
    check_names(given, known)
    parameters = {name: given[name] for name in ModelParameters.__annotations__ if given.get(name) is not None}
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
