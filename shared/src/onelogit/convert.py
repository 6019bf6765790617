"""Head rows + read-out -> a classifier with one logit. Pure tensor algebra.

A language model's logits are `hidden @ head.T`. The logit that a reranker reads is the product with one row, or with
the difference of two: so that row alone, as the head of a sequence classifier, gives the same number.
"""

from copy import deepcopy

import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from onelogit.errors import UnsupportedModelError
from onelogit.recipes import ReadOut


class OneLogitHead(nn.Linear):
    """A linear head of one row that stays in float32 over a backbone of any dtype."""

    def forward(self, hidden: Tensor) -> Tensor:
        """Shape (..., hidden) of any dtype -> shape (..., 1), float32."""
        return super().forward(hidden.float())


def score_row(head_rows: Tensor, read_out: ReadOut | None) -> Tensor:
    """The row that turns a last hidden state into the logit.

    The subtraction is done in float32: two bfloat16 rows that nearly cancel would lose the logit.

    Args:
        head_rows: shape (1 or 2, hidden), the true row first, in any floating dtype.
        read_out: None for the row of a native head.

    Returns:
        Shape (1, hidden), float32.

    Source: https://huggingface.co/Qwen/Qwen3-Reranker-0.6B/discussions/3
    """
    rows = head_rows.float()
    row = rows[:1] - rows[1:] if len(rows) == 2 else rows
    return row if read_out is None else row * read_out.scale


def one_logit_classifier(backbone: PreTrainedModel, row: Tensor, pad_token_id: int) -> PreTrainedModel:
    """The `...ForSequenceClassification` of the backbone's architecture, around the backbone itself.

    Nothing is copied: the classifier holds the given backbone, and `row` as its only other weight.

    Args:
        backbone: a decoder without a head.
        row: shape (1, hidden), float32.
        pad_token_id: transformers' own forward finds the last token by it.

    Raises:
        UnsupportedModelError: transformers has no sequence classifier for this architecture.
    """
    config = deepcopy(backbone.config)
    config.num_labels = 1
    config.pad_token_id = pad_token_id
    try:
        with torch.device("meta"):
            classifier = AutoModelForSequenceClassification.from_config(config)  # type: ignore[no-untyped-call]
    except ValueError as error:
        raise UnsupportedModelError(f"transformers has no sequence classifier for {config.model_type!r}") from error
    classifier.config.architectures = [type(classifier).__name__]
    setattr(classifier, classifier.base_model_prefix, backbone)
    head = OneLogitHead(row.shape[1], 1, bias=False, device="meta")
    head.weight = nn.Parameter(row.to(backbone.device), requires_grad=False)
    classifier.score = head
    return classifier.eval()  # type: ignore[no-any-return]
