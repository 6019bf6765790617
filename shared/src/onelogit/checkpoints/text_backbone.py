"""A multimodal model's configuration -> that of its text backbone, as a model that only reads texts. No torch.

Without images, all three position ids of a token are equal, so Qwen's positions (mrope) are those of the language model
that the backbone was made from, and no features of images are added to its layers. Only such models are listed.
"""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from onelogit.checkpoints.declaration import read_architecture
from onelogit.checkpoints.metadata import SmallFiles, parse_json

# The type of a multimodal model -> the type of a model that computes the same for texts: tests compare their logits.
_TEXT_TYPES: Mapping[str, str] = MappingProxyType(
    {
        "gemma3": "gemma3_text",
        "qwen2_vl": "qwen2",
        "qwen2_5_vl": "qwen2",
        "qwen3_vl": "qwen3",
        "qwen3_5": "qwen3_5_text",
    }
)
_CLASS = re.compile(r"For(ConditionalGeneration|SequenceClassification)$")
_MROPE = ("mrope_section", "mrope_interleaved")
_DROPPED = ("model_type", "architectures", "transformers_version", "rope_scaling", "rope_theta")
_KEPT = ("quantization_config", "tie_word_embeddings", "dtype", "pad_token_id", "id2label", "label2id", "problem_type")


def has_text_backbone(texts: SmallFiles) -> bool:
    """Whether the files are those of a multimodal model whose text backbone is known."""
    return is_container(parse_json(texts, "config.json")) and _CLASS.search(read_architecture(texts)) is not None


def is_container(config: Mapping[str, Any]) -> bool:
    """Whether the fields of config.json are those of a multimodal model whose text backbone is known."""
    return config.get("model_type") in _TEXT_TYPES


def text_fields(config: Any) -> dict[str, Any]:
    """The fields of the text backbone's configuration, `model_type` among them.

    Args:
        config: of the multimodal model, as transformers reads it.
    """
    fields = {name: value for name, value in config.text_config.to_dict().items() if name not in _DROPPED}
    rope = {name: value for name, value in (fields.get("rope_parameters") or {}).items() if name not in _MROPE}
    if rope.get("rope_type") == "mrope":
        rope["rope_type"] = "default"
    if rope:
        fields["rope_parameters"] = rope
    whole = {name: getattr(config, name, None) for name in _KEPT}
    fields |= {name: value for name, value in whole.items() if value is not None}
    return {**fields, "model_type": _TEXT_TYPES[config.model_type]}
