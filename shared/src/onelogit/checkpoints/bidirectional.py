"""The fields of a decoder that attends in both directions -> a native configuration, and its pooled head. No torch.

NVIDIA's NeMo Automodel saves cross-encoders as `LlamaBidirectionalForSequenceClassification`, a class that transformers
does not have: Llama without a causal mask, a pooled last hidden state, a linear layer, and a temperature. transformers'
own classes attend in both directions, too, if their configuration says so, but they always read the last token.

Source: nemo_automodel 0.7.0, components/models/llama_bidirectional/model.py; vllm 0.33, models/config.py.
"""

import math
import re
from typing import Any, NamedTuple

from onelogit.checkpoints.declaration import architecture_of, is_encoder, read_architecture
from onelogit.checkpoints.metadata import SmallFiles, parse_json
from onelogit.checkpoints.module_chain import Pooling, read_module_chain
from onelogit.errors import CheckpointError, UnsupportedModelError

_CLASS = re.compile(r"Bidirectional\w*For(SequenceClassification|CausalLM)$")
_MODEL_TYPE = re.compile(r"(\w+?)_bidirec(?:tional)?")  # the native type, and what these classes append to it
_POOLINGS: dict[str, Pooling] = {
    "avg": "mean",
    "mean": "mean",
    "cls": "cls",
    "last": "lasttoken",
    "lasttoken": "lasttoken",
    "last_token": "lasttoken",
}
POOLING_FIELDS = ("pooling", "temperature")
_NOT_NATIVE = ("auto_map", "architectures", *POOLING_FIELDS)


class PooledHead(NamedTuple):
    """How the logit is computed from the last hidden states: `head(pooled state) / temperature`."""

    pooling: Pooling
    temperature: float


def read_pooled_head(texts: SmallFiles) -> PooledHead | None:
    """The pooling and temperature in config.json; None for a head that reads the last token, or follows other modules.

    Classes for both directions pool by default the mean. Other classes pool only if their configuration declares both
    directions and a pooling.

    Raises:
        UnsupportedModelError: the pooling is unknown.
        CheckpointError: the temperature is not a number above 0.
    """
    config, found = parse_json(texts, "config.json"), _CLASS.search(read_architecture(texts))
    declared = config.get("pooling")
    is_pooled = found is not None or (declared is not None and _attends_both_ways(config) and not is_encoder(texts))
    if not is_pooled or read_module_chain(texts) is not None:
        return None
    default = "last" if found is not None and found[1] == "CausalLM" else "avg"
    return PooledHead(_pooling(default if declared is None else declared), _temperature(config.get("temperature")))


def native_fields(config: dict[str, Any]) -> dict[str, Any] | None:
    """The fields of the native configuration of a class for both directions.

    Returns:
        None for any other class, and for a configuration that transformers reads as it is.
    """
    model_type, is_causal = _MODEL_TYPE.fullmatch(str(config.get("model_type"))), config.get("is_causal")
    is_native = model_type is None and is_causal is not None and "auto_map" not in config
    if is_native or (model_type is None and not _CLASS.search(architecture_of(config))):
        return None
    return {
        **{name: value for name, value in config.items() if name not in _NOT_NATIVE},
        "model_type": config.get("model_type") if model_type is None else model_type[1],
        "is_causal": False if is_causal is None else is_causal,
    }


def _attends_both_ways(config: dict[str, Any]) -> bool:
    return config.get("is_causal") is False or bool(config.get("use_bidirectional_attention"))


def _pooling(name: object) -> Pooling:
    if not isinstance(name, str) or name not in _POOLINGS:
        raise UnsupportedModelError(
            f"pooling={name!r} in config.json is unknown; onelogit pools by {', '.join(_POOLINGS)}"
        )
    return _POOLINGS[name]


def _temperature(value: object) -> float:
    if value is None:
        return 1.0
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 < value < math.inf:  # type: ignore[operator]
        raise CheckpointError(
            f"temperature={value!r} in config.json: logits are divided by it, so correct it to a number above 0"
        )
    return float(value)  # type: ignore[arg-type]
