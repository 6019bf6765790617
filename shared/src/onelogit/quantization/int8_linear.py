"""A linear layer -> the same layer with 8-bit weights, which multiplies integers: approximate, but faster.

A weight is an integer times its output channel's scale; an input is quantised when it comes, with a scale for each
token, so that one token's outliers do not coarsen the others. A product of a row and a channel is exact in integers:
its error is that of rounding both to 8 bits, about 1 % of its size. oneDNN, which is part of PyTorch, computes it.
"""

from copy import deepcopy
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from onelogit.errors import UnsupportedModelError

_MOST = 127
_MOST_OF_TOKEN = 126  # a scale in bfloat16 may be rounded down, and a token's largest value must still be at most 127
_LEAST_SCALE = 1e-30  # of a token of zeros
_ZERO_POINT = 128  # oneDNN's fast product takes unsigned inputs
# Added to a small float32, this rounds it to an integer, and leaves that, plus the zero point, in its lowest byte.
_ROUNDING = 1.5 * 2**23 + _ZERO_POINT
_BLOCK = 2**18  # numbers whose intermediate results fit into the caches of one or two cores
_BITS: dict[torch.dtype, tuple[torch.dtype, int]] = {
    torch.bfloat16: (torch.int16, 0x7FFF),
    torch.float32: (torch.int32, 0x7FFFFFFF),
}


class QuantisedTokens(NamedTuple):
    """Some tokens in 8 bits: `(values - 128) * scales` is about what they were.

    Attributes:
        values: uint8, shape (..., tokens, width).
        scales: of the tokens' own dtype, shape (..., tokens, 1).
    """

    values: Tensor
    scales: Tensor


def quantise_tokens(hidden: Tensor, divisors: Tensor | None = None) -> QuantisedTokens:
    """Quantise each token with its own scale, which is NaN or infinite if the token contains that.

    Args:
        hidden: bfloat16 or float32, shape (..., tokens, width).
        divisors: of the channels, before they are quantised; shape (width,), None for 1.
    """
    inverse = None if divisors is None else divisors.reciprocal().to(hidden.dtype)
    rows = hidden.reshape(-1, hidden.shape[-1])
    values, scales = rows.new_empty(rows.shape, dtype=torch.uint8), rows.new_empty((len(rows), 1))
    step = max(1, _BLOCK // rows.shape[1])
    for start in range(0, len(rows), step):
        block = slice(start, start + step)
        _quantise_block(rows[block] if inverse is None else rows[block] * inverse, values[block], scales[block])
    return QuantisedTokens(values.view(hidden.shape), scales.view(*hidden.shape[:-1], 1))


def _quantise_block(rows: Tensor, values: Tensor, scales: Tensor) -> None:
    """Quantise a few tokens, shape (tokens, width), into `values` and `scales`."""
    integers, without_sign = _BITS[rows.dtype]
    # Absolute values sort as their bits do; PyTorch's reductions of bfloat16 are many times slower.
    largest = (rows.view(integers) & without_sign).amax(-1, keepdim=True).view(rows.dtype)
    torch.div(largest, _MOST_OF_TOKEN, out=scales).clamp_(min=_LEAST_SCALE)
    scaled = torch.mul(rows.float(), scales.float().reciprocal()).add_(_ROUNDING)
    values.copy_(scaled.view(torch.int32))


def quantise_weight(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Quantise a weight, shape (outputs, inputs), to int8 with a float32 scale for each output."""
    exact = weight.detach().float()
    scales = exact.abs().amax(1).div_(_MOST)
    scales[scales == 0] = 1
    return (exact / scales[:, None]).round_().to(torch.int8), scales


class SharedInput:
    """The last quantised input of some of a module's linear layers: query, key and value read the same states.

    It is emptied before and after the module runs, because other code may write new states into the same tensor.

    Args:
        factors: that the channels are divided by before they are quantised, float32, shape (inputs,); see `smoothing`.
            None for 1.
        is_kept: whether several layers read each input; else none is kept.
    """

    def __init__(self, factors: Tensor | None = None, *, is_kept: bool = True) -> None:
        self.factors, self._is_kept = factors, is_kept
        self._last: tuple[Tensor, QuantisedTokens] | None = None

    def quantised(self, hidden: Tensor) -> QuantisedTokens:
        """The input in 8 bits, from the layer before if that had the same input."""
        last = self._last
        if last is not None and last[0] is hidden:
            return last[1]
        quantised = quantise_tokens(hidden if hidden.dtype in _BITS else hidden.float(), self.factors)
        if self._is_kept:
            self._last = hidden, quantised
        return quantised

    def clear(self, *_: object) -> None:
        """Forget the input; a hook of the module."""
        self._last = None


def _packed(values: Tensor) -> Tensor:
    """An int8 weight, shape (outputs, inputs), in oneDNN's own layout."""
    packed: Tensor = torch.ops.onednn.qlinear_prepack(values, None)
    return packed


class Int8Linear(nn.Linear):
    """A linear layer in 8 bits, on a CPU; see the module's docstring.

    It has no `weight`. Casting the model or moving it leaves the layer as it is, and it cannot be saved.

    Args:
        linear: the exact layer, on a CPU; it is not changed.
        shared: of all layers that read the same input.
    """

    def __init__(self, linear: nn.Linear, shared: SharedInput) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        weight = linear.weight.detach().float()
        values, self._scales = quantise_weight(weight if shared.factors is None else weight * shared.factors)
        self._packed = _packed(values)
        self._zero_points = torch.zeros(self.out_features, dtype=torch.int64)
        self.bias = linear.bias
        self._shared = shared
        self.train(linear.training)

    def forward(self, hidden: Tensor) -> Tensor:
        """The product, in the dtype of the hidden states, shape (..., tokens, outputs)."""
        values, scales = self._shared.quantised(hidden)
        rows = values.view(-1, self.in_features)
        arguments: Any = (rows, 1.0, _ZERO_POINT, self._packed, self._scales, self._zero_points, None, 1.0, 0)
        product: Tensor = torch.ops.onednn.qlinear_pointwise(*arguments, scales.dtype, "none", [], "")
        product = product.view(*hidden.shape[:-1], self.out_features).mul_(scales)
        return (product if self.bias is None else product.add_(self.bias)).to(hidden.dtype)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """A copy with hooks of its own, and with the same weights in memory, which nothing changes."""
        copied = memo[id(self)] = type(self).__new__(type(self))
        kept = (self._packed, self._scales, self._zero_points, self._shared.factors)
        memo |= {id(each): each for each in kept}
        vars(copied).update(deepcopy(vars(self), memo))
        return copied

    def __getstate__(self) -> dict[str, Any]:
        """For pickles, which cannot contain oneDNN's layout of a weight."""
        return {**vars(self), "_packed": self._packed.to_dense().t().contiguous()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__({**state, "_packed": _packed(state["_packed"])})  # type: ignore[no-untyped-call]

    def _apply(self, *_: Any, **__: Any) -> Self:
        return self

    def _save_to_state_dict(self, _: Any, prefix: str, keep_vars: bool) -> None:  # noqa: ARG002
        raise UnsupportedModelError(
            f"the 8-bit weights of {prefix.removesuffix('.')} cannot be saved; Reranker.save writes the original ones"
        )
