"""A classifier with our head -> the same one, prepared to read forests, its layers compiled where that is asked.

What is not known to give the same numbers is proved on a small forest, beforehand; where it does not, it stays as it
was.
"""

import logging
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from onelogit.engine.attention.hooks import (
    disable_prefix_tree_attention,
    enable_prefix_tree_attention,
    is_known_to_share_prefixes,
    may_share_prefixes,
)
from onelogit.engine.forward import context_for, read_padded, run_prefix_tree
from onelogit.engine.fused_ops import fuse, unfuse
from onelogit.engine.prefix_tree import Cursor, next_batch
from onelogit.errors import OnelogitError, first_line
from onelogit.prompts.token_rows import TokenRow

logger = logging.getLogger(__name__)

_ENDINGS = ((7, 8, 9), range(200, 220), (*range(200, 210), *range(300, 330)))
_TOLERANCE, _HALF_TOLERANCE = 1e-3, 0.1  # of a hidden state's norm; rows that see each other differ by about 1


def prepare(classifier: PreTrainedModel, *, is_compiled: bool) -> bool:
    """Make a classifier with our head as fast as it can be on its device, in place.

    Returns:
        Whether it reads forests; else it reads padded rows, and is not compiled.

    Raises:
        OnelogitError: it cannot be compiled here.
    """
    fuse(classifier)
    shares_prefixes = _enable_prefix_sharing(classifier)
    if is_compiled:
        _learns_compiled(classifier, shares_prefixes=shares_prefixes)
    return shares_prefixes


def _enable_prefix_sharing(classifier: PreTrainedModel) -> bool:
    if not may_share_prefixes(classifier):
        return False
    enable_prefix_tree_attention(classifier)
    is_able = is_known_to_share_prefixes(classifier) or _matches_padded(classifier)
    if not is_able:
        slower = "%s reads padded rows on %s, and takes longer: a trial with shared prefixes failed"
        logger.warning(slower, type(classifier).__name__, classifier.device)
        disable_prefix_tree_attention(classifier)
    return is_able


def _matches_padded(classifier: PreTrainedModel) -> bool:
    """Whether rows that share a prefix end in the same hidden states read as a forest and padded."""
    try:
        forest = _hidden_states(classifier)
        padded = read_padded(classifier, [TokenRow(row) for row in _sample(classifier)])
    except Exception as error:  # a model's code may fail in any way over what it was not written for
        logger.info("%s cannot read shared prefixes once: %s", type(classifier).__name__, error)
        return False
    return _is_same(classifier, forest, padded, "reading prefixes once")


def _learns_compiled(classifier: PreTrainedModel, *, shares_prefixes: bool) -> None:
    if not shares_prefixes or not can_be_compiled(classifier):
        why = "is spread over devices" if shares_prefixes else "reads padded rows"
        logger.warning("%s %s: it is not compiled", type(classifier).__name__, why)
        return
    plain = _hidden_states(classifier)
    compile_layers(classifier)
    try:
        compiled = _hidden_states(classifier)
    except Exception as error:  # whatever a compiler has to say
        undo_compile(classifier)
        raise OnelogitError(
            f"PyTorch cannot compile {type(classifier).__name__} here: {first_line(error)}; on a CPU it needs a C++ "
            "compiler (g++, clang or MSVC), on CUDA Triton and a C compiler, and Python's headers; or leave compile out"
        ) from error
    if not _is_same(classifier, compiled, plain, "being compiled"):
        logger.warning("compiled, %s gives other numbers: it is not", type(classifier).__name__)
        undo_compile(classifier)


def _is_same(classifier: PreTrainedModel, hidden: Tensor, expected: Tensor, what: str) -> bool:
    difference = float((hidden - expected).float().norm() / expected.float().norm())
    logger.info("%s: %s differs by %.2g", type(classifier).__name__, what, difference)
    return difference < (_TOLERANCE if classifier.dtype.itemsize >= 4 else _HALF_TOLERANCE)


def _hidden_states(classifier: PreTrainedModel) -> Tensor:
    batch = next_batch(_sample(classifier), Cursor(), 1000)
    return run_prefix_tree(classifier, context_for(batch, classifier, 1000))


def _sample(classifier: PreTrainedModel) -> list[tuple[int, ...]]:
    """Rows that share a prefix, sorted."""
    vocabulary = int(classifier.config.get_text_config().vocab_size)
    return sorted(tuple(id % vocabulary for id in (*range(100, 112), *own)) for own in _ENDINGS)


def can_be_compiled(model: PreTrainedModel) -> bool:
    """Whether all layers can share the same compiled graphs: layers that accelerate moves would each need their own."""
    layers = getattr(model.base_model, "layers", None)
    return isinstance(layers, nn.ModuleList) and not any(hasattr(part, "_hf_hook") for part in layers.modules())


def compile_layers(model: PreTrainedModel) -> None:
    """Have PyTorch compile all layers but the last, in place, at their next call.

    Lengths are symbolic, so that a few graphs serve all layers and batches. Attention stays outside the graphs, as does
    the last layer, which computes only the rows' last tokens.
    """
    for layer in _compilable_layers(model):
        unfuse(layer)
        layer.compile(dynamic=True)


def undo_compile(model: PreTrainedModel) -> None:
    """Undo `compile_layers`."""
    for layer in _compilable_layers(model):
        layer._compiled_call_impl = None
    fuse(model)


def _compilable_layers(model: PreTrainedModel) -> list[Any]:
    decoder: Any = model.base_model
    return list(decoder.layers)[:-1]
