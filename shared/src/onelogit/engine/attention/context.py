"""A decoder of transformers -> the same decoder, able to attend over a prefix tree. Its code is not changed.

An AttentionContext has the keys to which the tokens of one batch attend. An attention function, registered with
transformers under its own name, uses the active context; position ids give each token's position in its row.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from onelogit.engine.attention.backend import AttentionBackend, KeySources, KeyValue, LayerKeyValues, check_plain_scores
from onelogit.engine.attention.flash_varlen import FlashVarlenAttention
from onelogit.engine.attention.recurrent import StateContext
from onelogit.engine.attention.sdpa import ProductAttention, SdpaAttention
from onelogit.engine.device_transfer import tensor_on
from onelogit.engine.prefix_tree import Batch, KeyPath

_NAME = "onelogit_prefix_tree"
_TOKEN_BY_TOKEN = ("self_attn.q_proj", "self_attn.o_proj", "mlp")

BACKENDS: Mapping[str, Sequence[type[AttentionBackend]]] = {
    "cuda": [FlashVarlenAttention],
    "cpu": [ProductAttention],
}
"""The backends for each type of device. A layer uses the first one that supports its query, or SdpaAttention."""


def padded_length(token_count: int, device: torch.device) -> int:
    """The length to which a batch should be padded, regardless of which backend its layers use."""
    return max(backend.padded_length(token_count, device) for backend in backends_of(device))


def backends_of(device: torch.device) -> list[type[AttentionBackend]]:
    """The backends for a device, the preferred one first."""
    return [*BACKENDS.get(device.type, ()), SdpaAttention]


class AttentionContext:
    """One pass of a batch through the layers: the keys to which its tokens attend, and the keys needed afterwards.

    Args:
        batch: the batch to compute.
        layer_count: of the model; the last layer computes only the rows' last tokens.
        carried: keys and values from the batch before; may be empty.
        cached: keys and values in the prefix cache; may be empty.
        padded_length: the number of tokens that the layers compute: the batch, then padding.
        states: for recurrent layers; None if the model has none.

    Attributes:
        cacheable_key_values: keys and values of `batch.cacheable_prefixes`, one prefix after the other.
        carry: keys and values of `batch.carry`.
    """

    def __init__(
        self,
        batch: Batch,
        layer_count: int,
        carried: LayerKeyValues,
        cached: LayerKeyValues,
        padded_length: int,
        states: StateContext | None = None,
    ) -> None:
        self.batch, self.padded_length, self.states = batch, padded_length, states
        self.cacheable_key_values: LayerKeyValues = []
        self.carry: LayerKeyValues = []
        self._layer_count, self._carried, self._cached = layer_count, carried, cached
        paths = (*(prefix.path for prefix in batch.cacheable_prefixes), batch.carry)
        self._outgoing: KeyPath = tuple(span for path in paths for span in path)
        self._cacheable_tokens = sum(prefix.length for prefix in batch.cacheable_prefixes)
        self._backend_of: dict[type[AttentionBackend], AttentionBackend] = {}
        self._ends: dict[torch.device, Tensor] = {}
        self._numbers: dict[int, int] = {}

    def ends(self, device: torch.device) -> Tensor:
        """The indices of the rows' last tokens, shape (rows that end in the batch,)."""
        if device not in self._ends:
            self._ends[device] = tensor_on(device, [*self.batch.ends])
        return self._ends[device]

    def attend(self, query: Tensor, own: KeyValue, layer: int, scaling: float | None, window: int | None) -> Tensor:
        """The output of attention for each token. Also stores the keys needed afterwards: call it layer by layer, once.

        Args:
            query: shape (heads, tokens, head_dim).
            own: keys and values of these tokens.
            layer: index of the layer.
            scaling: factor of the scores; None for 1 / sqrt(head_dim).
            window: the number of tokens to which a token attends, itself included; None for all before it.

        Returns:
            Shape (tokens, heads, head_dim). In the last layer, zeros for all tokens except the rows' last ones.
        """
        nothing = own.part(0, 0)
        number = self._numbers.setdefault(layer, len(self._numbers))  # recurrent layers have neither keys nor values
        carried, cached = (layers[number] if layers else nothing for layers in (self._carried, self._cached))
        sources = KeySources(own, carried, cached)
        kind = next(each for each in backends_of(query.device) if each.supports(query))
        backend = self._backend_of.get(kind) or self._backend_of.setdefault(kind, kind(self.batch, self._outgoing))
        if self._outgoing:
            copy = backend.copy_outgoing(sources)
            self.cacheable_key_values.append(copy.part(0, self._cacheable_tokens))
            self.carry.append(copy.part(self._cacheable_tokens))
        is_last = layer == self._layer_count - 1
        if is_last and not self.batch.ends:
            return query.new_zeros((query.shape[1], query.shape[0], own.values.shape[-1]))
        return backend.attend(query, sources, scaling, window, ends_only=is_last)


