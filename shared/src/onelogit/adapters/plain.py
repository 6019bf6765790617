"""The value of an adapter's field, or metadata -> plain data, which every framework can dump and load."""

import os
from collections.abc import Mapping
from enum import Enum
from typing import Any, cast

from yaml.representer import Representer, SafeRepresenter

from onelogit import option_checks
from onelogit.errors import InputError
from onelogit.io.nested_json import MAX_DEPTH, NestingError, check_depth
from onelogit.options import OpenOptions

_OBJECTS = ("recipe", "quantization_config")  # options that may be objects, which their checks turn into plain data


def plain(value: Any, name: str = "it") -> Any:
    """The value as a string, number, list or dictionary, or None.

    Paths, torch dtypes and torch devices become strings; numpy numbers become Python numbers.

    Args:
        value: of a field.
        name: of the field, for the error.

    Raises:
        InputError: the value, or one inside it, is of another type, or in too many others; the message does not
            contain it.
    """
    try:
        data = _plain(value, name)
        check_depth(data)
    except (NestingError, RecursionError):
        raise InputError(f"{name} is nested more than {MAX_DEPTH} levels deep, which cannot be dumped") from None
    return data


def _plain(value: Any, name: str) -> Any:
    if isinstance(value, Mapping):
        return {_plain(key, name): _plain(inner, name) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner, name) for inner in value]
    value = _python_value(value)
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return value if type(value) is kind else kind(value)
    if value is None:
        return None
    found = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
    raise InputError(
        f"{name} contains a {found}, which cannot be dumped; pass strings, numbers, lists and dictionaries"
    )


def _python_value(value: Any) -> Any:
    library = type(value).__module__.partition(".")[0]
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if library == "numpy" and getattr(value, "ndim", None) == 0 and hasattr(value, "item"):  # not numpy.dtype
        return value.item()
    if library == "torch" and type(value).__name__ in ("dtype", "device"):
        return str(value).removeprefix("torch.")
    return value


class MetadataDict(dict[str, Any]):
    """The base of dictionaries for the metadata of documents: YAML writes them as it writes a dictionary."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for kind in (Representer, SafeRepresenter):
            kind.add_representer(cls, SafeRepresenter.represent_dict)


def plain_options(given: OpenOptions) -> OpenOptions:
    """The options that are not None, as plain data.

    Raises:
        InputError: an option is unknown or malformed, or contains what is no plain data.
    """
    option_checks.check_names(given)
    known = {name: value if name in _OBJECTS else plain(value, f"the option {name}") for name, value in given.items()}
    checked = option_checks.plain_options(cast("OpenOptions", known))
    return cast("OpenOptions", {name: plain(value, f"the option {name}") for name, value in checked.items()})
