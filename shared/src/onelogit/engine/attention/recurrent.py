"""A batch's runs and the states before them -> what a recurrent layer computes for the batch.

A layer with a gated delta rule mixes tokens in two steps: a causal convolution over the last few inputs, and a rule
that updates a matrix for each head. Everything else in the layer computes token by token.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import torch
from torch import Tensor

from onelogit.engine.device_transfer import tensor_on, to_device
from onelogit.engine.prefix_tree import CARRIED, OWN, KeyPath
from onelogit.engine.state_tree import StatePlan, StateSource

_CHUNK, _SHORTEST_CHUNK = 64, 16  # tokens that the rule computes in one matrix product; 64 is its own default
_SMALLEST_GROUP = 512  # tokens, padding included

Function = Callable[..., Any]


class State(NamedTuple):
    """The states of one layer after some tokens.

    Attributes:
        inputs: the last inputs of the convolution, shape (states, kernel size - 1, channels).
        matrices: shape (states, heads, key width, value width), float32.
    """

    inputs: Tensor
    matrices: Tensor


LayerStates = list[State]
"""The states after the same tokens, recurrent layer by recurrent layer."""


class StateContext:
    """One pass of a batch through the recurrent layers; each calls `convolve`, then `apply_rule`.

    Args:
        plan: the runs of the batch.
        carried: states from the batch before; may be empty.
        cached: states from the prefix cache; may be empty.

    Attributes:
        outgoing: the states `plan.outgoing`; empty if there are none.
    """

    def __init__(self, plan: StatePlan, carried: LayerStates, cached: LayerStates) -> None:
        self.outgoing: LayerStates = []
        self._plan, self._carried, self._cached = plan, carried, cached
        self._layer = 0
        self._inputs: _Inputs | None = None
        self._groups: list[_Group] = []
        self._leaving = torch.empty(0)

    def convolve(self, convolution: Function, inputs: Tensor, kept: int) -> Tensor:
        """The causal convolution of each token's input with the `kept` inputs before it on its path.

        Args:
            convolution: of inputs that follow each other, with zeros before the first.
            inputs: shape (1, channels, tokens); padding may follow the batch's tokens.
            kept: one less than the kernel size.

        Returns:
            The same shape as the inputs.
        """
        if self._inputs is None:
            counts = [len(layers[0].inputs) if layers else 0 for layers in (self._carried, self._cached)]
            self._inputs = _Inputs(self._plan, kept, counts, inputs.device)
        output: Tensor = convolution(inputs)
        tokens = inputs[0].transpose(0, 1)
        states = [layers[self._layer].inputs.flatten(0, 1) for layers in (self._carried, self._cached) if layers]
        known = torch.cat([tokens.new_zeros((1, tokens.shape[1])), *states, tokens[self._inputs.own]])
        self._leaving = known[self._inputs.leaving]
        if len(self._inputs.targets):
            heads = convolution(known[self._inputs.heads].transpose(1, 2).contiguous())[:, :, kept:]
            first = heads.transpose(1, 2).flatten(0, 1)[self._inputs.places]
            output = output.index_copy(2, self._inputs.targets, first.transpose(0, 1)[None])
        return output

    def apply_rule(self, rule: Function, tokens: Mapping[str, Tensor]) -> Tensor:
        """The rule's output for each token, from the state before it on its path.

        Args:
            rule: returns the outputs and last states of rows, given their tokens, `initial_state`, `output_final_state`
                and `chunk_size`: how many tokens to compute in one matrix product.
            tokens: query, key, value, g and beta, each of shape (1, tokens, ...).

        Returns:
            Shape as the value's; zeros for padding.
        """
        value = tokens["value"]
        if not self._groups:
            self._groups = list(_groups(self._plan, value.device))
        output = torch.zeros_like(value)
        last: dict[int, Tensor] = {}
        for group in self._groups:
            initial = self._initial([self._plan.runs[index].parent for index in group.runs], last)
            attended, final = rule(
                **_gathered(tokens, group),
                initial_state=initial,
                output_final_state=group.is_needed,
                chunk_size=min(group.length, _CHUNK),
            )
            output[0].index_copy_(0, group.targets, attended.flatten(0, 1)[group.places])
            if group.is_needed:
                last.update(zip(group.runs, final, strict=True))
        if self._plan.outgoing:
            matrices = torch.stack([self._matrix(leaving.source, last) for leaving in self._plan.outgoing])
            self.outgoing.append(State(self._leaving, matrices))
        self._layer += 1
        return output

    def _initial(self, parents: Sequence[StateSource | None], last: Mapping[int, Tensor]) -> Tensor | None:
        matrices = [None if parent is None else self._matrix(parent, last) for parent in parents]
        some = next((matrix for matrix in matrices if matrix is not None), None)
        if some is None:
            return None
        return torch.stack([torch.zeros_like(some) if matrix is None else matrix for matrix in matrices])

    def _matrix(self, source: StateSource, last: Mapping[int, Tensor]) -> Tensor:
        kind, index = source
        if kind == OWN:
            return last[index]
        return (self._carried if kind == CARRIED else self._cached)[self._layer].matrices[index]


class _Inputs:
    """Where the convolution's inputs are that are not just before a token in the batch.

    Indices refer to all known inputs: a zero, those in the carried states, in the cached states, and `own` tokens.

    Attributes:
        own: indices of tokens in the batch.
        heads: for each run that does not follow its parent in the batch, the inputs before it and its first ones, shape
            (runs, 2 * kept).
        targets: the indices in the batch of those first ones.
        places: their indices in the convolution's output of shape (runs * kept, channels).
        leaving: the inputs before each outgoing state, shape (states, kept).
    """

    def __init__(self, plan: StatePlan, kept: int, state_counts: Sequence[int], device: torch.device) -> None:
        own: dict[int, int] = {}
        first_cached, first_own = (1 + kept * count for count in (state_counts[0], sum(state_counts)))

        def index_of(source: int, index: int, distance: int) -> int:
            if source == OWN:
                return first_own + own.setdefault(index, len(own))
            return (1 if source == CARRIED else first_cached) + kept * (index + 1) - 1 - distance

        def before(path: KeyPath) -> list[int]:
            found = [index_of(*each) for each in plan.last_inputs(path, kept)]
            return [*[0] * (kept - len(found)), *found[::-1]]

        heads, targets, places = list[int](), list[int](), list[int]()
        for start, stop, path, _ in plan.runs:
            just_before = [(OWN, start - 1 - distance, 0) for distance in range(min(kept, start))]
            if plan.last_inputs(path, kept) != just_before:
                count = min(kept, stop - start)
                places += range(len(heads) // 2, len(heads) // 2 + count)
                targets += range(start, start + count)
                first = [index_of(OWN, index, 0) for index in range(start, start + count)]
                heads += [*before(path), *first, *[0] * (kept - count)]
        leaving = [index for each in plan.outgoing for index in before(each.path)]
        self.heads = tensor_on(device, heads).view(-1, 2 * kept)
        self.leaving = tensor_on(device, leaving).view(-1, kept)
        self.own, self.targets, self.places = (tensor_on(device, each) for each in ([*own], targets, places))


class _Group(NamedTuple):
    """Runs of similar lengths that are computed as padded rows.

    Attributes:
        runs: their indices in the plan.
        length: of each row, in tokens.
        is_needed: whether another run, or a later batch, needs a state at their ends.
        indices: of the rows' tokens in the batch, shape (runs, length); 0 for padding.
        is_padding: shape (runs, length, 1).
        targets: the indices in the batch of all tokens.
        places: the indices in the rows of all tokens.
    """

    runs: list[int]
    length: int
    is_needed: bool
    indices: Tensor
    is_padding: Tensor
    targets: Tensor
    places: Tensor


def _groups(plan: StatePlan, device: torch.device) -> Iterator[_Group]:
    """The runs of all levels, in order."""
    sources = (*(run.parent for run in plan.runs), *(leaving.source for leaving in plan.outgoing))
    needed = {source[1] for source in sources if source is not None and source[0] == OWN}
    token_count = plan.runs[-1].stop
    for level in plan.levels:
        by_length = sorted(level, key=lambda index: _length(plan, index))
        for length, equal in groupby(by_length, key=lambda index: _length(plan, index)):
            runs, most = list(equal), max(1, max(token_count, _SMALLEST_GROUP) // length)
            for first in range(0, len(runs), most):
                yield _group(plan, runs[first : first + most], length, needed, device)


def _group(plan: StatePlan, runs: list[int], length: int, needed: set[int], device: torch.device) -> _Group:
    spans = [(plan.runs[index].start, plan.runs[index].stop) for index in runs]
    tokens = [index for start, stop in spans for index in range(start, stop)]
    rows = [index for start, stop in spans for index in (*range(start, stop), *[0] * (length - stop + start))]
    places = [length * row + place for row, (start, stop) in enumerate(spans) for place in range(stop - start)]
    is_padding = torch.ones(len(rows), dtype=torch.bool).index_fill_(0, tensor_on(torch.device("cpu"), places), False)
    return _Group(
        runs,
        length,
        not needed.isdisjoint(runs),
        tensor_on(device, rows).view(len(runs), length),
        to_device(is_padding, device).view(len(runs), length, 1),
        tensor_on(device, tokens),
        tensor_on(device, places),
    )


def _length(plan: StatePlan, index: int) -> int:
    """The length of a run, rounded up so that few different ones occur, by a quarter at most from 256 tokens on."""
    count = plan.runs[index].stop - plan.runs[index].start
    if count <= _CHUNK:
        return max(_SHORTEST_CHUNK, 1 << (count - 1).bit_length())
    step = max(_CHUNK, 1 << ((count - 1).bit_length() - 3))
    return -(-count // step) * step


def _gathered(tokens: Mapping[str, Tensor], group: _Group) -> dict[str, Tensor]:
    """The tokens as rows; g and beta are 0 for padding, which therefore changes no state."""
    rows = {name: tensor[0][group.indices] for name, tensor in tokens.items()}
    return rows | {name: rows[name].masked_fill(group.is_padding, 0) for name in ("g", "beta")}
