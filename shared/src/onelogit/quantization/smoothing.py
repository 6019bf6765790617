"""Linear layers, and a few rows through them -> factors that make the channels of their inputs about equally large.

A token's largest channel sets its step, and in many models a few channels are a hundred times as large as the others.
Each channel of an input is divided by a factor, and the weights of that channel are multiplied by it, so that the exact
product is the same (SmoothQuant, https://arxiv.org/abs/2211.10438; here by root mean squares, not by maxima).
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

_MOST = 64.0  # times the median factor: rows that were not seen may use channels that were hardly used
_LEAST = 1e-6


class SeenInputs:
    """What some linear layers read while a model runs.

    Attributes:
        leaders: for each layer that ran, the first layer of its parent with the same input.
        squares: for each leader, the sum over all tokens of its input's squares, shape (inputs,), relative to the mean
            square of each token.
    """

    def __init__(self) -> None:
        self.leaders: dict[nn.Linear, nn.Linear] = {}
        self.squares: dict[nn.Linear, Tensor] = {}

    @classmethod
    def of(cls, parents: Mapping[nn.Linear, nn.Module], run: Callable[[], object]) -> "SeenInputs":
        """What the layers with these parents read while `run` runs the model."""
        seen, last = cls(), dict[nn.Module, tuple[nn.Linear, Tensor]]()

        def note(linear: nn.Module, args: tuple[Tensor, ...]) -> None:
            if not isinstance(linear, nn.Linear) or not args:
                return
            found = last.get(parents[linear])
            if found is None or found[1] is not args[0]:
                found = last[parents[linear]] = linear, args[0]
                seen._add(linear, args[0])
            seen.leaders[linear] = found[0]

        hooks = [linear.register_forward_pre_hook(note) for linear in parents]
        try:
            with torch.inference_mode():
                run()
        finally:
            for hook in hooks:
                hook.remove()
        return seen

    def _add(self, leader: nn.Linear, hidden: Tensor) -> None:
        squares = hidden.flatten(0, -2).float().square()
        relative = (squares / squares.mean(1, keepdim=True).clamp(min=1e-30)).sum(0)
        self.squares[leader] = self.squares.get(leader, torch.zeros(())) + relative


def smoothing_factors(squares: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """The factors of an input's channels, float32, shape (inputs,); their median is 1.

    Args:
        squares: of the input, as in `SeenInputs`.
        weights: of the layers that read it, each of shape (outputs, inputs).
    """
    of_weights = torch.stack([weight.detach().float().square().sum(0) for weight in weights]).sum(0)
    # The root of the ratio of root mean squares: as much is taken from the input as the weights are given.
    factors = (squares.clone().clamp(min=_LEAST) / of_weights.clamp(min=_LEAST)) ** 0.25
    return (factors / factors.median()).clamp(1 / _MOST, _MOST)
