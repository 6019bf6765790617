"""Options by name -> the same options: texts read as what they mean, all checked as far as that needs no torch."""

import json
import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, cast, get_args

from onelogit.errors import InputError
from onelogit.option_names import unknown_option
from onelogit.option_values import (
    MAP_DEVICES,
    checked_device,
    checked_dtype,
    checked_flag,
    flag,
    real_number,
    whole_number,
)
from onelogit.options import LongDocuments, OpenOptions, Protocol, Quantization, Template, is_secret_header
from onelogit.recipes.lookup import is_recipe_file, read_recipe_file, recipe_of
from onelogit.recipes.recipe import Activation, Recipe, recipe_fields
from onelogit.validation import checked_choice, checked_count, checked_text

_PATHS = {"cache_dir": "the path of a folder", "base_model": "a hub id or the path of a folder"}
_NOT_BLANK = ("revision", "served_name", "attn_implementation")
_ARGUMENTS = {"{name} is an argument of rank, and a parameter of adapters": ("top_n", "score_threshold", "progress")}


def check_names(options: Mapping[str, object], kind: type = OpenOptions) -> None:
    """Check the names of options.

    Raises:
        InputError: they are no dictionary, or one is unknown; the message says what is meant.
    """
    if not isinstance(options, Mapping):
        raise InputError(f"options must be a dictionary, not {options!r}")
    known = kind.__annotations__
    for name in options.keys() - known:
        raise unknown_option(name, known, _ARGUMENTS)


def checked_options(options: Mapping[str, object], kind: type = OpenOptions) -> dict[str, Any]:
    """The options; texts, as in the environment or YAML, become what they mean, and a recipe's file its content.

    Args:
        options: of `kind`. None means the default, and is returned as it is.
        kind: the TypedDict that names them.

    Raises:
        InputError: an option is unknown, or its value is of a wrong type, out of range, or no known choice.
        RecipeError: the recipe's family is unknown, or one of its fields is wrong.
    """
    check_names(options, kind)
    known = kind.__annotations__
    return {name: None if value is None else _checked(name, value, known[name]) for name, value in options.items()}


def check_cache_sizes(options: Mapping[str, object]) -> None:
    """Check that a cache in CPU memory, which keeps what the device evicts, comes with a cache on the device.

    Raises:
        InputError: it does not.
    """
    if options.get("document_cache_host_bytes") and not options.get("document_cache_bytes"):
        raise InputError("document_cache_host_bytes is for evicted documents, so it needs document_cache_bytes, too")


def check_quantization(options: Mapping[str, object]) -> None:
    """Check that a quantisation by onelogit, which is for CPUs, is not combined with what it excludes.

    Raises:
        InputError: there is a quantization_config, a device_map, or a device other than a CPU.
    """
    wanted, device = options.get("quantization"), options.get("device")
    if wanted is None:
        return
    for other in ("quantization_config", "device_map"):
        if options.get(other) is not None:
            raise InputError(f"quantization={wanted!r} and {other} exclude each other; leave one out")
    if device is not None and str(device).partition(":")[0] != "cpu":
        raise InputError(
            f"quantization={wanted!r} computes on a CPU, not on device={str(device)!r}; pass device='cpu', or leave "
            "quantization out"
        )


def _checked(name: str, value: object, kind: object) -> object:
    check = _BY_NAME.get(name) or _BY_TYPE.get(kind)
    return value if check is None else check(name, value)


def _count(name: str, value: object, least: int = 1) -> object:
    return checked_count(name, cast("int", whole_number(value)), least)


def _seconds(name: str, value: object) -> object:
    number = real_number(value)
    if isinstance(number, bool) or not isinstance(number, int | float) or not number > 0:  # NaN is not
        raise InputError(f"{name} must be a number of seconds above 0, not {value!r}")
    return number


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        is_number = isinstance(value, int | float)  # as YAML reads 1234567
        raise InputError(f"{name} must be a string, not {value!r}{'; put it in quotes' if is_number else ''}")
    if name in _NOT_BLANK and not value.strip():
        raise InputError(f"{name} is empty ({value!r}); leave it out, or set it to None")
    return value


def _token(name: str, value: object) -> object:
    if isinstance(value := flag(value), str | bool):
        return value
    raise InputError(f"{name} must be a string, True or False, not a {type(value).__name__}")


def _optional_flag(name: str, value: object) -> object:
    if isinstance(value := flag(value), bool):
        return value
    raise InputError(f"{name} must be True, False or None, not {value!r}")


def _by_the_spec(_: str, value: object) -> object:
    """The value of an option that `ModelSpec` checks, together with others."""
    return value


def _instruction(name: str, value: object) -> str:
    return checked_text(value, f"the {name}")


