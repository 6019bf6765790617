"""Rows of token ids -> logits. The only file that knows devices and memory."""

from collections.abc import Callable, Sequence

import torch
from torch import nn
from transformers import PreTrainedModel

from onelogit.encode import Row

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
) -> list[float]:
    """The logit of each row, read at its last token.

    Identical rows are computed once.

    Args:
        classifier: of `one_logit_classifier`.
        rows: token ids, none empty; in any order.
        batch_tokens: most tokens in one forward pass; None for the device's default.
        on_progress: called with the number of rows done since the last call.

    Returns:
        In the order of `rows`: float32 values.
    """
    copies: dict[tuple[int, ...], list[int]] = {}
    for index, row in enumerate(rows):
        copies.setdefault(tuple(row), []).append(index)
    distinct = list(copies)
    budget = batch_tokens if batch_tokens is not None else _DEFAULT_BATCH_TOKENS.get(classifier.device.type, 4096)
    logits = [0.0] * len(rows)
    for batch in plan_batches([len(row) for row in distinct], budget):
        batch_rows = [distinct[place] for place in batch]
        for ids, logit in zip(batch_rows, _forward(classifier, batch_rows), strict=True):
            for index in copies[ids]:
                logits[index] = logit
        if on_progress is not None:
            on_progress(sum(len(copies[ids]) for ids in batch_rows))
    return logits


@torch.inference_mode()
def _forward(classifier: PreTrainedModel, rows: Sequence[tuple[int, ...]]) -> list[float]:
    # Padded at the right, without a mask: a causal model never looks right, so each row reads as if it were alone.
    device = classifier.device
    width = max(map(len, rows))
    input_ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], device=device)
    hidden = classifier.base_model(input_ids=input_ids, use_cache=False).last_hidden_state
    last = torch.tensor([len(row) - 1 for row in rows], device=device)
    score: nn.Module = classifier.score  # type: ignore[assignment]
    logits = score(hidden[torch.arange(len(rows), device=device), last])
    return [float(logit) for logit in logits[:, 0].tolist()]
