"""A decoder of transformers -> the same one, able to read a batch of a forest. The model's code stays theirs.

Attention is registered with transformers under a name of ours; position ids say where in its row a token stands.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from onelogit.checkpoints.device import is_quantised
from onelogit.engine.attention.context import AttentionContext
from onelogit.engine.device_transfer import tensor_on
from onelogit.engine.keys import KeyValue

_NAME = "onelogit_forest"
_KNOWN = ("qwen2", "qwen3", "llama", "mistral", "gemma", "gemma3_text")  # the tests hold these to the padded path
_LAYER_TYPES = {"full_attention", "sliding_attention"}
_TOKEN_BY_TOKEN = ("self_attn.q_proj", "self_attn.o_proj", "mlp")


_current: ContextVar[AttentionContext | None] = ContextVar("reading", default=None)


@contextmanager
def current(context: AttentionContext) -> Iterator[None]:
    """Within this block, in this thread only, models read this batch; see `enable_prefix_tree_attention`."""
    token = _current.set(context)
    try:
        yield
    finally:
        _current.reset(token)


def may_share_prefixes(model: PreTrainedModel) -> bool:
    """Whether nothing that is known of a model speaks against it: what its layers do, what its owner asked for."""
    config = model.config.get_text_config()
    layer_types = set(getattr(config, "layer_types", None) or ())
    has_windows = getattr(config, "sliding_window", None) is not None or "sliding_attention" in layer_types
    return (
        config._attn_implementation in ("sdpa", _NAME)  # another one is the owner's choice, or the model's need
        and layer_types <= _LAYER_TYPES
        and (not has_windows or _is_known(model))  # some tell their windows to the mask alone
        and getattr(config, "attn_logit_softcapping", None) is None
        and not rotates_by_length(model)
    )


def is_known_to_share_prefixes(model: PreTrainedModel) -> bool:
    """Whether tests hold this architecture, in transformers' code and on this kind of device, to the padded path.

    Not with quantised weights: what some of them compute for a token depends on those beside it.
    """
    return _is_known(model) and model.device.type == "cpu" and not is_quantised(model.config)


def _is_known(model: PreTrainedModel) -> bool:
    decoder: Any = model.base_model
    return type(decoder).__module__.startswith("transformers.models.") and decoder.config.model_type in _KNOWN


def attends_over_prefix_tree(model: PreTrainedModel) -> bool:
    """Whether `enable_prefix_tree_attention` is in force: anybody may set another attention at any time."""
    decoder: Any = model.base_model
    return bool(decoder.config._attn_implementation == _NAME)


def rotates_by_length(model: PreTrainedModel) -> bool:
    """Whether a token's rotary embedding depends on how long the longest row beside it is."""
    parameters = str(getattr(model.config.get_text_config(), "rope_parameters", None))
    return "longrope" in parameters or "dynamic" in parameters


def enable_prefix_tree_attention(model: PreTrainedModel) -> None:
    """Let a model attend over forests. Outside of `current` it goes on attending as by "sdpa"."""
    AttentionInterface.register(_NAME, _prefix_tree_attention)
    AttentionMaskInterface.register(_NAME, sdpa_mask)
    _attend_by(model, _NAME)
    _read_ends_alone(model.base_model)


def disable_prefix_tree_attention(model: PreTrainedModel) -> None:
    """Use "sdpa" from now on. The hooks that stay registered do nothing outside `current`."""
    _attend_by(model, "sdpa")


def _attend_by(model: PreTrainedModel, name: str) -> None:
    parts: list[Any] = [model, model.base_model]  # older transformers do not tell the one what the other is told
    for part in parts:
        part.set_attn_implementation(name)


@torch.compiler.disable  # type: ignore[untyped-decorator]  # who sees whom is another matter in each batch
def _prefix_tree_attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, Tensor | None]:
    context = _current.get()
    if context is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    attended = context.attend(
        query[0],
        KeyValue(key[0].transpose(0, 1), value[0].transpose(0, 1)),
        layer=int(module.layer_idx),
        scaling=options.get("scaling"),
        window=options.get("sliding_window"),
    )
    return attended[None], None


def _read_ends_alone(decoder: Any) -> None:
    """In the last layer, compute queries, attention's output and the MLP for the rows' last tokens alone."""
    layers = getattr(decoder, "layers", None)
    if not isinstance(layers, nn.ModuleList) or hasattr(decoder, "_reads_ends_alone"):
        return
    decoder._reads_ends_alone = True
    for name, module in layers[-1].named_modules():
        if name in _TOKEN_BY_TOKEN:
            module.register_forward_pre_hook(_take_ends)
            module.register_forward_hook(_put_back_ends)


def _take_ends(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    context = _current.get()
    return args if context is None else (args[0][:, _computed(context, args[0].device)], *args[1:])


def _put_back_ends(_: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> Tensor:
    context = _current.get()
    if context is None:
        return output
    places = _computed(context, output.device)
    return output.new_zeros((1, context.width, output.shape[-1])).index_copy_(1, places, output)


def _computed(context: AttentionContext, device: torch.device) -> Tensor:
    """The rows' last tokens; where no row ends, one that nobody reads: bitsandbytes divides by the number of tokens."""
    return context.ends(device) if context.batch.ends else tensor_on(device, [0])
