"""A classifier's own head -> the same head with one logit, checked for weights that cannot rank."""

from collections.abc import Mapping

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GenericForSequenceClassification

from onelogit.checkpoints.labels import LabelRows
from onelogit.conversion.head import one_logit_head
from onelogit.errors import CheckpointError, UnsupportedModelError


def own_head_modules(model: PreTrainedModel) -> dict[str, nn.Module]:
    """The modules of a classifier that are not part of its backbone, and those of a pooler in it, by name."""
    backbone = {id(module) for module in model.base_model.modules()}
    modules = dict(model.named_modules())
    return {name: each for name, each in modules.items() if name and (id(each) not in backbone or "pooler" in name)}


def use_one_logit(model: PreTrainedModel, rows: LabelRows) -> None:
    """Replace the last layer of a head with two labels, in place, by the difference of its rows.

    Raises:
        UnsupportedModelError: the head has no single last layer, or it is quantised.
    """
    modules = own_head_modules(model)
    last = {name: each for name, each in modules.items() if isinstance(each, nn.Linear) and each.out_features == 2}
    if len(last) != 1 or not next(iter(last.values())).weight.is_floating_point():
        raise UnsupportedModelError(f"{type(model).__name__} has no single layer that gives its two labels")
    ((name, layer),) = last.items()
    ids = list(rows[:2])
    head: nn.Linear = one_logit_head(layer.weight[ids], None if layer.bias is None else layer.bias[ids], None)
    if name == "score" and not isinstance(model, GenericForSequenceClassification):
        # A Float32Head of this name stands for a decoder whose logit is read at the last token.
        plain = nn.Linear(head.in_features, 1, bias=head.bias is not None, device="meta")
        plain.load_state_dict(head.to(layer.weight.dtype).state_dict(), assign=True)
        head = plain
    model.set_submodule(name, head.requires_grad_(False))
    model.config.num_labels = 1
    model.num_labels = 1  # type: ignore[assignment]


def check_head(model: str, modules: Mapping[str, nn.Module]) -> None:
    """Check that the modules of a head, by their names, let documents differ.

    Raises:
        CheckpointError: a weight is NaN or infinite, or all weights of a layer are zero, as if never trained.
    """
    for name, module in modules.items():
        # Weights that a device map left on disk are not in memory.
        own = {key: each for key, each in module.named_parameters(recurse=False) if not each.is_meta}
        if not all(bool(torch.isfinite(each).all()) for each in own.values() if each.is_floating_point()):
            raise CheckpointError(f"{model} cannot rank: {name} has weights that are NaN or infinite")
        weight = own.get("weight")
        if isinstance(module, nn.Linear | nn.LayerNorm) and weight is not None and not bool(weight.any()):
            raise CheckpointError(
                f"{model} cannot rank: {name} is zero, so every document would get the same logit; use a trained model"
            )
