"""The speed that this machine reaches in matrix products and copies, right now, to compare a model's speed with."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from timing import time_call
from torch.nn.functional import linear
from transformers import PretrainedConfig

CPU_TOKENS = 2048
LAUNCHES = 10  # between two events: a single one is too short to be timed
REPEATS = 7


def linear_shapes(config: PretrainedConfig) -> list[tuple[int, int]]:
    """(inputs, outputs) of each linear layer of a decoder layer: query, key, value, output, gate, up, down."""
    width, inner = config.hidden_size, config.intermediate_size
    heads, key_value = (config.head_dim * n for n in (config.num_attention_heads, config.num_key_value_heads))
    attention = [(width, heads), (width, key_value), (width, key_value), (heads, width)]
    return [*attention, (width, inner), (width, inner), (inner, width)]


@torch.inference_mode()
def measure_cpu(config: PretrainedConfig, dtype: str, repeats: int = 15) -> dict[str, float]:
    """Operations per second of `torch.nn.functional.linear` with 2,048 tokens, the median over the repeats.

    Returns:
        `best`, with the fastest shape; `weighted`, with all linear layers of one decoder layer together.
    """
    shapes = linear_shapes(config)
    tensors = {
        (inputs, outputs): [torch.randn(rows, inputs).to(getattr(torch, dtype)) for rows in (CPU_TOKENS, outputs)]
        for inputs, outputs in shapes
    }
    seconds: dict[tuple[int, int], list[float]] = {shape: [] for shape in tensors}
    for repeat in range(repeats + 2):
        for shape, (tokens, weight) in tensors.items():
            start = time.perf_counter()
            linear(tokens, weight)
            if repeat >= 2:  # the first ones warm up
                seconds[shape].append(time.perf_counter() - start)
    median = {shape: statistics.median(each) for shape, each in seconds.items()}
    flop = {shape: 2 * CPU_TOKENS * shape[0] * shape[1] for shape in tensors}
    return {
        "best": max(flop[shape] / median[shape] for shape in tensors),
        "weighted": sum(flop[shape] for shape in shapes) / sum(median[shape] for shape in shapes),
    }


QUICK_AMOUNTS = {"tokens": 64, "square": 64, "copied_bytes": 2**16, "host_bytes": 2**12}


@torch.inference_mode()
def measure_device(
    device: torch.device,
    configs: dict[str, PretrainedConfig],
    *,
    tokens: int = 32768,
    square: int = 8192,
    copied_bytes: int = 2**30,
    host_bytes: int = 2**28,
) -> dict[str, Any]:
    """Operations and bytes per second, medians, with random data; a copy counts both the bytes read and written.

    Args:
        device: to measure.
        configs: of models, by name; the products have the shapes of their linear layers, in bfloat16.
        tokens: rows in the products with a model's own weights.
        square: side of the square matrices.
        copied_bytes: from one place in the device's memory to another.
        host_bytes: from the host's pinned memory to the device.
    """
    products = {
        name: {
            f"{inputs}x{outputs}": _flop_per_s(device, tokens, inputs, outputs)
            for inputs, outputs in dict.fromkeys(linear_shapes(config))
        }
        for name, config in configs.items()
    }
    square_flop_per_s = _flop_per_s(device, square, square, square)
    return {
        "matmul_flop_per_s": max(square_flop_per_s, *(max(rates.values()) for rates in products.values())),
        "square_flop_per_s": square_flop_per_s,
        "linear_flop_per_s": products,
        "copy_bytes_per_s": 2 * copied_bytes / _copy_s(device, device, copied_bytes),
        "host_to_device_bytes_per_s": host_bytes / _copy_s(torch.device("cpu"), device, host_bytes),
    }


def _flop_per_s(device: torch.device, tokens: int, inputs: int, outputs: int) -> float:
    hidden = torch.randn(tokens, inputs, device=device, dtype=torch.bfloat16)
    weight = torch.randn(outputs, inputs, device=device, dtype=torch.bfloat16)
    return 2 * tokens * inputs * outputs / _median_s(device, lambda: linear(hidden, weight))


def _copy_s(source: torch.device, target: torch.device, count: int) -> float:
    data = torch.randint(256, (count,), dtype=torch.uint8, device=source)
    if source != target and target.type == "cuda":
        data = data.pin_memory()
    copied = torch.empty_like(data, device=target)
    return _median_s(target, lambda: copied.copy_(data, non_blocking=True))


def _median_s(device: torch.device, launch: Callable[[], object]) -> float:
    def launches() -> list[float]:
        for _ in range(LAUNCHES):
            launch()
        return []

    launches()
    return statistics.median(time_call(device, launches).device_s for _ in range(REPEATS)) / LAUNCHES
