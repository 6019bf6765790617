"""Rows of a language-model head, and a read-out -> a head with one logit. Pure tensor algebra.

A language model's logits are `hidden @ head.T`. A reranker uses one of them, or the difference of two. So a sequence
classifier whose head is that row, or the difference of the two rows, gives the same number.
"""

from torch import Tensor, nn

from onelogit.recipes.recipe import ReadOut


class Float32Head(nn.Linear):
    """A linear head that computes in float32 after a backbone of any dtype. It uses the given tensors, not copies.

    Args:
        weight: shape (logits, hidden), float32.
        bias: shape (logits,), float32, or None.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
        self.weight = nn.Parameter(weight, requires_grad=False)
        if bias is not None:
            self.bias = nn.Parameter(bias, requires_grad=False)

    def forward(self, hidden: Tensor) -> Tensor:
        """Shape (..., hidden) of any dtype -> shape (..., logits), float32."""
        return super().forward(hidden.float())


def one_logit_head(
    weight: Tensor, bias: Tensor | None, read_out: ReadOut | None, temperature: float = 1.0
) -> Float32Head:
    """The head that turns a last hidden state into the logit.

    Rows are subtracted in float32: the difference of two nearly equal bfloat16 rows would lose the logit.

    Args:
        weight: the head's rows for the true token and, for a difference, the false one; shape (1 or 2, hidden), in any
            floating dtype.
        bias: of the same rows, shape (1 or 2,), or None.
        read_out: None if the row is the checkpoint's own classification head.
        temperature: by which logits are divided.

    Source: https://huggingface.co/Qwen/Qwen3-Reranker-0.6B/discussions/3
    """
    scale = (1.0 if read_out is None else read_out.scale) / temperature
    return Float32Head(_difference(weight) * scale, None if bias is None else _difference(bias) * scale)


def _difference(rows: Tensor) -> Tensor:
    rows = rows.float()
    return rows[:1] - rows[1:] if len(rows) == 2 else rows
