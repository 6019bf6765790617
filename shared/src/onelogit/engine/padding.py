"""A classifier with its own head -> whether its layers read padding, whatever the mask is, by a trial on a few rows.

Convolutions over tokens (ConvBERT), a mixing of all tokens (FNet), and segments of a batch's length (Nystromformer) do.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from onelogit.engine.directions import sample_rows, tolerance
from onelogit.engine.forward import own_head_logits
from onelogit.prompts.token_rows import TokenRow

logger = logging.getLogger(__name__)


def reads_padding(classifier: PreTrainedModel) -> bool:
    """Whether a row's hidden states or logit in a padded batch differ from those of the row alone."""
    rows = [TokenRow(row) for row in sample_rows(classifier)]
    logits, states = _run(classifier, rows)
    alone = [_run(classifier, [row]) for row in rows]
    pairs = [(logits, torch.cat([logit for logit, _ in alone]))]
    for index, (_, own) in enumerate(alone):
        if states is not None and own is not None:
            length = min(len(rows[index].ids), own.shape[1])  # a layer may be given fewer states than there are tokens
            pairs.append((states[index, :length], own[0, :length]))
    difference = max(largest_difference(*pair) for pair in pairs)
    if difference < tolerance(classifier):
        return False
    name = type(classifier).__name__
    logger.info("%s reads padding (states differ by %.2g), so rows are computed one by one", name, difference)
    return True


def layers_of(classifier: PreTrainedModel) -> nn.ModuleList | None:
    """The only list of as many modules as the model has layers; None if there is none, or several."""
    count = getattr(classifier.config.get_text_config(), "num_hidden_layers", None)
    base: Any = classifier.base_model
    found = [each for each in base.modules() if isinstance(each, nn.ModuleList) and len(each) == count]
    return found[0] if len(found) == 1 else None


def hidden_of(output: Any) -> Tensor:
    """The hidden states that a layer returns, alone or as the first of several results."""
    hidden: Tensor = output[0] if isinstance(output, tuple) else output
    return hidden


@contextmanager
def hooked(module: nn.Module, hook: Callable[[nn.Module, Any, Any], Any]) -> Iterator[None]:
    """Call a hook after each forward of a module, inside the block."""
    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def recorded_states(layer: nn.Module) -> Iterator[list[Tensor]]:
    """The hidden states that a layer returns inside the block, one tensor for each forward."""
    seen: list[Tensor] = []
    with hooked(layer, lambda _, __, output: seen.append(hidden_of(output))):
        yield seen


def largest_difference(some: Tensor, expected: Tensor) -> float:
    """Of a token's states, or of all logits: the norm of the difference, relative to the norm of what is expected.

    Tokens are compared one by one: relative to the norm of all states, the difference of one token would be lost.
    """
    norms = expected.float().norm(dim=-1).clamp(min=1e-9)
    return float(((some - expected).float().norm(dim=-1) / norms).max())


def _run(classifier: PreTrainedModel, rows: Sequence[TokenRow]) -> tuple[Tensor, Tensor | None]:
    """The logits, and the last layer's states, shape (rows, longest, hidden); None if the layers are not found."""
    layers = layers_of(classifier)
    if layers is None:
        return own_head_logits(classifier, rows), None
    with recorded_states(layers[-1]) as seen:
        return own_head_logits(classifier, rows), seen[0] if seen else None
