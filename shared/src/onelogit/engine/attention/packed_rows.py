"""Padded rows -> the same rows one after the other, without padding, and back; each attends to itself alone.

A model's embeddings and its head read padded rows. In between, where almost all work is, its layers compute the packed
rows in use. An attention function and a mask function, registered with transformers under their own name, read them.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from onelogit.engine.attention.backend import check_plain_scores
from onelogit.engine.attention.row_attention import Pattern, RowAttention
from onelogit.engine.attention.sdpa import SdpaAttention
from onelogit.engine.device_transfer import indices_of, tensor_on, to_device
from onelogit.errors import UnsupportedModelError

_NAME = "onelogit_packed_rows"
_ONE_WHOLE_ROW = {
    "batch_size": 1,
    "attention_mask": None,
    "allow_is_causal_skip": False,
    "allow_is_bidirectional_skip": False,
}


class PackedRows:
    """One pass of rows through a model.

    Args:
        lengths: of the rows, in tokens.
        device: of the model.
        read: the index in each row of the only token whose last hidden state is needed; None for all.

    Attributes:
        has_attended: whether the last layer is being computed, and its attention is done.
    """

    def __init__(self, lengths: Sequence[int], device: torch.device, read: int | None = None) -> None:
        self.lengths, self.read = lengths, read
        self._is_last_layer = self.has_attended = False
        self._shape = (len(lengths), max(lengths))
        self._count = sum(lengths)
        starts = range(0, self._shape[0] * self._shape[1], self._shape[1])
        indices = indices_of([(start, start + length) for start, length in zip(starts, lengths, strict=True)])
        padding = SdpaAttention.padded_length(self._count, device) - self._count
        self._indices = to_device(torch.cat([indices, indices[:1].expand(padding)]), device)
        self._packed: dict[int, tuple[Tensor, Tensor]] = {}
        self._patterns: dict[int, tuple[Tensor, Pattern]] = {}
        self._attention: dict[tuple[int, bool], RowAttention] = {}
        first = [end - length for end, length in zip(accumulate(lengths), lengths, strict=True)]
        index = 0 if read is None else read
        self._read_indices = tensor_on(
            device, [start + index % length for start, length in zip(first, lengths, strict=True)]
        )

    def enter_last_layer(self) -> None:
        """From now on, only the tokens that are read need queries, and, once they have attended, anything else."""
        self._is_last_layer = self.read is not None

    def leave_last_layer(self) -> None:
        """The opposite of `enter_last_layer`."""
        self._is_last_layer = self.has_attended = False

    def pack(self, value: Any) -> Any:
        """A padded tensor as (1, tokens, ...), or a tuple of such tensors; anything else is returned as it is."""
        if self._shape == (1, len(self._indices)):
            return value
        if isinstance(value, tuple):
            return tuple(map(self.pack, value))
        if not isinstance(value, Tensor) or value.dim() not in (2, 3):
            return value
        if value.shape[:2] not in (self._shape, (1, self._shape[1])):
            return value
        if id(value) not in self._packed:
            whole = value.expand(*self._shape, *value.shape[2:]).flatten(0, 1)
            self._packed[id(value)] = value, whole[self._indices.to(value.device)][None]
        return self._packed[id(value)][1]

    def unpack(self, hidden: Tensor) -> Tensor:
        """Packed hidden states, shape (1, tokens, hidden), as padded ones, shape (rows, longest, hidden)."""
        padded = hidden.new_zeros((self._shape[0] * self._shape[1], hidden.shape[-1]))
        padded.index_copy_(0, self._indices[: self._count].to(hidden.device), hidden[0, : self._count])
        return padded.view(*self._shape, -1)

    def new_mask(self, **options: Any) -> Tensor:
        """The mask of a whole row of the greatest length, which stands for all rows' masks in the layers."""
        mask = sdpa_mask(**{**options, **_ONE_WHOLE_ROW})
        if mask is None or mask.shape != (1, 1, self._shape[1], self._shape[1]):
            raise UnsupportedModelError("packed rows can only have masks of queries and keys that are the same tokens")
        self._patterns[id(mask)] = mask, Pattern.of_mask(mask[0, 0].cpu())
        return mask

    def attention(self, mask: Tensor | None) -> RowAttention:
        """The layer's attention, with the pattern that a mask from `new_mask` stands for."""
        if id(mask) not in self._patterns:
            raise UnsupportedModelError("the model makes its own attention masks, which packed rows cannot have")
        key = id(mask), self._is_last_layer
        if key not in self._attention:
            read = self.read if self._is_last_layer else None
            self._attention[key] = RowAttention(self.lengths, self._patterns[id(mask)][1], read)
        self.has_attended = self._is_last_layer
        return self._attention[key]

    def select(self, hidden: Tensor) -> Tensor:
        """In the last layer, the states of the tokens that are read, shape (1, rows, hidden); else all."""
        return hidden[:, self._read_indices.to(hidden.device)] if self._is_last_layer else hidden

    def restore(self, selected: Tensor) -> Tensor:
        """The inverse of `select`, with zeros for all other tokens."""
        if not self._is_last_layer:
            return selected
        whole = selected.new_zeros((1, len(self._indices), selected.shape[-1]))
        return whole.index_copy_(1, self._read_indices.to(selected.device), selected)


active: ContextVar[PackedRows | None] = ContextVar("packed_rows", default=None)
"""The rows of the `use_packed_rows` block in which this thread is; None outside."""


@contextmanager
def use_packed_rows(rows: PackedRows) -> Iterator[None]:
    """Make models compute packed rows, inside the block and only in this thread."""
    token = active.set(rows)
    try:
        yield
    finally:
        active.reset(token)


def can_attend_over_packed_rows(model: PreTrainedModel) -> bool:
    """Whether the attention function can be replaced: the caller chose no other, and the model needs no other."""
    return model.config.get_text_config()._attn_implementation in ("sdpa", _NAME)


def attends_over_packed_rows(model: PreTrainedModel) -> bool:
    """Whether `enable_packed_attention` is in effect: other code may set another attention at any time."""
    base: Any = model.base_model
    return bool(base.config._attn_implementation == _NAME)


def enable_packed_attention(model: PreTrainedModel) -> None:
    """Make a model able to attend over packed rows. Outside `use_packed_rows`, it still attends as with "sdpa"."""
    _set_attention(model, _NAME)


def disable_packed_attention(model: PreTrainedModel) -> None:
    """Use "sdpa" again."""
    _set_attention(model, "sdpa")


def _set_attention(model: PreTrainedModel, name: str) -> None:
    parts: list[Any] = [model, model.base_model]  # older transformers set it only on the given part
    for part in parts:
        part.set_attn_implementation(name)


def _packed_mask(*args: Any, **options: Any) -> Tensor | None:
    rows = active.get()
    if rows is None:
        return sdpa_mask(*args, **options)
    return rows.new_mask(**options)


def _packed_attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, Tensor | None]:
    rows = active.get()
    if rows is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    check_plain_scores(options)
    scaling = options.get("scaling")
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    return rows.attention(attention_mask).attend(query[0], key[0], value[0], scaling)[None], None


# Here, because unpickling a model in another process only imports this module, for the hooks.
AttentionInterface.register(_NAME, _packed_attention)
AttentionMaskInterface.register(_NAME, _packed_mask)
