"""A classifier that computes padded rows -> the same classifier; its layers compute them without padding, if possible.

It is tried on a few rows when it is loaded. If their hidden states or logits differ, or the model's code cannot do it,
the classifier computes padded rows as before.
"""

import logging
import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from onelogit.engine.attention.packed_rows import (
    PackedRows,
    active,
    can_attend_over_packed_rows,
    disable_packed_attention,
    enable_packed_attention,
    use_packed_rows,
)
from onelogit.engine.attention.sdpa import LENGTH_MULTIPLE
from onelogit.engine.directions import sample_rows, tolerance
from onelogit.engine.forward import has_own_head
from onelogit.engine.padding import hidden_of, hooked, largest_difference, layers_of, recorded_states
from onelogit.prompts.token_rows import TokenRow

logger = logging.getLogger(__name__)

_MAX_PADDED = 2  # tokens of the padded rows, at most this many times `batch_tokens`

_QUERY_NAMES = ("query", "q_proj", "q_lin")  # products that make nothing but queries

Compute = Callable[[PreTrainedModel, Sequence[TokenRow]], Tensor]
"""Computes padded rows: `forward.own_head_logits` or `forward.padded_hidden`."""


@dataclass(frozen=True, slots=True)
class Packing:
    """How a classifier computes packed rows; `read` as in `PackedRows`."""

    compute: Compute
    read: int | None

    def __call__(self, classifier: PreTrainedModel, rows: Sequence[TokenRow]) -> Tensor:
        """As `compute(classifier, rows)`, with packed rows in the layers."""
        read = None if self._may_read_another(classifier, rows) else self.read
        with use_packed_rows(PackedRows([len(row.ids) for row in rows], classifier.device, read)):
            return self.compute(classifier, rows)

    def _may_read_another(self, classifier: PreTrainedModel, rows: Sequence[TokenRow]) -> bool:
        """Whether a row contains the padding's id: heads of transformers read the last token that differs from it."""
        padding = classifier.config.get_text_config().pad_token_id
        return has_own_head(classifier) and any(padding in row.ids for row in rows)


def enable_packing(classifier: PreTrainedModel, compute: Compute) -> Packing | None:
    """Let the layers compute packed rows, in place; returns how, or None if they cannot."""
    layers = layers_of(classifier)
    if layers is None or not can_attend_over_packed_rows(classifier):
        return None
    name = type(classifier).__name__
    try:
        trial = _Trial(classifier, layers, compute)
        packing = Packing(compute, trial.find_read())
        enable_packed_attention(classifier)
        _add_hooks(layers)
        difference = trial.difference(packing)
    except Exception as error:  # a model's code may fail in any way on input that it was not written for
        logger.info("%s cannot compute packed rows: %s", name, error)
        difference = math.inf
    logger.info("%s: packing rows changes logits and hidden states by %.2g", name, difference)
    if difference < tolerance(classifier):
        return packing
    disable_packed_attention(classifier)
    return None


def row_count(lengths: Sequence[int], batch_tokens: int, *, is_packed: bool) -> int:
    """How many of the first rows make a batch; at least one, even if it is longer than `batch_tokens`.

    Args:
        lengths: of the rows in tokens, the longest first.
        batch_tokens: maximum number of tokens in a batch: with padding, or, for packed rows, without it.
        is_packed: whether the rows are packed.
    """
    padded = batch_tokens // lengths[0]
    if not is_packed:
        return max(1, padded)
    # Embeddings and heads compute padded rows, so a batch of very different lengths would be mostly padding there.
    budget = batch_tokens // LENGTH_MULTIPLE * LENGTH_MULTIPLE  # to which the batch is padded at its end
    return max(1, bisect_right(list(accumulate(lengths[: _MAX_PADDED * padded])), budget))


