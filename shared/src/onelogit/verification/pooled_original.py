"""A decoder whose head reads a pooled state -> its logits, one row at a time, by the code of transformers.

The published classes are NVIDIA's: `model` is the native backbone with attention in both directions, `score` the head.
"""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import torch
from safetensors import safe_open
from torch import Tensor, nn
from transformers import AutoModel, PretrainedConfig, PreTrainedModel

from onelogit.checkpoints.bidirectional import PooledHead
from onelogit.checkpoints.hub import files_of_tensors
from onelogit.checkpoints.tensor_names import without_wrappers
from onelogit.checkpoints.weights import without_load_report

_HEADS = ("score", "lm_head")


class PooledOriginal(nn.Module):
    """The backbone with its whole head, both as stored.

    Args:
        backbone: in evaluation mode.
        weight: of the head, shape (labels or vocabulary, hidden).
        bias: of the head, or None.
        pooled: how the head reads the hidden states.
    """

    def __init__(self, backbone: PreTrainedModel, weight: Tensor, bias: Tensor | None, pooled: PooledHead) -> None:
        super().__init__()
        self.backbone = backbone
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
        self.pooled = pooled

    @classmethod
    def load(cls, folder: Path, pooled: PooledHead, options: dict[str, Any]) -> Self:
        """Load a checkpoint; the options are passed to transformers."""
        with without_load_report():
            backbone = AutoModel.from_pretrained(folder, **options)
        tensors = _head_tensors(folder)
        weight = tensors.get("weight", backbone.get_input_embeddings().weight)  # if it is tied
        bias = tensors.get("bias")
        return cls(backbone, weight.to(backbone.dtype), None if bias is None else bias.to(backbone.dtype), pooled)

    @property
    def config(self) -> PretrainedConfig:
        """Of the backbone."""
        return self.backbone.config

    @property
    def device(self) -> torch.device:
        """Of the backbone."""
        return self.backbone.device

    def forward(self, input_ids: Tensor, **_: Tensor) -> SimpleNamespace:
        """The logits of a single row.

        Args:
            input_ids: shape (1, tokens).
            **_: the other arguments of a classifier, which have no effect on a single row.

        Returns:
            Shape (1, labels), or (1, 1, vocabulary).
        """
        states = self.backbone(input_ids=input_ids, use_cache=False).last_hidden_state[0]
        match self.pooled.pooling:
            case "mean":
                state = states.mean(dim=0)
            case "cls":
                state = states[0]
            case "lasttoken":
                state = states[-1]
        logits = nn.functional.linear(state.to(self.weight), self.weight, self.bias) / self.pooled.temperature
        is_vocabulary = len(logits) == self.config.get_text_config().vocab_size
        return SimpleNamespace(logits=logits[None, None] if is_vocabulary else logits[None])


def _head_tensors(folder: Path) -> dict[str, Tensor]:
    """The head's weight and bias, if they are stored."""
    found = {}
    for name, file in files_of_tensors(folder).items():
        head, _, kind = without_wrappers(name).rpartition(".")
        if head in _HEADS:
            with safe_open(file, framework="pt") as tensors:
                found[kind] = tensors.get_tensor(name)
    return found
