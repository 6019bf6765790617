"""Channels that are large in every token are made as large as the others, without a change of the exact product."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn
from transformers import Qwen3Config

from onelogit.engine.model_runner import ModelRunner
from onelogit.quantization.int8_linear import Int8Linear, SharedInput
from onelogit.quantization.processor import INSTRUCTIONS, capabilities
from onelogit.quantization.quantise import quantise_layers
from onelogit.quantization.smoothing import groups_by_input, smoothing_factors
from support.classifiers import classifier_of, random_rows

pytestmark = pytest.mark.skipif(not any(capabilities().get(name) for name in INSTRUCTIONS), reason="needs VNNI or AMX")


def layers_and_states() -> tuple[list[nn.Linear], Tensor]:
    """Two layers, and states with two channels a hundred times as large as the others, and one that is always 0."""
    torch.manual_seed(4)
    layers = [nn.Linear(256, 96, bias=False).requires_grad_(False).bfloat16() for _ in range(2)]
    states = torch.randn(2, 40, 256)
    states[..., [3, 200]] *= 100
    states[..., 7] = 0
    return layers, states.bfloat16()


def error(layer: nn.Linear, shared: SharedInput, states: Tensor) -> float:
    with torch.inference_mode():
        exact = layer(states).float()
        return float((Int8Linear(layer, shared)(states).float() - exact).norm() / exact.norm())


def test_outlier_channels_coarsen_the_others_less():
    layers, states = layers_and_states()
    parent = nn.Sequential(*layers)
    (group,) = groups_by_input(dict.fromkeys(layers, parent), lambda: [layer(states) for layer in layers])

    factors = smoothing_factors(group.squares, [layer.weight for layer in layers])

    assert group.layers == layers
    assert not any(layer._forward_pre_hooks for layer in layers)
    assert factors[[3, 200]].min() > 5 * factors[8:100].max()
    assert 1 / 64 <= float(factors.min()) <= float(factors.median()) == 1
    small = states.clone()
    small[..., [3, 200]] = 0  # what the large channels hide
    for layer in layers:
        hidden = torch.cat([small[:, :20], states[:, 20:]], 1)
        assert error(layer, SharedInput(factors), hidden) < 0.02
        assert error(layer, SharedInput(factors), states) <= 1.1 * error(layer, SharedInput(), states)


def test_a_channel_that_appears_only_later_is_not_blown_up():
    layers, states = layers_and_states()
    (group,) = groups_by_input({layers[0]: layers[1]}, lambda: layers[0](states))
    factors = smoothing_factors(group.squares, [layers[0].weight])
    states[..., 7] = 1

    assert error(layers[0], SharedInput(factors), states) < 0.02


@pytest.mark.parametrize("silent", [[7], range(128), range(192)], ids=["one", "half of all", "three quarters"])
@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("outliers", [[], [3, 200]], ids=["no outliers", "outliers"])
def test_channels_that_were_silent_do_not_coarsen_the_others(silent: Sequence[int], size: float, outliers: list[int]):
    layers, _ = layers_and_states()
    states = torch.randn(2, 40, 256)
    states[..., silent] = 0
    states[..., outliers] = 20 * torch.randn(2, 40, len(outliers))
    (group,) = groups_by_input({layers[0]: layers[1]}, lambda: layers[0](states.bfloat16()))
    factors = smoothing_factors(group.squares, [layers[0].weight])
    states[..., silent] = size * torch.randn(2, 40, len(silent))

    later = states.bfloat16()
    assert error(layers[0], SharedInput(factors), later) < max(0.02, 2 * error(layers[0], SharedInput(), later))


def test_layers_that_read_the_same_states_share_factors():
    classifier = classifier_of(Qwen3Config)

    quantise_layers(classifier, [row.ids for row in random_rows(3)])

    attention, mlp = classifier.model.layers[0].self_attn, classifier.model.layers[0].mlp
    assert attention.q_proj._shared is attention.k_proj._shared is attention.v_proj._shared
    assert attention.o_proj._shared is not attention.q_proj._shared
    assert mlp.gate_proj._shared is mlp.up_proj._shared is not mlp.down_proj._shared
    assert all(part._shared.factors is not None for part in classifier.modules() if isinstance(part, Int8Linear))


def test_a_layer_that_reads_several_inputs_is_smoothed_for_all_of_them():
    """As in DeBERTa, whose queries and keys also read the embeddings of distances."""
    torch.manual_seed(6)
    query, key, value = (nn.Linear(96, 64).requires_grad_(False) for _ in range(3))
    states, distances = torch.randn(7, 96), torch.randn(5, 96)

    def run() -> None:
        for layer, hidden in ((query, states), (key, states), (value, states), (key, distances), (query, distances)):
            layer(hidden)

    groups = groups_by_input(dict.fromkeys((query, key, value), nn.Sequential()), run)

    assert [group.layers for group in groups] == [[query, key], [value]]
    squares = [(each.square() / each.square().mean(1, keepdim=True)).sum(0) for each in (states, distances)]
    assert torch.allclose(groups[0].squares, squares[0] + squares[1])
    assert torch.allclose(groups[1].squares, squares[0])


class InPlace(nn.Module):
    """An MLP that adds to its input, in the same tensor, what its second layer reads."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = (nn.Linear(64, 64, bias=False) for _ in range(2))

    def forward(self, hidden: Tensor) -> Tensor:
        own = hidden.clone()
        own += self.first(own).tanh().mul_(3)
        return self.second(own)


class Listed(nn.Module):
    """An MLP whose layers are in a list, which has no code of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleList(nn.Linear(64, 64, bias=False) for _ in range(2))

    def forward(self, hidden: Tensor) -> Tensor:
        return self.parts[0](hidden) * self.parts[1](hidden).sigmoid()


@pytest.mark.parametrize("kind", [InPlace, Listed])
def test_a_rewritten_input_is_quantised_again_and_none_is_kept_that_nothing_clears(kind: type[nn.Module]):
    torch.manual_seed(7)
    classifier, rows = classifier_of(Qwen3Config), random_rows(20)
    for layer in classifier.model.layers:
        layer.mlp = kind().requires_grad_(False).eval()
    exact = torch.tensor(ModelRunner(classifier).logits(rows))

    quantise_layers(classifier, [row.ids for row in rows[:4]])

    found = torch.tensor(ModelRunner(classifier).logits(rows))
    assert 0 < float((found - exact).square().mean().sqrt()) < 0.15 * float(exact.std())
    parts = [part for part in classifier.modules() if isinstance(part, Int8Linear)]
    assert len(parts) == 3 * 6
    assert all(part._shared._last is None for part in parts)
