"""A classifier -> its weights and its config in a folder, in the dtype that they were stored in."""

from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from onelogit.conversion.head import Float32Head


def saved_dtype(classifier: PreTrainedModel) -> torch.dtype:
    """The classifier's own dtype; the half precision it was stored in where the device computes that as float32."""
    dtype, stored = classifier.dtype, classifier.config.dtype
    if dtype != torch.float32 or not isinstance(stored, torch.dtype) or stored.itemsize != 2:
        return dtype
    return stored if _holds(stored, classifier) else dtype


def _holds(half: torch.dtype, classifier: PreTrainedModel) -> bool:
    """Whether the backbone's weights are still those that were stored: training would have changed them."""
    return all(torch.equal(weight.to(half).to(weight.dtype), weight) for weight in classifier.base_model.parameters())


def save_classifier(classifier: PreTrainedModel, folder: Path) -> None:
    """Write `config.json` and safetensors; a head of ours stays in float32. The classifier is not changed."""
    config, dtype = classifier.config, saved_dtype(classifier)
    if dtype == classifier.dtype:
        classifier.save_pretrained(folder)
        return
    classifier.save_pretrained(folder, state_dict=_tensors_in(dtype, classifier))
    config.dtype = dtype  # transformers has put down the one it found
    config.save_pretrained(folder)


def _tensors_in(dtype: torch.dtype, classifier: PreTrainedModel) -> dict[str, Tensor]:
    """The weights in a half precision where that holds them exactly: it does all that were stored in it."""
    heads = [part for part in classifier.modules() if isinstance(part, Float32Head)]
    kept = {id(weight) for head in heads for weight in head.parameters()}
    tensors = {}
    for name, tensor in classifier.state_dict(keep_vars=True).items():
        half = tensor.detach().to(dtype)
        is_exact = id(tensor) not in kept and torch.equal(half.float(), tensor)
        tensors[name] = half if is_exact else tensor.detach()
    return tensors
