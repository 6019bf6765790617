"""A tiny checkpoint in the form of Alibaba-NLP/gte-multilingual-reranker-base, and its logits by published formulas.

Source of names and formulas: modeling.py of https://huggingface.co/Alibaba-NLP/new-impl: post-norm layers, rotary
positions with a base that NTK scaling enlarges, gated linear units whose gate is the second half of one projection.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedTokenizerFast

CONFIG: dict[str, Any] = {
    "model_type": "new",
    "architectures": ["NewForSequenceClassification"],
    "auto_map": {
        "AutoConfig": "Alibaba-NLP/new-impl--configuration.NewConfig",
        "AutoModelForSequenceClassification": "Alibaba-NLP/new-impl--modeling.NewForSequenceClassification",
    },
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "hidden_act": "gelu",
    "layer_norm_type": "layer_norm",
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 512,
    "position_embedding_type": "rope",
    "rope_theta": 20000,
    "rope_scaling": {"factor": 8.0, "type": "ntk"},
    "type_vocab_size": 1,
    "pack_qkv": True,
    "unpad_inputs": False,
    "use_memory_efficient_attention": False,
    "logn_attention_scale": False,
    "logn_attention_clip1": False,
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.0,
    "classifier_dropout": 0.0,
    "pad_token_id": 0,
    "id2label": {"0": "LABEL_0"},
    "label2id": {"LABEL_0": 0},
    "torch_dtype": "float32",
}


def gte_checkpoint(folder: Path, tokenizer: PreTrainedTokenizerFast, **changed: object) -> dict[str, Tensor]:
    """Write the checkpoint; return its tensors by their names in the published files."""
    folder.mkdir(parents=True)
    config = {**CONFIG, "vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id, **changed}
    tokenizer.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    torch.manual_seed(3)
    tensors = {
        name: torch.ones(shape) + 0.1 * torch.randn(shape) if "LayerNorm.w" in name or "_ln.w" in name else value
        for name, shape in _shapes(config).items()
        for value in [0.3 * torch.randn(shape)]
    }
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return tensors


def _shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    size, inner = config["hidden_size"], config["intermediate_size"]
    shapes: dict[str, tuple[int, ...]] = {
        "new.embeddings.word_embeddings.weight": (config["vocab_size"], size),
        "new.embeddings.token_type_embeddings.weight": (1, size),
        "new.pooler.dense.weight": (size, size),
        "new.pooler.dense.bias": (size,),
        "classifier.weight": (1, size),
        "classifier.bias": (1,),
    }
    norms = ["new.embeddings.LayerNorm"]
    for index in range(config["num_hidden_layers"]):
        layer = f"new.encoder.layer.{index}"
        shapes |= {
            f"{layer}.attention.qkv_proj.weight": (3 * size, size),
            f"{layer}.attention.qkv_proj.bias": (3 * size,),
            f"{layer}.attention.o_proj.weight": (size, size),
            f"{layer}.attention.o_proj.bias": (size,),
            f"{layer}.mlp.up_gate_proj.weight": (2 * inner, size),
            f"{layer}.mlp.down_proj.weight": (size, inner),
            f"{layer}.mlp.down_proj.bias": (size,),
        }
        norms += [f"{layer}.attn_ln", f"{layer}.mlp_ln"]
    return shapes | {f"{norm}.{kind}": (size,) for norm in norms for kind in ("weight", "bias")}


@torch.inference_mode()
def published_logit(tensors: dict[str, Tensor], config: dict[str, Any], ids: list[int]) -> float:
    """The logit of one row by the formulas of the published code."""
    heads, size = config["num_attention_heads"], config["hidden_size"]
    dim = size // heads

    def norm(x: Tensor, name: str) -> Tensor:
        weight, bias = tensors[f"{name}.weight"], tensors[f"{name}.bias"]
        return functional.layer_norm(x, (size,), weight, bias, config["layer_norm_eps"])

    def linear(x: Tensor, name: str) -> Tensor:
        return functional.linear(x, tensors[f"{name}.weight"], tensors.get(f"{name}.bias"))

    angles = torch.outer(torch.arange(len(ids)).float(), _frequencies(config, dim))
    cos, sin = (torch.cat((each, each), -1)[:, None] for each in (angles.cos(), angles.sin()))

    def rotate(x: Tensor) -> Tensor:
        first, second = x.chunk(2, -1)
        return x * cos + torch.cat((-second, first), -1) * sin

    words = tensors["new.embeddings.word_embeddings.weight"][ids]
    x = norm(words + tensors["new.embeddings.token_type_embeddings.weight"][0], "new.embeddings.LayerNorm")
    for index in range(config["num_hidden_layers"]):
        layer = f"new.encoder.layer.{index}"
        parts = linear(x, f"{layer}.attention.qkv_proj").split(size, -1)
        query, key, value = (part.view(-1, heads, dim) for part in parts)
        query, key = rotate(query), rotate(key)
        shares = (torch.einsum("qhd,khd->hqk", query, key) / dim**0.5).softmax(-1)
        mixed = torch.einsum("hqk,khd->qhd", shares, value).reshape(-1, size)
        x = norm(x + linear(mixed, f"{layer}.attention.o_proj"), f"{layer}.attn_ln")
        up, gate = linear(x, f"{layer}.mlp.up_gate_proj").split(config["intermediate_size"], -1)
        x = norm(x + linear(functional.gelu(gate) * up, f"{layer}.mlp.down_proj"), f"{layer}.mlp_ln")
    return float(linear(linear(x[0], "new.pooler.dense").tanh(), "classifier"))


def _frequencies(config: dict[str, Any], dim: int) -> Tensor:
    scaling = config["rope_scaling"]
    factor = 1.0 if scaling is None else scaling["factor"]
    return 1 / (config["rope_theta"] * factor) ** (torch.arange(0, dim, 2).float() / dim) / factor ** (2 / dim)
