"""A classifier -> its weights and its config in a folder, in the dtype that they were stored in."""

from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from onelogit.convert import Float32Head


def saved_dtype(classifier: PreTrainedModel) -> torch.dtype:
    """The classifier's own dtype; float16 where it was stored so and a CPU computes it as float32."""
    dtype, stored = classifier.dtype, classifier.config.dtype
    return torch.float16 if (dtype, stored) == (torch.float32, torch.float16) else dtype


def save_classifier(classifier: PreTrainedModel, folder: Path) -> None:
    """Write `config.json` and safetensors; a head of ours stays in float32. The classifier is not changed."""
    config, dtype = classifier.config, saved_dtype(classifier)
    if dtype == classifier.dtype:
        classifier.save_pretrained(folder)
        return
    classifier.save_pretrained(folder, state_dict=_in_float16(classifier))
    config.dtype = dtype  # transformers has put down the one it found
    config.save_pretrained(folder)


def _in_float16(classifier: PreTrainedModel) -> dict[str, Tensor]:
    """The weights, as float16 where that holds them exactly: so do all that were float16."""
    heads = [part for part in classifier.modules() if isinstance(part, Float32Head)]
    kept = {id(weight) for head in heads for weight in head.parameters()}
    tensors = {}
    for name, tensor in classifier.state_dict(keep_vars=True).items():
        half = tensor.detach().half()
        is_exact = id(tensor) not in kept and torch.equal(half.float(), tensor)
        tensors[name] = half if is_exact else tensor.detach()
    return tensors
