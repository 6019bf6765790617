"""Tiny multimodal checkpoints with random weights: a vision tower, and a text backbone with a language-model head."""

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForImageTextToText, PreTrainedModel, PreTrainedTokenizerFast

from support.tiny import ANSWERS, Tiny, byte_level_tokenizer

_TEXT = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 2048,
    "initializer_range": 0.3,
}
_MROPE = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [6, 5, 5]}
_LINEAR = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 2,
    "linear_key_head_dim": 32,
    "linear_value_head_dim": 32,
}
_VISION = {"depth": 2, "num_heads": 2, "patch_size": 4, "out_hidden_size": 64, "spatial_merge_size": 2}
# Of each kind of container: the fields of its text backbone, and of its vision tower.
CONTAINERS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "qwen3_vl": (
        {"head_dim": 32, "rope_parameters": {**_MROPE, "mrope_interleaved": True}},
        {**_VISION, "hidden_size": 32, "intermediate_size": 32, "deepstack_visual_indexes": [0, 1]},
    ),
    "qwen2_5_vl": (
        {"rope_parameters": _MROPE},
        {**_VISION, "hidden_size": 32, "intermediate_size": 32, "fullatt_block_indexes": [1]},
    ),
    "qwen2_vl": (
        {"rope_parameters": _MROPE},
        {"depth": 2, "embed_dim": 32, "hidden_size": 64, "num_heads": 2, "patch_size": 4},
    ),
    "qwen3_5": (
        {
            "head_dim": 32,
            "layer_types": ["linear_attention", "full_attention"],
            "rope_parameters": {
                **_MROPE,
                "mrope_interleaved": True,
                "partial_rotary_factor": 0.5,
                "mrope_section": [3, 3, 2],
            },
            **_LINEAR,
        },
        {**_VISION, "hidden_size": 32, "intermediate_size": 32},
    ),
    "gemma3": (
        {"head_dim": 32, "sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"]},
        {
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": 16,
            "patch_size": 4,
        },
    ),
}


@lru_cache(maxsize=16)
def _parts(kind: str, is_tied: bool, changes: str) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    torch.manual_seed(5)
    tokenizer = byte_level_tokenizer(None, ANSWERS)
    text, vision = CONTAINERS[kind]
    ids = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id, "bos_token_id": None}
    config = CONFIG_MAPPING[kind](
        text_config={
            **_TEXT,
            **text,
            **ids,
            "vocab_size": len(tokenizer),
            "tie_word_embeddings": is_tied,
            **json.loads(changes),
        },
        vision_config=vision,
        tie_word_embeddings=is_tied,
        initializer_range=0.3,
    )
    return AutoModelForImageTextToText.from_config(config).eval(), tokenizer


def multimodal_checkpoint(
    folder: Path,
    kind: str = "qwen3_vl",
    *,
    is_tied: bool = False,
    files: Mapping[str, object] | None = None,
    **text_fields: object,
) -> Tiny:
    """Save a multimodal model, with changed fields of its text backbone, and more files as in `causal_checkpoint`."""
    model, tokenizer = _parts(kind, is_tied, json.dumps(text_fields))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for name, content in (files or {}).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return Tiny(model, tokenizer, folder)
