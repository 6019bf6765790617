"""A config.json that asks for own Python code or images -> the configuration of an equal class of transformers.

Only what was proved to be equal is translated. Of everything else, the own code is needed.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import CONFIG_MAPPING, AutoConfig, PretrainedConfig

from onelogit.checkpoints.bidirectional import native_fields
from onelogit.checkpoints.hub import files_of_tensors
from onelogit.checkpoints.tensor_names import wrapped_names
from onelogit.checkpoints.text_backbone import is_container, text_fields

# Fields of Alibaba-NLP/new-impl, with the only values that transformers' GTE computes.
_GTE_FIELDS = {
    "position_embedding_type": "rope",
    "layer_norm_type": "layer_norm",
    "logn_attention_scale": False,
    "pack_qkv": True,
}
_GTE_DROPPED = (
    *("auto_map", "rope_theta", "rope_scaling", "unpad_inputs", "use_memory_efficient_attention"),
    *("logn_attention_clip1", "transformers_version"),
)


def native_config(folder: Path) -> PretrainedConfig | None:
    """The configuration of a checkpoint's native class; None if it needs none, or if there is none.

    Its `model_type` is not that of config.json, so transformers must be given it with the folder.

    Source: https://huggingface.co/Alibaba-NLP/new-impl (modeling.py); transformers 5.23, models/gte.
    """
    config, _ = PretrainedConfig.get_config_dict(folder)
    if why_not_native(folder) is not None:
        return None
    if (fields := native_fields(config)) is not None:
        return AutoConfig.for_model(**fields)
    if is_container(config):
        return AutoConfig.for_model(**text_fields(AutoConfig.from_pretrained(folder)))
    if config.get("model_type") != "new":
        return None
    fields = {name: value for name, value in config.items() if name not in (*_GTE_FIELDS, *_GTE_DROPPED)}
    architectures = [str(each).replace("New", "Gte", 1) for each in config.get("architectures") or []]
    return AutoConfig.for_model(
        **{**fields, "model_type": "gte", "architectures": architectures, "rope_parameters": _gte_rope(config)}
    )


def native_names(folder: Path) -> dict[str, str]:
    """Patterns of the tensors that have another name in the class that is loaded; see `wrapped_names`, which raises."""
    config, _ = PretrainedConfig.get_config_dict(folder)
    return wrapped_names(files_of_tensors(folder), folder, is_text_part=is_container(config))


def why_not_native(folder: Path) -> str | None:
    """Why a native class does not compute what a checkpoint's config.json asks for; None if it does."""
    config, _ = PretrainedConfig.get_config_dict(folder)
    fields = native_fields(config)
    if fields is not None and fields["model_type"] not in CONFIG_MAPPING:
        return f"transformers has no {fields['model_type']}"
    if config.get("model_type") != "new":
        return None
    wrong = next((name for name, value in _GTE_FIELDS.items() if config.get(name, value) != value), None)
    if wrong is not None:
        return f"transformers' GTE has no {wrong}={config[wrong]!r}"
    scaling = config.get("rope_scaling")
    kind = None if scaling is None else scaling.get("type", scaling.get("rope_type"))
    if scaling is not None and (kind != "ntk" or scaling.get("mixed_b") is not None):
        return f"transformers' GTE has no rope_scaling={scaling!r}"
    try:
        AutoConfig.for_model("gte")
    except ValueError:
        return "this version of transformers has no GTE; install transformers 5.23 or newer"
    return None


def _gte_rope(config: Mapping[str, Any]) -> dict[str, Any]:
    """The own code scales the base by the factor, and divides each frequency by factor ** (2 / head_dim)."""
    theta, scaling = config.get("rope_theta", 10000.0), config.get("rope_scaling") or {}
    factor = float(scaling.get("factor", 1))
    if factor <= 1:
        return {"rope_type": "default", "rope_theta": theta}
    head_dim = config["hidden_size"] // config["num_attention_heads"]
    return {"rope_type": "linear", "rope_theta": theta * factor, "factor": factor ** (2 / head_dim)}
