"""A device and a dtype by name -> where, and in which precision, a model computes."""

import torch

from onelogit.errors import InputError

_BFLOAT16_CAPABILITY = (8, 0)  # Ampere; AMD's begin with 9
_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


def find_device(name: str | None) -> torch.device:
    """The device of that name, or the fastest one here.

    Raises:
        InputError: there is none of that name.
    """
    if name is None:
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"unknown device {name!r}: {str(error).partition(':')[0]}") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device={name!r}, but PyTorch finds no CUDA device here")
    if device.type == "cuda" and (device.index or 0) >= (count := torch.cuda.device_count()):
        raise InputError(f"device={name!r}, but the last CUDA device here is cuda:{count - 1}")
    return device


def find_dtype(name: str | None, stored: object, device: torch.device) -> torch.dtype:
    """The dtype of that name, or the one that the checkpoint is stored in.

    Args:
        name: bfloat16, float16 or float32; None for the stored one.
        stored: what the checkpoint's configuration says; float32 where that is no dtype.
        device: one that has no instructions for a half precision computes it as float32, faster and more exactly.

    Raises:
        InputError: there is none of that name.
    """
    if name is not None:
        if name not in _DTYPES:
            raise InputError(f"unknown dtype {name!r}; it is one of {', '.join(_DTYPES)}")
        return _DTYPES[name]
    dtype = stored if isinstance(stored, torch.dtype) else torch.float32
    is_native = has_bfloat16(device) if dtype == torch.bfloat16 else device.type != "cpu" or dtype != torch.float16
    return dtype if is_native else torch.float32


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 matrices by instructions of its own."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= _BFLOAT16_CAPABILITY
    return device.type != "cpu" or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
