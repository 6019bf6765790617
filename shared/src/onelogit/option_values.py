"""A value as environments, YAML and libraries write it, such as "512" or "bf16" -> the value that it means.

A value without a single meaning is returned unchanged; the check of its option refuses it. Loads no torch.
"""

import math
import re
from decimal import Decimal, InvalidOperation
from numbers import Integral, Real

from onelogit.errors import InputError

_FLAGS = {"true": True, "false": False}
_DTYPES = {
    "bfloat16": ("bf16",),
    "float16": ("fp16", "f16", "half"),
    "float32": ("fp32", "f32", "float"),
}
_DTYPE_NAMES = {other: name for name, others in _DTYPES.items() for other in (name, *others)}
_MAX_DIGITS = 30
USUAL_DEVICES = "use cpu, cuda, cuda:1 or mps, or leave it out for the fastest"
MAP_DEVICES = (None, "auto", "balanced", "balanced_low_0", "sequential", "disk")
"""What transformers reads in a device map, besides names of devices and their numbers."""
# The types that `torch.device` knows, and those that other packages add to it for transformers.
_DEVICE_TYPES = (
    *("cpu", "cuda", "fpga", "hip", "hpu", "ideep", "ipu", "lazy", "maia", "meta", "mkldnn", "mps", "mtia", "opencl"),
    *("opengl", "privateuseone", "ve", "vulkan", "xla", "xpu", "mlu", "musa", "neuron", "npu", "sdaa", "tpu"),
)


def whole_number(value: object) -> object:
    """3 for "3", "3e0", 3.0 and numpy's 3."""
    if isinstance(value, str):
        number = _decimal(value)
        is_whole = number is not None and number.adjusted() < _MAX_DIGITS and number == number.to_integral_value()
        return int(number) if number is not None and is_whole else value
    if isinstance(value, bool) or not isinstance(value, Real):
        return value
    if isinstance(value, Integral) or float(value).is_integer():
        return int(value)  # type: ignore[call-overload]
    return value


def real_number(value: object) -> object:
    """0.5 for "0.5", "5e-1" and numpy's 0.5."""
    if isinstance(value, str):
        number = _decimal(value)
        return value if number is None or not math.isfinite(float(number)) else float(number)
    if isinstance(value, bool | int) or not isinstance(value, Real):
        return value
    return float(value)


def flag(value: object) -> object:
    """True for "true", "True" and numpy's True; False likewise. "yes" and 1 are unchanged."""
    if isinstance(value, str):
        return _FLAGS.get(value.strip().lower(), value)
    return bool(value) if type(value).__module__ == "numpy" and type(value).__name__.startswith("bool") else value


def dtype_name(value: object) -> object:
    """The name of a dtype: "bfloat16" for "bf16", "torch.bfloat16" and torch's own; None, the default, for "auto"."""
    if not isinstance(value, str) and type(value).__module__.partition(".")[0] != "torch":
        return value
    name = str(value).strip().lower().removeprefix("torch.")
    return None if name == "auto" else _DTYPE_NAMES.get(name, value)


def checked_dtype(value: object) -> str | None:
    """The name of a dtype, as `dtype_name` reads it.

    Raises:
        InputError: it is none of those in which a model can be loaded.
    """
    name = dtype_name(value)
    if name is not None and name not in _DTYPES:
        raise InputError(f"unknown dtype {name!r}; use one of {', '.join(_DTYPES)}")
    return name


def checked_device(value: object) -> str:
    """The name of a device, which may be that of another machine; of a `torch.device`, its name.

    Raises:
        InputError: no device can have this name.
    """
    is_torchs = type(value).__name__ == "device" and type(value).__module__.partition(".")[0] == "torch"
    name = str(value) if is_torchs else value
    kind = re.fullmatch(r"([a-z]+)(:\d+)?", name) if isinstance(name, str) else None
    if kind is None or kind[1] not in _DEVICE_TYPES:
        is_number = type(value) is int or (isinstance(value, str) and value.isdecimal())
        hint = f" (did you mean 'cuda:{value}'?)" if is_number else ""
        raise InputError(f"unknown device {value!r}{hint}; {USUAL_DEVICES}")
    return str(name)


def checked_flag(name: str, value: object) -> bool | None:
    """Return the flag, if it is one or the text "true" or "false", or None.

    Raises:
        InputError: it is something else.
    """
    value = flag(value)
    if value is not None and not isinstance(value, bool):  # the text "no" would be true
        raise InputError(f"{name} must be True or False, not {value!r}")
    return value


def _decimal(text: str) -> Decimal | None:
    """The finite number that a text spells; None if it spells none."""
    try:
        number = Decimal(text.strip())
    except InvalidOperation:
        return None
    return number if number.is_finite() and text.isascii() and "_" not in text else None
