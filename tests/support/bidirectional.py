"""Checkpoints as NeMo Automodel saves its cross-encoders, and their logits by the formula of its code.

Source: nemo_automodel 0.7.0, components/models/llama_bidirectional/model.py.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModel, LlamaConfig, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

from support.tiny import _SHAPE, byte_level_tokenizer

Rows = list[list[int]]


def save_bidirectional(
    folder: Path,
    config_class: type[PretrainedConfig] = LlamaConfig,
    *,
    labels: int = 1,
    bias: bool = False,
    dtype: torch.dtype = torch.float32,
    tokenizer: PreTrainedTokenizerFast | None = None,
    shape: dict[str, Any] | None = None,
    **fields: object,
) -> Path:
    """Save a classifier; the fields are added to its config.json, and those that are None removed."""
    torch.manual_seed(5)
    tokenizer = byte_level_tokenizer("<s>") if tokenizer is None else tokenizer
    config = config_class(
        **{**_SHAPE, **(shape or {})},
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        num_labels=labels,
        initializer_range=0.1,
        dtype=dtype,
    )
    backbone = AutoModel.from_config(config).to(dtype)
    tensors = {f"model.{name}": tensor.clone() for name, tensor in backbone.state_dict().items()}
    tensors["score.weight"] = (torch.randn(labels, _SHAPE["hidden_size"]) / 8).to(dtype)
    if bias:
        tensors["score.bias"] = torch.randn(labels).to(dtype)
    folder.mkdir(parents=True)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    tokenizer.save_pretrained(folder)
    own = {
        "architectures": ["LlamaBidirectionalForSequenceClassification"],
        "auto_map": {"AutoConfig": "model.LlamaBidirectionalConfig"},
        "model_type": "llama_bidirec",
        "pooling": "avg",
        "temperature": 1.0,
    }
    content = {**json.loads(config.to_json_string()), **own, **fields}
    content = {name: value for name, value in content.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(content))
    return folder


def backbone_of(folder: Path, config_class: type[PretrainedConfig] = LlamaConfig, **fields: object) -> PreTrainedModel:
    """The backbone, in both directions, by transformers."""
    stored = json.loads((folder / "config.json").read_text())
    left_out = ("architectures", "auto_map", "model_type", "pooling", "temperature", "transformers_version")
    stored = {name: value for name, value in stored.items() if name not in left_out}
    config = config_class(**{**stored, "is_causal": False, **fields})
    backbone = AutoModel.from_config(config).to(torch.float32)
    tensors = load_file(folder / "model.safetensors")
    own = {name.removeprefix("model."): each.float() for name, each in tensors.items() if name.startswith("model.")}
    backbone.load_state_dict(own)
    return backbone.eval()


@torch.inference_mode()
def their_logits(
    folder: Path, backbone: PreTrainedModel, rows: Rows, pooling: str, temperature: float = 1.0, side: str | None = None
) -> list[list[float]]:
    """The labels' logits of each row, alone, or in one batch that is padded at a side."""
    tensors = {name: tensor.float() for name, tensor in load_file(folder / "model.safetensors").items()}
    weight, bias = tensors["score.weight"], tensors.get("score.bias", torch.zeros(1))
    batches = [[row] for row in rows] if side is None else [rows]
    logits = []
    for batch in batches:
        ids, mask = _padded(batch, side)
        hidden = backbone(ids, attention_mask=mask).last_hidden_state
        pooled = _pool(hidden.masked_fill(~mask[..., None].bool(), 0.0), mask, pooling)
        logits += ((pooled @ weight.T + bias) / temperature).tolist()
    return logits


def _pool(hidden: Tensor, mask: Tensor, pooling: str) -> Tensor:
    if pooling == "avg":
        return hidden.sum(dim=1) / mask.sum(dim=1)[..., None]
    lengths = mask.sum(dim=1)
    is_left = bool(mask[:, -1].all())
    first = mask.shape[1] - lengths if is_left else torch.zeros_like(lengths)
    return hidden[torch.arange(len(hidden)), first if pooling == "cls" else first + lengths - 1]


def _padded(rows: Rows, side: str | None) -> tuple[Tensor, Tensor]:
    length = max(map(len, rows))
    ids, mask = torch.zeros(len(rows), length, dtype=torch.long), torch.zeros(len(rows), length, dtype=torch.long)
    for index, row in enumerate(rows):
        span = slice(length - len(row), length) if side == "left" else slice(0, len(row))
        ids[index, span], mask[index, span] = torch.tensor(row), 1
    return ids, mask
