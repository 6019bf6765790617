"""A quantisation as transformers has it, or its fields -> plain data, which frameworks write down. No torch."""

import json
from collections.abc import Mapping
from typing import Any

from onelogit.errors import InputError


def check_quantisation(config: object) -> None:
    """Refuse what no quantisation can be made of.

    Raises:
        InputError: it is neither None, nor a configuration of transformers, nor a dictionary.
    """
    if config is not None and not isinstance(config, Mapping) and not hasattr(config, "to_dict"):
        raise InputError(
            "quantization_config must be a configuration of transformers, or its fields as a dictionary, not a "
            f"{type(config).__name__}"
        )


def plain_quantisation(config: Any) -> Any:
    """The fields of a configuration, where dtypes stand by name and members of enumerations by value.

    Raises:
        InputError: one of them is no data.
    """
    fields = config.to_dict() if hasattr(config, "to_dict") else config
    return json.loads(json.dumps(fields, default=_dtype_name))


def _dtype_name(value: object) -> str:
    if type(value).__name__ == "dtype":
        return str(value).removeprefix("torch.")
    raise InputError(
        f"quantization_config holds {value!r}, which is no plain data: give a configuration of transformers"
    )