def _model(name: str, value: object) -> str:
    return _text(name, os.fspath(value) if isinstance(value, os.PathLike) else value)


def _choice(name: str, value: object, choices: object) -> object:
    return checked_choice(name, cast("str", value), choices)


def _device(name: str, value: object) -> str:
    if isinstance(value, list | tuple):
        raise InputError(f"{name} must be a string, not {value!r}; for several devices, use device_map, such as 'auto'")
    return checked_device(value)


def _dtype(_: str, value: object) -> object:
    return checked_dtype(value)


def _device_map(name: str, value: object) -> object:
    devices = [*value.values()] if isinstance(value, Mapping) else [value]
    if not devices:
        raise InputError(f"{name} is empty; use 'auto', or give each part of the model a device")
    for device in devices:
        if device in MAP_DEVICES or (isinstance(device, int) and not isinstance(device, bool) and device >= 0):
            continue
        try:
            checked_device(device)
        except InputError as error:
            raise InputError(f"{name}={value!r} cannot be used: {error}") from error
    return value


def _recipe(_: str, value: object) -> object:
    given = read_recipe_file(value) if is_recipe_file(value) else value
    recipe_of(given)
    return given


def _label(name: str, value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
        raise InputError(f"{name} must be the name of a label, or its index, 0 or 1, not {value!r}")
    return value


def _path(name: str, value: object, what: str) -> object:
    if not isinstance(value, str | os.PathLike) or not os.fspath(value):
        raise InputError(f"{name} must be {what}, not {value!r}")
    return value


def _headers(name: str, value: object) -> object:
    if not isinstance(value, Mapping):
        raise InputError(f"{name} must be a dictionary of names and values, not a {type(value).__name__}")
    return value


def _configuration(name: str, value: object) -> object:
    if not isinstance(value, Mapping) and not hasattr(value, "to_dict"):
        found = type(value).__name__
        raise InputError(f"{name} must be a configuration of transformers, or its fields, not a {found}")
    return value


def _quantization(name: str, value: object) -> object:
    if value not in get_args(Quantization):
        found = repr(value) if isinstance(value, str) else f"a {type(value).__name__}"
        raise InputError(
            f"{name} must be {' or '.join(map(repr, get_args(Quantization)))}, not {found}; for another method, pass a "
            "configuration of transformers as quantization_config"
        )
    return value


_Check = Callable[[str, Any], object]

_BY_NAME: Final[Mapping[str, _Check]] = {
    "activation": partial(_choice, choices=Activation),
    "api_key": _by_the_spec,
    **{name: partial(_path, what=what) for name, what in _PATHS.items()},
    "device": _device,
    "device_map": _device_map,
    "document_cache_bytes": partial(_count, least=0),
    "document_cache_host_bytes": partial(_count, least=0),
    "dtype": _dtype,
    "headers": _headers,
    "instruction": _instruction,
    "long_documents": partial(_choice, choices=LongDocuments),
    "model": _model,
    "path": _by_the_spec,
    "protocol": partial(_choice, choices=Protocol),
    "quantization": _quantization,
    "quantization_config": _configuration,
    "recipe": _recipe,
    "relevant_label": _label,
    "template": partial(_choice, choices=Template),
    "token": _token,
    "url": _by_the_spec,
}
# Of the others, by their type in `OpenOptions`.
_BY_TYPE: Final[Mapping[object, _Check]] = {
    bool: checked_flag,
    bool | None: _optional_flag,
    int | None: _count,
    float | None: _seconds,
    str | None: _text,
}


def plain_options(options: OpenOptions) -> OpenOptions:
    """The options that are not None, as data that every framework can serialise; raises as `checked_options`."""
    checked = checked_options(options)
    recipe, config = checked.get("recipe"), checked.get("quantization_config")
    fields = getattr(config, "to_dict", lambda: config)()
    plain = {
        **checked,
        "recipe": recipe_fields(recipe) if isinstance(recipe, Recipe) else recipe,
        **{name: os.fspath(path) for name in _PATHS if (path := checked.get(name)) is not None},
        "quantization_config": json.loads(json.dumps(fields, default=_dtype_name)),
    }
    return cast("OpenOptions", {name: value for name, value in plain.items() if value is not None})


def _dtype_name(value: object) -> str:
    if type(value).__name__ == "dtype":
        return str(value).removeprefix("torch.")
    raise InputError(f"quantization_config contains {value!r}: not plain data; pass a configuration of transformers")


def without_secrets(options: OpenOptions) -> OpenOptions:
    """The options that may appear in a dump."""
    shown = {name: value for name, value in (options.get("headers") or {}).items() if not is_secret_header(name, value)}
    return plain_options({**options, "token": None, "api_key": None, "headers": shown or None})
