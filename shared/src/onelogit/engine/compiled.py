"""A decoder that reads forests -> the same one, its layers compiled by PyTorch: what is element-wise becomes one pass.

Attention stays out of the graphs, and so does the last layer, which reads rows' ends alone. Lengths are symbols: the
same few graphs serve all layers and all batches.
"""

from typing import Any

from torch import nn
from transformers import PreTrainedModel

from onelogit.engine.fused_ops import fuse, stop_quickening


def can_be_compiled(model: PreTrainedModel) -> bool:
    """Whether it has layers that the same graphs can serve: those that accelerate moves would each want its own."""
    layers = getattr(model.base_model, "layers", None)
    return isinstance(layers, nn.ModuleList) and not any(hasattr(part, "_hf_hook") for part in layers.modules())


def compile_layers(model: PreTrainedModel) -> None:
    """Have all layers but the last compiled, in place, when they are next called."""
    for layer in _layers(model):
        stop_quickening(layer)
        layer.compile(dynamic=True)


def stop_compiling(model: PreTrainedModel) -> None:
    """Take `compile_layers` back."""
    for layer in _layers(model):
        layer._compiled_call_impl = None
    fuse(model)


def _layers(model: PreTrainedModel) -> list[Any]:
    decoder: Any = model.base_model
    return list(decoder.layers)[:-1]