def _add_hooks(layers: nn.ModuleList) -> None:
    """Pack what enters the layers; in the last one, compute queries, and all after attention, only for what is read."""
    if hasattr(layers, "_packs_rows"):
        return
    layers._packs_rows = True  # type: ignore[assignment]
    for layer in layers:
        layer.register_forward_pre_hook(_pack_arguments, with_kwargs=True)
    layers[-1].register_forward_pre_hook(_enter_last_layer)
    layers[-1].register_forward_hook(_leave_last_layer)
    for name, module in layers[-1].named_modules():
        if isinstance(module, nn.Linear):
            is_query = name.endswith(_QUERY_NAMES)
            module.register_forward_pre_hook(partial(_select, is_query=is_query))
            module.register_forward_hook(partial(_restore, is_query=is_query))


def _pack_arguments(
    _: nn.Module, args: tuple[Any, ...], options: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    rows = active.get()
    if rows is None:
        return args, options
    return tuple(map(rows.pack, args)), {name: rows.pack(value) for name, value in options.items()}


def _enter_last_layer(_: nn.Module, __: tuple[Any, ...]) -> None:
    rows = active.get()
    if rows is not None:
        rows.enter_last_layer()


def _leave_last_layer(_: nn.Module, __: tuple[Any, ...], output: Any) -> Any:
    rows = active.get()
    if rows is None:
        return output
    rows.leave_last_layer()
    return _replaced(output, rows.unpack(hidden_of(output)))


def _select(_: nn.Module, args: tuple[Tensor, ...], *, is_query: bool) -> tuple[Tensor, ...]:
    rows = active.get()
    return (rows.select(args[0]), *args[1:]) if rows is not None and (is_query or rows.has_attended) else args


def _restore(_: nn.Module, __: tuple[Tensor, ...], output: Tensor, *, is_query: bool) -> Tensor:
    rows = active.get()
    return rows.restore(output) if rows is not None and (is_query or rows.has_attended) else output


class _Trial:
    """Sample rows, and what the classifier computes of them as padded rows."""

    def __init__(self, classifier: PreTrainedModel, layers: nn.ModuleList, compute: Compute) -> None:
        self._classifier, self._last_layer, self._compute = classifier, layers[-1], compute
        self._rows = [TokenRow(row) for row in sample_rows(classifier)]
        self._results, self._hidden = self._run(compute)

    def find_read(self) -> int | None:
        """The token of each row to which the head is limited: 0, or -1 for the last one; None if there is no limit.

        The states of all other tokens become NaN, which would spread to everything that is computed of them.
        """
        for read in (0, -1):
            is_other = ~self._is_token(read)

            def spoil(_: nn.Module, __: Any, output: Any, is_other: Tensor = is_other) -> Any:
                return _replaced(output, hidden_of(output).masked_fill(is_other[..., None], float("nan")))

            with hooked(self._last_layer, spoil):
                results = self._compute(self._classifier, self._rows)
            if torch.equal(results, self._results):
                return read
        return None

    def difference(self, packing: Packing) -> float:
        """How much packing changes results, or the hidden state of any token that is read, relative to their norm."""
        results, hidden = self._run(packing)
        is_read = self._is_token(packing.read)
        return max(
            largest_difference(results, self._results), largest_difference(hidden[is_read], self._hidden[is_read])
        )

    def _run(self, compute: Compute) -> tuple[Tensor, Tensor]:
        """The results, and the last layer's hidden states, shape (rows, longest, hidden)."""
        with recorded_states(self._last_layer) as seen:
            return compute(self._classifier, self._rows), seen[0]

    def _is_token(self, read: int | None) -> Tensor:
        """Which states, shape (rows, longest), are of the token of this index in its row; None for all but padding."""
        lengths = torch.tensor([len(row.ids) for row in self._rows])[:, None]
        indices = torch.arange(int(lengths.max()))
        is_token = indices < lengths if read is None else indices == read % lengths
        return is_token.to(self._hidden.device)


def _replaced(output: Any, hidden: Tensor) -> Any:
    return (hidden, *output[1:]) if isinstance(output, tuple) else hidden
