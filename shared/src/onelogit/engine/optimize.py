"""A converted classifier -> the same classifier with prefix sharing, fused operations and compiled layers, if possible.

Compiled layers, and prefix sharing for models that tests do not cover, are first tried on a few rows, and undone if the
hidden states differ.
"""

import logging
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from onelogit.engine.attention.context import (
    can_attend_over_prefix_tree,
    disable_prefix_tree_attention,
    enable_prefix_tree_attention,
)
from onelogit.engine.attention.delta_rule import disable_states, enable_states, has_recurrent_layers, has_states
from onelogit.engine.attention.visibility import is_known_to_share_prefixes, may_share_prefixes
from onelogit.engine.directions import sample_rows, tolerance
from onelogit.engine.forward import padded_hidden, prefix_tree_hidden
from onelogit.engine.fused_ops import fuse, unfuse
from onelogit.engine.state_progress import progress_kind
from onelogit.errors import OnelogitError, first_line
from onelogit.prompts.token_rows import TokenRow
from onelogit.quantization.quantise import has_int8_layers

logger = logging.getLogger(__name__)

_SMALL_BUDGET = 16  # tokens; splits the sample rows into batches that carry keys and values


def prepare(classifier: PreTrainedModel, *, is_causal: bool, is_compiled: bool) -> bool:
    """Make a converted classifier as fast as possible on its device, in place.

    Args:
        classifier: with a converted head.
        is_causal: see `directions.find_is_causal`.
        is_compiled: compile the layers, if prefixes are shared.

    Returns:
        Whether it shares prefixes; otherwise it computes padded rows, and is not compiled.

    Raises:
        OnelogitError: it cannot be compiled on this machine.
    """
    fuse(classifier)
    shares_prefixes = is_causal and _enable_prefix_sharing(classifier)
    if is_compiled:
        _compile(classifier, shares_prefixes=shares_prefixes)
    return shares_prefixes


def _enable_prefix_sharing(classifier: PreTrainedModel) -> bool:
    if not can_attend_over_prefix_tree(classifier) or not may_share_prefixes(classifier):
        return False
    if has_recurrent_layers(classifier) and not enable_states(classifier):
        return False
    enable_prefix_tree_attention(classifier)
    if is_known_to_share_prefixes(classifier) or _matches_padded(classifier):
        return True
    slower = "%s computes padded rows on %s, which is slower, because a trial with shared prefixes failed"
    logger.warning(slower, type(classifier).__name__, classifier.device)
    disable_prefix_tree_attention(classifier)
    disable_states(classifier)
    return False


def _matches_padded(classifier: PreTrainedModel) -> bool:
    """Whether rows with a shared prefix have the same hidden states in a prefix tree and as padded rows."""
    try:
        shared = _sample_hidden(classifier)
        carried = _sample_hidden(classifier, _SMALL_BUDGET)
        padded = padded_hidden(classifier, [TokenRow(row) for row in sample_rows(classifier)])
    except Exception as error:  # a model's code may fail in any way on input that it was not written for
        logger.info("%s cannot share prefixes: %s", type(classifier).__name__, error)
        return False
    return _is_same(classifier, shared, padded, "sharing prefixes") and _is_same(
        classifier, carried, padded, "carrying prefixes to the next batch"
    )


def _compile(classifier: PreTrainedModel, *, shares_prefixes: bool) -> None:
    """Compile the layers, unless they cannot share graphs, are quantised, or their hidden states change."""
    layers = getattr(classifier.base_model, "layers", None)
    # Layers that accelerate moves between devices cannot share compiled graphs.
    is_spread = not isinstance(layers, nn.ModuleList) or any(hasattr(part, "_hf_hook") for part in layers.modules())
    has_8_bits = has_int8_layers(classifier)  # PyTorch's compiler cannot read their weights
    if is_spread or has_8_bits or not shares_prefixes or has_states(classifier):
        reasons = {
            "computes padded rows": not shares_prefixes,
            "is spread over devices": is_spread,
            "has 8-bit layers": has_8_bits,
        }
        why = next((reason for reason, holds in reasons.items() if holds), "has recurrent layers")
        logger.warning("%s %s, so it is not compiled", type(classifier).__name__, why)
        return
    expected = _sample_hidden(classifier)
    compile_layers(classifier)
    try:
        compiled = _sample_hidden(classifier)
    except Exception as error:  # compilers raise errors of any type
        undo_compile(classifier)
        raise OnelogitError(
            f"PyTorch cannot compile {type(classifier).__name__} here: {first_line(error)}; on a CPU it needs a C++ "
            "compiler (g++, clang or MSVC), on CUDA Triton and a C compiler, and Python's headers; or do not compile"
        ) from error
    if not _is_same(classifier, compiled, expected, "compiling"):
        logger.warning("%s is not compiled, because its hidden states would change", type(classifier).__name__)
        undo_compile(classifier)


def compile_layers(model: PreTrainedModel) -> None:
    """Mark all layers except the last for compilation by PyTorch at their next call, in place.

    Lengths are symbolic, so a few graphs serve all layers and batches. Attention is not part of the graphs, and neither
    is the last layer, which computes only the rows' last tokens.
    """
    for layer in _compiled_layers(model):
        unfuse(layer)
        layer.compile(dynamic=True)


def undo_compile(model: PreTrainedModel) -> None:
    """Undo `compile_layers`."""
    for layer in _compiled_layers(model):
        layer._compiled_call_impl = None
    fuse(model)


def _compiled_layers(model: PreTrainedModel) -> list[Any]:
    decoder: Any = model.base_model
    return list(decoder.layers)[:-1]


def _is_same(classifier: PreTrainedModel, hidden: Tensor, expected: Tensor, what: str) -> bool:
    difference = float((hidden - expected).float().norm() / expected.float().norm())
    logger.info("%s: %s changes hidden states by %.2g", type(classifier).__name__, what, difference)
    return difference < tolerance(classifier)


def _sample_hidden(classifier: PreTrainedModel, batch_tokens: int = 1000) -> Tensor:
    """The last hidden states of the sample rows, computed in batches of so many tokens."""
    progress, hidden = progress_kind(classifier)(classifier, sample_rows(classifier)), []
    while not progress.is_done:
        context = progress.next_context(batch_tokens)
        hidden.append(prefix_tree_hidden(classifier, context))
        progress.advance(context)
    return torch.cat(hidden)
