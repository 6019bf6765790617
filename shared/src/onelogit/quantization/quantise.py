"""A model in memory -> the same model, its layers' products in 8 bits, one linear layer after the other, in place."""

from typing import Any

from torch import nn
from transformers import PreTrainedModel

from onelogit.errors import UnsupportedModelError
from onelogit.quantization.int8_linear import Int8Linear, SharedInput

_LEAST_WIDTH = 64  # narrower layers, such as the gates of recurrent layers, cost nothing and are sensitive


def quantise_layers(classifier: PreTrainedModel) -> int:
    """Quantise the linear layers in the layers of a classifier's backbone; returns how many.

    Embeddings, norms, and everything before, after and between the layers stay exact.

    Args:
        classifier: on a CPU.

    Raises:
        UnsupportedModelError: there is no linear layer.
    """
    base: Any = classifier.base_model
    lists = [part for part in base.modules() if isinstance(part, nn.ModuleList)]
    parents = dict.fromkeys(parent for each in lists for parent in each.modules())
    count = sum(map(_quantise_children, parents))
    if not count:
        raise UnsupportedModelError(
            f"{type(classifier).__name__} has no linear layers that quantization='int8' could quantise; leave it out"
        )
    return count


def has_int8_layers(model: nn.Module) -> bool:
    """Whether a model is quantised by `quantise_layers`."""
    return any(isinstance(part, Int8Linear) for part in model.modules())


def _quantise_children(parent: nn.Module) -> int:
    chosen = [(name, child) for name, child in parent.named_children() if _may_quantise(child)]
    if not chosen:
        return 0
    shared = SharedInput()
    parent.register_forward_pre_hook(shared.clear)
    parent.register_forward_hook(shared.clear)
    for name, child in chosen:
        setattr(parent, name, Int8Linear(child, shared))
    return len(chosen)


def _may_quantise(part: nn.Module) -> bool:
    return (
        type(part) is nn.Linear
        and min(part.in_features, part.out_features) >= _LEAST_WIDTH
        and part.weight.is_floating_point()
        and "forward" not in vars(part)
    )
