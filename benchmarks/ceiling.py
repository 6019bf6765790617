"""How fast this machine multiplies matrices of a model's own shapes, right now: what a share of the ceiling means."""

import statistics
import time
from typing import NamedTuple

import torch
from transformers import PretrainedConfig

TOKENS = 2048


class Ceiling(NamedTuple):
    """Operations a second.

    Attributes:
        best: of the shape that went fastest.
        weighted: of all linear layers of one decoder layer together.
    """

    best: float
    weighted: float


def linear_shapes(config: PretrainedConfig) -> list[tuple[int, int]]:
    """(inputs, outputs) of each linear layer of a decoder layer: query, key, value, output, gate, up, down."""
    width, inner = config.hidden_size, config.intermediate_size
    heads, key_value = (config.head_dim * n for n in (config.num_attention_heads, config.num_key_value_heads))
    return [
        (width, heads),
        (width, key_value),
        (width, key_value),
        (heads, width),
        *[(width, inner)] * 2,
        (inner, width),
    ]


@torch.inference_mode()
def measure_ceiling(config: PretrainedConfig, dtype: str, repeats: int = 15) -> Ceiling:
    """Medians over repeats of `torch.nn.functional.linear` with 2,048 tokens, each shape in its turn."""
    shapes = linear_shapes(config)
    kind = getattr(torch, dtype)
    tensors = {
        (inputs, outputs): (torch.randn(TOKENS, inputs).to(kind), torch.randn(outputs, inputs).to(kind))
        for inputs, outputs in shapes
    }
    seconds: dict[tuple[int, int], list[float]] = {shape: [] for shape in tensors}
    for repeat in range(repeats + 2):
        for shape, (tokens, weight) in tensors.items():
            start = time.perf_counter()
            torch.nn.functional.linear(tokens, weight)
            if repeat >= 2:  # the first ones warm up
                seconds[shape].append(time.perf_counter() - start)
    median = {shape: statistics.median(each) for shape, each in seconds.items()}
    flop = {shape: 2 * TOKENS * shape[0] * shape[1] for shape in tensors}
    return Ceiling(
        best=max(flop[shape] / median[shape] for shape in tensors),
        weighted=sum(flop[shape] for shape in shapes) / sum(median[shape] for shape in shapes),
    )
