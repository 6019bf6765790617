"""Rows of token ids -> logits. The only file that knows devices and memory."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import PreTrainedModel

from onelogit.convert import Float32Head
from onelogit.tokens import Row

_Key = tuple[tuple[int, ...], int]  # a row's ids, and where its second text begins

_DEFAULT_BATCH_TOKENS = {"cpu": 4096, "mps": 16384, "cuda": 65536}


def plan_batches(lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Rows of like length together, each batch within a budget of tokens, padding included.

    Args:
        lengths: tokens of each row.
        batch_tokens: the budget; a longer row stands in a batch of its own.

    Returns:
        The rows of each batch, by index; the longest rows first, so that memory runs out at once or never.
    """
    batches: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        if batches and (len(batches[-1]) + 1) * lengths[batches[-1][0]] <= batch_tokens:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches


def compute_logits(
    classifier: PreTrainedModel,
    rows: Sequence[Row],
    batch_tokens: int | None = None,
    on_progress: Callable[[int], object] | None = None,
    second_starts: Sequence[int] | None = None,
) -> list[float]:
    """The logit of each row: at its last token where the head is ours, else what the classifier itself gives.

    Identical rows are computed once.

    Args:
        classifier: of `sequence_classifier`, or one complete with its own head.
        rows: token ids, none empty; in any order.
        second_starts: where the second text of each row begins, for a classifier that is told by token_type_ids.
        batch_tokens: most tokens in one forward pass; None for the device's default.
        on_progress: called with the number of rows done since the last call.

    Returns:
        In the order of `rows`: float32 values.
    """
    copies: dict[_Key, list[int]] = {}
    for index, row in enumerate(rows):
        copies.setdefault((tuple(row), second_starts[index] if second_starts else 0), []).append(index)
    distinct = list(copies)
    budget = batch_tokens if batch_tokens is not None else _DEFAULT_BATCH_TOKENS.get(classifier.device.type, 4096)
    forward = _read_last_token if isinstance(getattr(classifier, "score", None), Float32Head) else _classify_pairs
    budget = 1 if _rope_depends_on_length(classifier) else budget
    logits = [0.0] * len(rows)
    for batch in plan_batches([len(row) for row, _ in distinct], budget):
        keys = [distinct[place] for place in batch]
        for key, logit in zip(keys, forward(classifier, keys), strict=True):
            for index in copies[key]:
                logits[index] = logit
        if on_progress is not None:
            on_progress(sum(len(copies[key]) for key in keys))
    return logits


def _rope_depends_on_length(classifier: PreTrainedModel) -> bool:
    """Whether a long row in a batch changes the rotary embedding of the short ones: then each row goes alone."""
    parameters = getattr(classifier.config, "rope_parameters", None) or {}
    return "longrope" in str(parameters) or "dynamic" in str(parameters)


@torch.inference_mode()
def _read_last_token(classifier: PreTrainedModel, rows: Sequence[_Key]) -> list[float]:
    # Padded at the right, without a mask: a causal model never looks right, so each row reads as if it were alone.
    device = classifier.device
    width = max(len(row) for row, _ in rows)
    input_ids = torch.tensor([[*row, *[0] * (width - len(row))] for row, _ in rows], device=device)
    hidden = classifier.base_model(input_ids=input_ids, use_cache=False).last_hidden_state
    last = torch.tensor([len(row) - 1 for row, _ in rows], device=device)
    logits = classifier.get_submodule("score")(hidden[torch.arange(len(rows), device=device), last])
    return _floats(logits)


@torch.inference_mode()
def _classify_pairs(classifier: PreTrainedModel, rows: Sequence[_Key]) -> list[float]:
    device = classifier.device
    width = max(len(row) for row, _ in rows)
    pad = classifier.config.pad_token_id or 0
    inputs: dict[str, Any] = {
        "input_ids": [[*row, *[pad] * (width - len(row))] for row, _ in rows],
        "attention_mask": [[1] * len(row) + [0] * (width - len(row)) for row, _ in rows],
    }
    if rows[0][1]:
        inputs["token_type_ids"] = [
            [0] * start + [1] * (len(row) - start) + [0] * (width - len(row)) for row, start in rows
        ]
    tensors = {name: torch.tensor(value, device=device) for name, value in inputs.items()}
    return _floats(classifier(**tensors).logits)


def _floats(logits: torch.Tensor) -> list[float]:
    return [float(logit) for logit in logits[:, 0].float().tolist()]
