"""A chain of modules -> its layers in float32, and a classifier of a backbone with them behind it."""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from onelogit.checkpoints.module_chain import Chain, Dense, LayerNorm, Pooling
from onelogit.errors import CheckpointError


class PooledClassifier(PreTrainedModel):  # type: ignore[no-untyped-call]
    """One logit by way of a pooled hidden state, for a head that no class of transformers has.

    Args:
        backbone: an encoder, or a decoder without a head; any dtype.
        pooling: of its last hidden states.
        layers: from the pooled state to the logit, in float32.
    """

    base_model_prefix = "model"
    # The backbone was asked already, when it was loaded.
    _supports_sdpa = _supports_flash_attn = _supports_flex_attn = _supports_attention_backend = True

    def __init__(self, backbone: PreTrainedModel, pooling: Pooling, layers: nn.Sequential) -> None:
        super().__init__(backbone.config)
        self.model = backbone
        self.pooling = pooling
        self.layers = layers

    def forward(self, attention_mask: Tensor, **inputs: Any) -> SequenceClassifierOutput:
        """The logit of each row, shape (rows, 1), float32.

        Args:
            attention_mask: shape (rows, tokens); 1 for tokens, then 0 for padding, which stands at the right.
            **inputs: input_ids, and what else the backbone takes.
        """
        hidden = self.model(attention_mask=attention_mask, **inputs).last_hidden_state
        pooled = pool(hidden, attention_mask, self.pooling)
        return SequenceClassifierOutput(logits=self.layers(pooled.to(next(self.layers.parameters()))))


def pool(hidden: Tensor, attention_mask: Tensor, pooling: Pooling) -> Tensor:
    """One state for each row: the first token's, the last one's, or the mean over all.

    Args:
        hidden: shape (rows, tokens, hidden), padded at the right.
        attention_mask: shape (rows, tokens).
        pooling: "cls" for the first, "lasttoken", or "mean".

    Returns:
        Shape (rows, hidden), float32.
    """
    counts = attention_mask.sum(dim=1)
    if pooling == "mean":
        return (hidden.float() * attention_mask.unsqueeze(-1)).sum(dim=1) / counts.unsqueeze(-1)
    places = counts - 1 if pooling == "lasttoken" else torch.zeros_like(counts)
    return hidden[torch.arange(len(hidden), device=hidden.device), places].float()


def read_layers(folder: Path, chain: Chain) -> nn.Sequential:
    """The layers of a chain with their weights, in float32.

    Raises:
        CheckpointError: a module's file is missing, damaged, or holds other tensors than its config.json names.
    """
    layers: list[nn.Module] = []
    for step in chain.steps:
        layers.append(_read_layer(folder / step.folder, step))
        if isinstance(step, Dense) and step.activation != "Identity":
            layers.append(getattr(nn, step.activation)())
    return nn.Sequential(*layers).eval().requires_grad_(False)


def _read_layer(folder: Path, step: Dense | LayerNorm) -> nn.Module:
    file = folder / "model.safetensors"
    if not file.is_file():
        raise CheckpointError(f"{folder} holds no weights (model.safetensors); pickled ones (.bin) are not read")
    layer: nn.Module
    if isinstance(step, Dense):
        layer = nn.Linear(step.inputs, step.outputs, bias=step.has_bias, device="meta")
    else:
        layer = nn.LayerNorm(step.inputs, device="meta")
    try:
        # The modules name their one layer, which is not our business: linear.weight, norm.bias.
        tensors = {name.rpartition(".")[2]: tensor.float() for name, tensor in load_file(file).items()}
        layer.load_state_dict(tensors, assign=True)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file} is damaged or cut short: {error}") from error
    except RuntimeError as error:
        raise CheckpointError(f"{file} does not hold what its config.json names: {error}") from error
    return layer
