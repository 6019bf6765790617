"""A classifier that computes padded rows -> the same classifier, whose layers compute them without padding, if possible.

It is tried on a few rows when it is loaded. If their hidden states or logits differ, or the model's code cannot do it,
the classifier computes padded rows as before.
"""

import logging
from bisect import bisect_right
from collections.abc import Callable, Sequence
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
from onelogit.engine.directions import sample_rows, tolerance
from onelogit.prompts.token_rows import TokenRow

logger = logging.getLogger(__name__)

_MAX_PADDED = 2  # tokens of the padded rows, at most this many times `batch_tokens`

Compute = Callable[[PreTrainedModel, Sequence[TokenRow]], Tensor]
"""Computes padded rows: `forward.own_head_logits` or `forward.padded_hidden`."""


def enable_packing(classifier: PreTrainedModel, compute: Compute) -> bool:
    """Let the layers compute packed rows, in place; returns whether they can."""
    layers = _layers(classifier)
    if layers is None or not can_attend_over_packed_rows(classifier):
        return False
    enable_packed_attention(classifier)
    _add_hooks(layers)
    if _agrees(classifier, compute):
        return True
    disable_packed_attention(classifier)
    return False


def compute_packed(compute: Compute, classifier: PreTrainedModel, rows: Sequence[TokenRow]) -> Tensor:
    """As `compute(classifier, rows)`, with packed rows in the layers."""
    with use_packed_rows(PackedRows([len(row.ids) for row in rows], classifier.device)):
        return compute(classifier, rows)


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
    return max(1, bisect_right(list(accumulate(lengths[: _MAX_PADDED * padded])), batch_tokens))


def _layers(classifier: PreTrainedModel) -> nn.ModuleList | None:
    """The only list of as many modules as the model has layers."""
    count = getattr(classifier.config.get_text_config(), "num_hidden_layers", None)
    base: Any = classifier.base_model
    found = [each for each in base.modules() if isinstance(each, nn.ModuleList) and len(each) == count]
    return found[0] if len(found) == 1 else None


def _add_hooks(layers: nn.ModuleList) -> None:
    if hasattr(layers, "_packs_rows"):
        return
    layers._packs_rows = True  # type: ignore[assignment]
    for layer in layers:
        layer.register_forward_pre_hook(_pack_arguments, with_kwargs=True)
    layers[-1].register_forward_hook(_unpack_output)


def _pack_arguments(
    _: nn.Module, args: tuple[Any, ...], options: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    rows = active.get()
    if rows is None:
        return args, options
    return tuple(map(rows.pack, args)), {name: rows.pack(value) for name, value in options.items()}


def _unpack_output(_: nn.Module, __: tuple[Any, ...], output: Any) -> Any:
    rows = active.get()
    if rows is None:
        return output
    return (rows.unpack(output[0]), *output[1:]) if isinstance(output, tuple) else rows.unpack(output)


def _agrees(classifier: PreTrainedModel, compute: Compute) -> bool:
    rows = [TokenRow(row) for row in sample_rows(classifier)]
    try:
        packed, padded = compute_packed(compute, classifier, rows), compute(classifier, rows)
    except Exception as error:  # a model's code may fail in any way on input that it was not written for
        logger.info("%s cannot compute packed rows: %s", type(classifier).__name__, error)
        return False
    difference = float((packed - padded).float().norm() / padded.float().norm())
    logger.info("%s: packing rows changes its results by %.2g", type(classifier).__name__, difference)
    return difference < tolerance(classifier)