_active: ContextVar[AttentionContext | None] = ContextVar("attention_context", default=None)


@contextmanager
def use_context(context: AttentionContext) -> Iterator[None]:
    """Make models attend as in this context, inside the block and only in this thread."""
    token = _active.set(context)
    try:
        yield
    finally:
        _active.reset(token)


def active_context() -> AttentionContext | None:
    """The context of the `use_context` block in which this thread is."""
    return _active.get()


def can_attend_over_prefix_tree(model: PreTrainedModel) -> bool:
    """Whether the attention function can be replaced: the caller chose no other, and the model needs no other."""
    return model.config.get_text_config()._attn_implementation in ("sdpa", _NAME)


def attends_over_prefix_tree(model: PreTrainedModel) -> bool:
    """Whether `enable_prefix_tree_attention` is in effect: other code may set another attention at any time."""
    decoder: Any = model.base_model
    return bool(decoder.config._attn_implementation == _NAME)


def enable_prefix_tree_attention(model: PreTrainedModel) -> None:
    """Make a model able to attend over prefix trees. Outside `use_context`, it still attends as with "sdpa"."""
    _set_attention(model, _NAME)
    _compute_ends_only(model.base_model)


def disable_prefix_tree_attention(model: PreTrainedModel) -> None:
    """Use "sdpa" again. The hooks stay registered, but do nothing outside `use_context`."""
    _set_attention(model, "sdpa")


def _set_attention(model: PreTrainedModel, name: str) -> None:
    parts: list[Any] = [model, model.base_model]  # older transformers set it only on the given part
    for part in parts:
        part.set_attn_implementation(name)


@torch.compiler.disable  # type: ignore[untyped-decorator]  # each batch has a different prefix tree
def _prefix_tree_attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, Tensor | None]:
    context = _active.get()
    if context is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    check_plain_scores(options)
    attended = context.attend(
        query[0],
        KeyValue(key[0].transpose(0, 1), value[0].transpose(0, 1)),
        layer=int(module.layer_idx),
        scaling=options.get("scaling"),
        window=options.get("sliding_window"),
    )
    return attended[None], None


def _compute_ends_only(decoder: Any) -> None:
    """In the last layer, compute queries, attention's output and the MLP only for the rows' last tokens."""
    layers = getattr(decoder, "layers", None)
    if not isinstance(layers, nn.ModuleList) or hasattr(decoder, "_computes_ends_only"):
        return
    decoder._computes_ends_only = True
    for name, module in layers[-1].named_modules():
        if name in _TOKEN_BY_TOKEN:
            module.register_forward_pre_hook(_select_ends)
            module.register_forward_hook(_restore_length)


def _select_ends(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    context = _active.get()
    return args if context is None else (args[0][:, _computed_indices(context, args[0].device)], *args[1:])


def _restore_length(_: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> Tensor:
    context = _active.get()
    if context is None:
        return output
    indices = _computed_indices(context, output.device)
    return output.new_zeros((1, context.padded_length, output.shape[-1])).index_copy_(1, indices, output)


def _computed_indices(context: AttentionContext, device: torch.device) -> Tensor:
    """The indices of the rows' last tokens, or one unused token: bitsandbytes divides by the number of tokens."""
    return context.ends(device) if context.batch.ends else tensor_on(device, [0])


# Here, because unpickling a model in another process only imports this module, for the hooks.
AttentionInterface.register(_NAME, _prefix_tree_attention)
AttentionMaskInterface.register(_NAME, sdpa_mask)
