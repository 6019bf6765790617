"""Linear layers, and a few rows through them -> factors that make the channels of their inputs about equally large.

A token's largest channel sets its step, and in many models a few channels are a hundred times as large as the others.
Each channel of an input is divided by a factor, and the weights of that channel are multiplied by it, so that the exact
product is the same (SmoothQuant, https://arxiv.org/abs/2211.10438; here by root mean squares, not by maxima).
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import NamedTuple

import torch
from torch import Tensor, nn

_MOST = 64.0  # times the median factor
# Rows that were not seen may use channels that were hardly used: each counts as at least so large, relative to the root
# mean square of the smallest channels, which are so large a share of all. A smaller factor would blow it up then, and
# coarsen all other channels of its token; a larger one would hardly coarsen it now.
_LEAST_SIZE, _SMALLEST = 0.25, 0.95
_LEAST = 1e-6


class InputGroup(NamedTuple):
    """Layers that one module calls with the same inputs.

    Attributes:
        layers: at least one.
        squares: the sum over all tokens of the inputs' squares, shape (inputs,), relative to the mean square of each
            token; None if the layers did not run.
    """

    layers: list[nn.Linear]
    squares: Tensor | None


class _Input(NamedTuple):
    """What a module gave some of its layers: the tensor, a copy of its values, and their squares."""

    number: int
    tensor: Tensor
    values: Tensor
    squares: Tensor


def groups_by_input(parents: Mapping[nn.Linear, nn.Module], run: Callable[[], object]) -> list[InputGroup]:
    """The layers, with those together that read the same inputs while `run` runs the model.

    Args:
        parents: the module that contains each layer, and whose code calls it.
        run: runs the model.
    """
    numbers, last = count(), dict[nn.Module, _Input]()
    read: dict[nn.Linear, list[int]] = {linear: [] for linear in parents}
    squares: dict[nn.Linear, Tensor] = {}
    # Without code of its own, a module cannot tell when an input is no longer needed.
    apart: set[nn.Module] = {each for each in parents.values() if isinstance(each, nn.ModuleList | nn.ModuleDict)}

    def note(linear: nn.Module, args: tuple[Tensor, ...]) -> None:
        if not isinstance(linear, nn.Linear) or not args:
            return
        parent, hidden = parents[linear], args[0]
        found = last.get(parent)
        if found is not None and found.tensor is hidden and not torch.equal(found.values, hidden):
            apart.add(parent)  # its code writes other states into the same tensor
        if found is None or found.tensor is not hidden or parent in apart:
            found = last[parent] = _Input(next(numbers), hidden, hidden.clone(), _relative_squares(hidden))
        read[linear].append(found.number)
        squares[linear] = squares.get(linear, torch.zeros(())) + found.squares

    hooks = [linear.register_forward_pre_hook(note) for linear in parents]
    try:
        with torch.inference_mode():
            run()
    finally:
        for hook in hooks:
            hook.remove()
    groups: dict[object, list[nn.Linear]] = {}
    for linear, own in read.items():
        groups.setdefault(tuple(own) if own and parents[linear] not in apart else linear, []).append(linear)
    return [InputGroup(layers, squares.get(layers[0])) for layers in groups.values()]


def _relative_squares(hidden: Tensor) -> Tensor:
    squares = hidden.reshape(-1, hidden.shape[-1]).float().square()
    return (squares / squares.mean(1, keepdim=True).clamp(min=1e-30)).sum(0)


def smoothing_factors(squares: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """The factors of an input's channels, float32, shape (inputs,); their median is 1.

    Args:
        squares: of the input, as in `InputGroup`.
        weights: of the layers that read it, each of shape (outputs, inputs).
    """
    of_weights = torch.stack([weight.detach().float().square().sum(0) for weight in weights]).sum(0)
    # The root of the ratio of root mean squares: as much is taken from the input as the weights are given.
    seen = squares.clamp(min=_LEAST_SIZE**2 * _mean_of_smallest(squares)).clamp(min=_LEAST)
    factors = (seen / of_weights.clamp(min=_LEAST)) ** 0.25
    return (factors / factors.median()).clamp(1 / _MOST, _MOST)


def _mean_of_smallest(squares: Tensor) -> float:
    """The mean without the few channels that are large in every token."""
    return float(squares.sort().values[: max(1, int(_SMALLEST * len(squares)))].mean())
