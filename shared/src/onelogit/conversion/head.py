"""Head rows + read-out -> a classifier with one logit. Pure tensor algebra.

A language model's logits are `hidden @ head.T`. The logit that a reranker reads is the product with one row, or with
the difference of two: so that row alone, as the head of a sequence classifier, gives the same number.
"""

from typing import NamedTuple

from torch import Tensor, nn

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


def _difference(rows: Tensor) -> Tensor:
    rows = rows.float()
    return rows[:1] - rows[1:] if len(rows) == 2 else rows
