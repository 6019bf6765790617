"""A classifier -> to which tokens its tokens attend: only earlier ones, or later ones too; may rows share prefixes?

The causes in a configuration are in `VISIBILITY_FIELDS`. A prefix can be shared only if no token of it attends to later
tokens, and if each layer passes its window to the attention function.
"""

import re
from typing import Any, Literal, NamedTuple

from transformers import PreTrainedModel

from onelogit.checkpoints.device import is_quantised
from onelogit.errors import UnsupportedModelError

Handling = Literal["both directions", "window", "padded", "refused"]


class VisibilityField(NamedTuple):
    """A field of a configuration that changes which tokens attend to which.

    Attributes:
        sources: the files of transformers 5.23 that read it.
        handling: "both directions": padded rows with a mask, after a trial; "window": shared prefixes, if
            transformers passes the window of each layer to the attention function of a tested architecture; "padded":
            rows without shared prefixes; "refused": a row's logit would depend on other rows.
        neutral: values that change nothing.
    """

    sources: tuple[str, ...]
    handling: Handling
    neutral: tuple[object, ...] = (None, False, 0, (), "")


VISIBILITY_FIELDS = {
    "is_causal": VisibilityField(("masking_utils.py",), "both directions", neutral=(True,)),
    "use_bidirectional_attention": VisibilityField(
        (
            "models/gemma/modeling_gemma.py",  # without padding only, therefore refused; so is gemma2
            "models/gemma2/modeling_gemma2.py",
            "models/gemma3/modeling_gemma3.py",
            "models/gemma4/modeling_gemma4.py",
            "models/step3p7/modeling_step3p7.py",
        ),
        "both directions",
    ),
    "sliding_window": VisibilityField(("masking_utils.py", "models/mistral/modeling_mistral.py"), "window"),
    "layer_types": VisibilityField(("masking_utils.py", "configuration_utils.py"), "window"),
    "use_sliding_window": VisibilityField(  # with max_window_layers, it makes layer_types
        ("models/qwen2/configuration_qwen2.py", "models/qwen3/configuration_qwen3.py"), "window"
    ),
    "attention_chunk_size": VisibilityField(("masking_utils.py", "models/llama4/configuration_llama4.py"), "padded"),
    "attention_types": VisibilityField(("models/gpt_neo/configuration_gpt_neo.py",), "padded"),  # with window_size
    "index_topk": VisibilityField(
        ("models/axk2/modeling_axk2.py", "models/deepseek_v32/modeling_deepseek_v32.py"), "padded"
    ),
    "prefix_lm": VisibilityField(("models/hrm_text/modeling_hrm_text.py",), "padded"),  # only with token types
    "keep_window_size": VisibilityField(("models/doge/modeling_doge.py",), "refused"),  # later tokens, too, count
    "attention_type": VisibilityField(  # one short row ends block_sparse for all later rows
        ("models/big_bird/modeling_big_bird.py", "models/funnel/configuration_funnel.py"),
        "refused",
        neutral=(None, "original_full", "relative_shift", "factorized"),
    ),
}
"""Every such field that transformers reads in a model with a sequence classifier, or in the mask functions they use.

Other encoders (XLNet's attn_type, XLM's causal, Longformer's attention_window) compute padded rows with a mask anyway.
"""

_TESTED = ("qwen2", "qwen3", "llama", "mistral", "gemma", "gemma3_text")  # tests compare these with padded rows
_LAYER_TYPES = {"full_attention", "sliding_attention"}
_RECURRENT = "linear_attention"
_SIMILAR_FIELD = re.compile("window|chunk|sparse_att|block_sparse")  # in configurations of a model's own code
_NOT_SIMILAR = ("max_window_layers", "chunk_size_feed_forward")


def check_visibility(model: PreTrainedModel) -> None:
    """Raise UnsupportedModelError if a row's logit would depend on other rows, or a window is empty."""
    config = model.config.get_text_config()
    window, is_used = getattr(config, "sliding_window", None), _layer_types(model) != {"full_attention"}
    if isinstance(window, int) and window < 1 and is_used:
        raise UnsupportedModelError(f"sliding_window={window} in config.json: a window must have at least one token")
    for name in _fields_in_use(model, "refused"):
        value = getattr(config, name)
        raise UnsupportedModelError(
            f"{name}={value!r} in config.json makes a row's logit depend on other rows; use another value"
        )


def directions_field(model: PreTrainedModel) -> str | None:
    """The field and value that declare attention in both directions, or None."""
    config = model.config.get_text_config()
    return next((f"{name}={getattr(config, name)}" for name in _fields_in_use(model, "both directions")), None)


def is_known_to_be_causal(model: PreTrainedModel) -> bool:
    """Whether tests show that tokens of this configuration attend only to earlier ones, and that it computes at all."""
    layer_types, window = _layer_types(model), getattr(model.config.get_text_config(), "sliding_window", None)
    return (
        is_tested(model)
        and directions_field(model) is None
        and layer_types <= _LAYER_TYPES
        and (window is not None or "sliding_attention" not in layer_types)
    )


def may_share_prefixes(model: PreTrainedModel) -> bool:
    """Whether a causal model can use prefix sharing, judging by its configuration."""
    config = model.config.get_text_config()
    return (
        _layer_types(model) <= {*_LAYER_TYPES, _RECURRENT}
        and (is_tested(model) or not _may_have_windows(model))  # some models pass their windows to the mask only
        and getattr(config, "attn_logit_softcapping", None) is None
        and not rotates_by_length(model)
    )


def is_known_to_share_prefixes(model: PreTrainedModel) -> bool:
    """Whether tests compare this configuration, in transformers' code and on this type of device, with padded rows.

    False for quantised weights: with some kinds, a token's result depends on the other tokens of the batch.
    """
    return is_known_to_be_causal(model) and model.device.type == "cpu" and not is_quantised(model.config)


def is_tested(model: PreTrainedModel) -> bool:
    """Whether tests compare this architecture, in transformers' code, with padded rows."""
    decoder: Any = model.base_model
    return type(decoder).__module__.startswith("transformers.models.") and decoder.config.model_type in _TESTED


def rotates_by_length(model: PreTrainedModel) -> bool:
    """Whether a token's rotary embedding depends on the length of the longest row in its batch."""
    parameters = str(getattr(model.config.get_text_config(), "rope_parameters", None))
    return "longrope" in parameters or "dynamic" in parameters


def _may_have_windows(model: PreTrainedModel) -> bool:
    fields = model.config.get_text_config().to_dict()
    similar = [
        name for name in fields if _SIMILAR_FIELD.search(name) and name not in (*_NOT_SIMILAR, *VISIBILITY_FIELDS)
    ]
    known = {*_fields_in_use(model, "window"), *_fields_in_use(model, "padded")}
    if _layer_types(model) <= {"full_attention", _RECURRENT}:
        known.discard("layer_types")
    return bool(known) or any(fields[name] for name in similar)


def _layer_types(model: PreTrainedModel) -> set[str]:
    return set(getattr(model.config.get_text_config(), "layer_types", None) or ())


def _fields_in_use(model: PreTrainedModel, handling: Handling) -> list[str]:
    config = model.config.get_text_config()
    return [
        name
        for name, field in VISIBILITY_FIELDS.items()
        if field.handling == handling
        and hasattr(config, name)
        and (value := getattr(config, name)) not in field.neutral
        and value != []
    ]
