"""A model in memory -> the same model, its layers' products in 8 bits, one linear layer after the other, in place."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from onelogit.errors import UnsupportedModelError
from onelogit.quantization.int8_linear import Int8Linear, SharedInput
from onelogit.quantization.smoothing import groups_by_input, smoothing_factors

_LEAST_WIDTH = 64  # narrower layers, such as the gates of recurrent layers, cost nothing and are sensitive
_EXPERT_COUNTS = ("num_experts", "num_local_experts", "n_routed_experts")  # fields of configurations


def quantise_layers(classifier: PreTrainedModel, sample_ids: Sequence[Sequence[int]] = ()) -> int:
    """Quantise the linear layers in the layers of a classifier's backbone; returns how many.

    Embeddings, norms, the choice of experts, and everything before, after and between the layers stay exact.

    Args:
        classifier: on a CPU.
        sample_ids: token ids of a few prompts, which show how large the channels of each layer's input are.

    Raises:
        UnsupportedModelError: there is no linear layer.
    """
    places = _places(classifier)
    if not places:
        raise UnsupportedModelError(
            f"{type(classifier).__name__} has no linear layers that quantization='int8' could quantise; leave it out"
        )

    def run() -> None:
        for ids in sample_ids:
            classifier(input_ids=torch.tensor([ids]), attention_mask=torch.ones((1, len(ids)), dtype=torch.long))

    layer_count = len(places)
    groups = groups_by_input({linear: parent for linear, (parent, _) in places.items()}, run)
    while groups:  # nothing else refers to an exact layer once it is quantised, so that its memory is free
        layers, squares = groups.pop()
        _quantise_group({linear: places.pop(linear) for linear in layers}, squares)
    return layer_count


def has_int8_layers(model: nn.Module) -> bool:
    """Whether a model is quantised by `quantise_layers`."""
    return any(isinstance(part, Int8Linear) for part in model.modules())


def _places(classifier: PreTrainedModel) -> dict[nn.Linear, tuple[nn.Module, str]]:
    """The layers to quantise, each with the module that contains it and its name there."""
    base: Any = classifier.base_model
    lists = [part for part in base.modules() if isinstance(part, nn.ModuleList)]
    parents = dict.fromkeys(parent for each in lists for parent in each.modules())
    config = classifier.config.get_text_config()
    experts = {getattr(config, name, None) for name in _EXPERT_COUNTS}
    return {
        child: (parent, name)
        for parent in parents
        for name, child in parent.named_children()
        if isinstance(child, nn.Linear) and _may_quantise(child, experts)
    }


def _may_quantise(part: nn.Linear, expert_counts: Collection[object]) -> bool:
    return (
        type(part) is nn.Linear
        and min(part.in_features, part.out_features) >= _LEAST_WIDTH
        and part.out_features not in expert_counts
        and part.weight.is_floating_point()
        and "forward" not in vars(part)
    )


def _quantise_group(group: Mapping[nn.Linear, tuple[nn.Module, str]], squares: Tensor | None) -> None:
    """Quantise the layers that read one input, each at its place: its parent and its name."""
    factors = None if squares is None else smoothing_factors(squares, [linear.weight for linear in group])
    shared = SharedInput(factors, is_kept=len(group) > 1)
    for number, (linear, (parent, name)) in enumerate(group.items()):
        if number == 1:  # of the same parent
            parent.register_forward_pre_hook(shared.clear)
            parent.register_forward_hook(shared.clear)
        setattr(parent, name, Int8Linear(linear, shared))
