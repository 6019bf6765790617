"""A model in memory -> the same model, its layers' products in 8 bits, one linear layer after the other, in place."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from onelogit.errors import UnsupportedModelError
from onelogit.quantization.int8_linear import Int8Linear, SharedInput
from onelogit.quantization.smoothing import SeenInputs, smoothing_factors

_LEAST_WIDTH = 64  # narrower layers, such as the gates of recurrent layers, cost nothing and are sensitive


def quantise_layers(classifier: PreTrainedModel, sample_ids: Sequence[Sequence[int]] = ()) -> int:
    """Quantise the linear layers in the layers of a classifier's backbone; returns how many.

    Embeddings, norms, and everything before, after and between the layers stay exact.

    Args:
        classifier: on a CPU.
        sample_ids: token ids of a few prompts, which show how large the channels of each layer's input are.

    Raises:
        UnsupportedModelError: there is no linear layer.
    """
    base: Any = classifier.base_model
    lists = [part for part in base.modules() if isinstance(part, nn.ModuleList)]
    parents = dict.fromkeys(parent for each in lists for parent in each.modules())
    names = {child: (parent, name) for parent in parents for name, child in parent.named_children()}
    chosen = {child: place for child, place in names.items() if isinstance(child, nn.Linear) and _may_quantise(child)}
    if not chosen:
        raise UnsupportedModelError(
            f"{type(classifier).__name__} has no linear layers that quantization='int8' could quantise; leave it out"
        )

    def run() -> None:
        for ids in sample_ids:
            base(input_ids=torch.tensor([ids]), attention_mask=torch.ones((1, len(ids)), dtype=torch.long))

    seen = SeenInputs.of({linear: parent for linear, (parent, _) in chosen.items()}, run)
    groups: dict[nn.Linear, list[nn.Linear]] = {}
    for linear in chosen:
        groups.setdefault(seen.leaders.get(linear, linear), []).append(linear)
    for leader, members in groups.items():
        _quantise_group({linear: chosen[linear] for linear in members}, seen.squares.get(leader))
    return len(chosen)


def has_int8_layers(model: nn.Module) -> bool:
    """Whether a model is quantised by `quantise_layers`."""
    return any(isinstance(part, Int8Linear) for part in model.modules())


def _quantise_group(group: Mapping[nn.Linear, tuple[nn.Module, str]], squares: Tensor | None) -> None:
    """Quantise the layers that read one input, each at its place: its parent and its name."""
    factors = None if squares is None else smoothing_factors(squares, [linear.weight for linear in group])
    shared = SharedInput(factors)
    for parent in dict.fromkeys(parent for parent, _ in group.values()):
        parent.register_forward_pre_hook(shared.clear)
        parent.register_forward_hook(shared.clear)
    for linear, (parent, name) in group.items():
        setattr(parent, name, Int8Linear(linear, shared))


def _may_quantise(part: nn.Module) -> bool:
    return (
        type(part) is nn.Linear
        and min(part.in_features, part.out_features) >= _LEAST_WIDTH
        and part.weight.is_floating_point()
        and "forward" not in vars(part)
    )
