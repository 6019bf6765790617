"""A classifier -> whether its tokens attend only to earlier ones, by its configuration or by a trial on a few rows."""

import torch
from torch import Tensor
from transformers import PreTrainedModel

from onelogit.engine.attention.visibility import check_visibility, directions_field, is_known_to_be_causal
from onelogit.engine.forward import has_own_head, padded_hidden_of_all
from onelogit.engine.memory import is_out_of_memory
from onelogit.errors import UnsupportedModelError, first_line
from onelogit.quantization.quantise import has_int8_layers

_PREFIX = range(100, 112)
_SAMPLE_ENDINGS = ((7, 8, 9), range(200, 220), (*range(200, 210), *range(300, 330)))
_TOLERANCE, _HALF_TOLERANCE, _INT8_TOLERANCE = 1e-3, 0.1, 0.3  # relative to the norm; by other rows, it is about 1


def find_is_causal(classifier: PreTrainedModel) -> bool:
    """Whether tokens attend only to earlier ones; if not, padded rows need a mask, and no prefix can be shared.

    A model with its own head always gets a mask; it is tried only if its configuration declares both directions.

    Raises:
        UnsupportedModelError: transformers does not do what the configuration declares, or cannot compute the model,
            or a row's hidden states depend on padding.
    """
    check_visibility(classifier)
    declared, name = directions_field(classifier), _class_name(classifier)
    if is_known_to_be_causal(classifier) or (has_own_head(classifier) and declared is None):
        return True
    rows = sample_rows(classifier)
    alone = [_hidden(classifier, [row], is_causal=False)[0] for row in rows]
    is_causal = _is_same(classifier, [row[: len(_PREFIX)] for row in alone])
    if is_causal and declared is not None:
        raise UnsupportedModelError(
            f"config.json declares attention in both directions ({declared}), but {name} of transformers ignores it; "
            "remove the field if the model was trained without it"
        )
    if not is_causal:
        padded = _hidden(classifier, rows, is_causal=False)
        if not all(_is_same(classifier, [one, row[: len(one)]]) for one, row in zip(alone, padded, strict=True)):
            raise UnsupportedModelError(
                f"{name} of transformers attends in both directions ({declared or 'in its own code'}), but gives other "
                "hidden states in a padded batch than alone, so no logit is certain; if it was trained to attend in "
                'both directions, write "is_causal": false into its config.json'
            )
    return is_causal


def _class_name(classifier: PreTrainedModel) -> str:
    """The class of transformers: the classifier's own, or that of its backbone if the head is onelogit's."""
    models = (classifier, classifier.base_model)
    return next(
        (type(each).__name__ for each in models if type(each).__module__.startswith("transformers.")), "the code"
    )


def sample_rows(classifier: PreTrainedModel) -> list[tuple[int, ...]]:
    """Rows that share a prefix, sorted."""
    vocabulary = int(classifier.config.get_text_config().vocab_size)
    return sorted(tuple(id % vocabulary for id in (*_PREFIX, *ending)) for ending in _SAMPLE_ENDINGS)


def tolerance(classifier: PreTrainedModel) -> float:
    """The largest difference of hidden states by rounding, relative to their norm."""
    if has_int8_layers(classifier):
        return _INT8_TOLERANCE
    return _TOLERANCE if classifier.dtype.itemsize >= 4 else _HALF_TOLERANCE


def _hidden(classifier: PreTrainedModel, rows: list[tuple[int, ...]], *, is_causal: bool) -> Tensor:
    try:
        return padded_hidden_of_all(classifier, rows, is_causal=is_causal)
    except Exception as error:  # a model's code may fail in any way on a configuration that it was not written for
        if isinstance(error, RuntimeError | MemoryError) and is_out_of_memory(error):
            raise
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise UnsupportedModelError(f"{type(classifier).__name__} of transformers cannot compute ({reason})") from error


def _is_same(classifier: PreTrainedModel, states: list[Tensor]) -> bool:
    """Whether the states of each token are the same in all tensors of shape (tokens, hidden)."""
    first, *others = (each.float() for each in states)
    differences = torch.stack([(each - first).norm(dim=-1) / first.norm(dim=-1).clamp(min=1e-9) for each in others])
    return float(differences.max()) < tolerance(classifier)
