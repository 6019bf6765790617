"""A device -> what it reaches at best, right now: matrix products with random data, copies, copies from the host."""

import statistics
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from ceiling import linear_shapes
from device_clock import time_call
from transformers import PretrainedConfig

LAUNCHES = 10  # between two events: one alone is too short to be timed
REPEATS = 7


class Amounts(NamedTuple):
    """How much is multiplied and copied.

    Attributes:
        tokens: rows of the products with a model's own weights.
        square: side of the square matrices.
        copied_bytes: from one place of the device's memory to another.
        host_bytes: from the host's pinned memory to the device.
    """

    tokens: int = 32768
    square: int = 8192
    copied_bytes: int = 2**30
    host_bytes: int = 2**28


QUICK = Amounts(tokens=64, square=64, copied_bytes=2**16, host_bytes=2**12)


@torch.inference_mode()
def measure_device(device: torch.device, configs: dict[str, PretrainedConfig], amounts: Amounts) -> dict[str, Any]:
    """Operations and bytes a second, medians; a copy counts what it reads and what it writes.

    Args:
        device: what is measured.
        configs: of models, by name; the products are with the shapes of their linear layers, in bfloat16.
        amounts: how much of each.
    """
    products = {name: _products(device, config, amounts.tokens) for name, config in configs.items()}
    square = _product(device, amounts.square, (amounts.square, amounts.square))
    best = max(square, *(max(rates.values()) for rates in products.values()))
    return {
        "matmul_flop_per_s": best,
        "square_flop_per_s": square,
        "linear_flop_per_s": products,
        "copy_bytes_per_s": 2 * amounts.copied_bytes / _copying(device, device, amounts.copied_bytes),
        "host_to_device_bytes_per_s": amounts.host_bytes / _copying(torch.device("cpu"), device, amounts.host_bytes),
    }


def _products(device: torch.device, config: PretrainedConfig, tokens: int) -> dict[str, float]:
    shapes = dict.fromkeys(linear_shapes(config))
    return {f"{inputs}x{outputs}": _product(device, tokens, (inputs, outputs)) for inputs, outputs in shapes}


def _product(device: torch.device, tokens: int, shape: tuple[int, int]) -> float:
    inputs, outputs = shape
    hidden = torch.randn(tokens, inputs, device=device, dtype=torch.bfloat16)
    weight = torch.randn(outputs, inputs, device=device, dtype=torch.bfloat16)
    seconds = _median_s(device, lambda: torch.nn.functional.linear(hidden, weight))
    return 2 * tokens * inputs * outputs / seconds


def _copying(source: torch.device, target: torch.device, count: int) -> float:
    data = torch.randint(256, (count,), dtype=torch.uint8, device=source)
    if source != target and target.type == "cuda":
        data = data.pin_memory()
    place = torch.empty_like(data, device=target)
    return _median_s(target, lambda: place.copy_(data, non_blocking=True))


def _median_s(device: torch.device, launch: Callable[[], object]) -> float:
    def launches() -> list[float]:
        for _ in range(LAUNCHES):
            launch()
        return []

    launches()
    return statistics.median(time_call(device, launches).device_s for _ in range(REPEATS)) / LAUNCHES
