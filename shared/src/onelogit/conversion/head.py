"""Head rows + read-out -> a classifier with one logit. Pure tensor algebra.

A language model's logits are `hidden @ head.T`. The logit that a reranker reads is the product with one row, or with
the difference of two: so that row alone, as the head of a sequence classifier, gives the same number.
"""

from copy import deepcopy
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from onelogit.errors import UnsupportedModelError
from onelogit.recipes.recipe import ReadOut


class Float32Head(nn.Linear):
    """A linear head that stays in float32 over a backbone of any dtype."""

    def forward(self, hidden: Tensor) -> Tensor:
        """Shape (..., hidden) of any dtype -> shape (..., logits), float32."""
        return super().forward(hidden.float())


def float32_head(weight: Tensor, bias: Tensor | None) -> Float32Head:
    """A head that holds the given tensors themselves.

    Args:
        weight: shape (logits, hidden), float32.
        bias: shape (logits,), float32; None for none.
    """
    head = Float32Head(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    head.weight = nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        head.bias = nn.Parameter(bias, requires_grad=False)
    return head


_CONVERSION_FIELDS = ("classifier_from_token", "method", "is_original_qwen3_reranker")


class Head(NamedTuple):
    """What turns a last hidden state into logits: `hidden @ weight.T + bias`; for a reranker, into one.

    Attributes:
        weight: shape (logits, hidden), float32.
        bias: shape (logits,), float32, or None.
    """

    weight: Tensor
    bias: Tensor | None


def one_logit_head(weight: Tensor, bias: Tensor | None, read_out: ReadOut | None) -> Head:
    """The one row that turns a last hidden state into the logit.

    The subtraction is done in float32: two bfloat16 rows that nearly cancel would lose the logit.

    Args:
        weight: of the head's rows, shape (1 or 2, hidden), the true row first, in any floating dtype.
        bias: of the same rows, shape (1 or 2,); None for a head without.
        read_out: None for the row of a native head.

    Source: https://huggingface.co/Qwen/Qwen3-Reranker-0.6B/discussions/3
    """
    scale = 1.0 if read_out is None else read_out.scale
    return Head(_difference(weight) * scale, None if bias is None else _difference(bias) * scale)


def position_limit(classifier: PreTrainedModel) -> int | None:
    """How many tokens the model can place; None where it sets no limit.

    RoBERTa's kind begins to count behind the padding index, and so has fewer places than embeddings.
    """
    for name, module in classifier.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            return module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)
    limit = getattr(classifier.config, "max_position_embeddings", None)
    return None if limit is None else int(limit)


def _difference(rows: Tensor) -> Tensor:
    rows = rows.float()
    return rows[:1] - rows[1:] if len(rows) == 2 else rows


def sequence_classifier(backbone: PreTrainedModel, head: Head, pad_token_id: int) -> PreTrainedModel:
    """The `...ForSequenceClassification` of the backbone's architecture, around the backbone itself.

    Nothing is copied: the classifier holds the given backbone, and `head` as its only other weight.

    Args:
        backbone: a decoder without a head.
        head: one logit for a reranker; several make as many labels.
        pad_token_id: transformers' own forward finds the last token by it.

    Raises:
        UnsupportedModelError: transformers has no sequence classifier for this architecture.
    """
    config = deepcopy(backbone.config)
    config.num_labels = len(head.weight)
    config.pad_token_id = pad_token_id
    for each in (config, config.get_text_config()):
        for field in _CONVERSION_FIELDS:  # they ask for what is now done
            if hasattr(each, field):
                delattr(each, field)
    try:
        with torch.device("meta"):
            classifier = AutoModelForSequenceClassification.from_config(config)  # type: ignore[no-untyped-call]
    except ValueError as error:
        raise UnsupportedModelError(f"transformers has no sequence classifier for {config.model_type!r}") from error
    classifier.config.architectures = [type(classifier).__name__]
    setattr(classifier, classifier.base_model_prefix, backbone)
    classifier.score = float32_head(
        head.weight.to(backbone.device), None if head.bias is None else head.bias.to(backbone.device)
    )
    return classifier.eval()  # type: ignore[no-any-return]
