"""This machine's processor -> whether it multiplies 8-bit integers fast, and exactly."""

from functools import cache
from typing import Any

import torch

from onelogit.errors import InputError
from onelogit.quantization.int8_linear import Int8Linear, SharedInput

INSTRUCTIONS = ("avx512_vnni", "avx_vnni", "amx_int8")


def check_processor(device: torch.device) -> None:
    """Check that 8-bit products are fast and exact on a device.

    Raises:
        InputError: it is no CPU, or a processor without the instructions, or PyTorch lacks the operators.
    """
    if device.type != "cpu":
        raise InputError(
            f"quantization='int8' computes on a CPU, and the fastest device here is {device}; pass device='cpu', or "
            "leave quantization out"
        )
    if (reason := _why_unsupported()) is not None:
        raise InputError(f"quantization='int8' cannot be used here: {reason}; leave it out")


@cache
def _why_unsupported() -> str | None:
    if not any(capabilities().get(name) for name in INSTRUCTIONS):
        return "it needs an x86 processor with VNNI or AMX (Intel from Cascade Lake, AMD from Zen 4 on)"
    try:
        is_exact = _is_exact()
    except (AttributeError, RuntimeError, NotImplementedError, TypeError):  # operators that this build lacks
        return f"PyTorch {torch.__version__} has no oneDNN operators for it"
    return None if is_exact else "its 8-bit products overflow"


def capabilities() -> dict[str, Any]:
    """The processor's instruction sets, as far as this version of PyTorch tells."""
    if hasattr(torch.cpu, "get_capabilities"):
        return dict(torch.cpu.get_capabilities())
    older: Any = torch.cpu
    return {"avx512_vnni": older._is_vnni_supported()}


def _is_exact() -> bool:
    """Whether the largest possible product has no overflow, as without VNNI, where 16 bits hold two products."""
    width = 256
    linear = torch.nn.Linear(width, 16, bias=False).requires_grad_(False)
    linear.weight.fill_(1.0)
    with torch.inference_mode():
        product = Int8Linear(linear, SharedInput())(torch.ones((8, width)))  # in 8 bits, 254 * 127 for each channel
    return bool((product - width).abs().max() < 0.01 * width)
