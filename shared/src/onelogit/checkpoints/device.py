"""Names of a device and a dtype -> the device on which a model runs, and the dtype in which it computes."""

from collections.abc import Mapping
from typing import Any

import torch
from transformers import PretrainedConfig

from onelogit.errors import InputError
from onelogit.option_values import MAP_DEVICES, USUAL_DEVICES, checked_device, checked_dtype
from onelogit.options import LoadOptions

_BFLOAT16_CAPABILITY = (8, 0)  # Ampere; AMD's capabilities begin with 9
_KINDS = {"cuda": "CUDA", "mps": "Apple (mps)", "xpu": "Intel (xpu)", "hpu": "Gaudi (hpu)"}
_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


def find_device(name: object) -> torch.device:
    """The device of that name, or the fastest one of this machine.

    Args:
        name: a name, a `torch.device`, or None for the fastest.

    Raises:
        InputError: there is no such device.
    """
    if name is None:
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(checked_device(name))
    except RuntimeError as error:  # of a type that another package adds
        raise InputError(f"unknown device {str(name)!r}; {USUAL_DEVICES}") from error
    if device.type == "cpu":
        return device
    kind = _KINDS.get(device.type, device.type.upper())
    count = _device_count(device.type)
    if not count:
        raise InputError(f"device={str(name)!r}, but PyTorch finds no {kind} device here; {USUAL_DEVICES}")
    if (device.index or 0) >= count:
        last = f"{device.type}:{count - 1}"
        raise InputError(f"device={str(name)!r}, but the last {kind} device here is {last}")
    return device


def _device_count(kind: str) -> int:
    """How many devices of a kind PyTorch can use here; 0 if it does not know the kind, such as "meta"."""
    if kind == "mps":
        return int(torch.backends.mps.is_available())
    module: Any = getattr(torch, kind, None)
    if not callable(is_available := getattr(module, "is_available", None)) or not is_available():
        return 0
    return int(module.device_count()) if hasattr(module, "device_count") else 1


def check_device_map(device_map: object) -> None:
    """Check that all devices of a device map, whose form is checked, are here; None is no map.

    Raises:
        InputError: one is not.
    """
    for device in device_map.values() if isinstance(device_map, Mapping) else [device_map]:
        if device in MAP_DEVICES:
            continue
        try:
            find_device(f"{_accelerator()}:{device}" if isinstance(device, int) else device)
        except InputError as error:
            raise InputError(f"device_map={device_map!r} cannot be used: {error}") from error


def _accelerator() -> str:
    """The kind of device that a mere number means."""
    found = torch.accelerator.current_accelerator()
    return "cuda" if found is None else found.type


def is_quantised(config: PretrainedConfig) -> bool:
    """Whether a model's weights are quantised, or will be when they are loaded."""
    return any(getattr(each, "quantization_config", None) is not None for each in (config, config.get_text_config()))


def find_device_map(options: LoadOptions, config: PretrainedConfig, device: torch.device) -> Any:
    """The device map for transformers; None for a model that is moved to its device after loading.

    Quantised weights are created on their device: some kinds cannot be moved, and some go to the first GPU by default.
    """
    if options.get("device_map") is not None:
        return options["device_map"]
    return {"": device} if options.get("quantization_config") is not None or is_quantised(config) else None


def find_dtype(name: str | None, stored: object, device: torch.device, *, is_kept: bool = False) -> torch.dtype:
    """The dtype of that name, or the dtype of the stored weights.

    Args:
        name: bfloat16, float16 or float32; None for the stored dtype.
        stored: the dtype of the checkpoint's configuration; anything else counts as float32.
        device: float32 is used if the device has no instructions for the stored half precision; it is then faster and
            more exact.
        is_kept: use the stored dtype on any device, because quantised weights are unpacked to it.

    Raises:
        InputError: there is no such dtype.
    """
    if (known := checked_dtype(name)) is not None:
        return _DTYPES[known]
    dtype = stored if isinstance(stored, torch.dtype) else torch.float32
    is_native = has_bfloat16(device) if dtype == torch.bfloat16 else device.type != "cpu" or dtype != torch.float16
    return dtype if is_native or is_kept else torch.float32


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device has instructions that multiply bfloat16 matrices."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= _BFLOAT16_CAPABILITY
    if device.type == "mps":
        return torch.backends.mps.is_macos_or_newer(14, 0)
    return device.type != "cpu" or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
