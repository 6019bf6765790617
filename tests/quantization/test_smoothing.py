"""Channels that are large in every token are made as large as the others, without a change of the exact product."""

import pytest
import torch
from torch import Tensor, nn
from transformers import Qwen3Config

from onelogit.quantization.int8_linear import Int8Linear, SharedInput
from onelogit.quantization.processor import INSTRUCTIONS, capabilities
from onelogit.quantization.quantise import quantise_layers
from onelogit.quantization.smoothing import SeenInputs, smoothing_factors
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
    parent = nn.ModuleList(layers)
    seen = SeenInputs.of(dict.fromkeys(layers, parent), lambda: [layer(states) for layer in layers])

    factors = smoothing_factors(seen.squares[layers[0]], [layer.weight for layer in layers])

    assert {*seen.leaders.values()} == {layers[0]}
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
    seen = SeenInputs.of({layers[0]: layers[1]}, lambda: layers[0](states))
    factors = smoothing_factors(seen.squares[layers[0]], [layers[0].weight])
    states[..., 7] = 1

    assert error(layers[0], SharedInput(factors), states) < 0.02


def test_layers_that_read_the_same_states_share_factors():
    classifier = classifier_of(Qwen3Config)

    quantise_layers(classifier, [row.ids for row in random_rows(3)])

    attention, mlp = classifier.model.layers[0].self_attn, classifier.model.layers[0].mlp
    assert attention.q_proj._shared is attention.k_proj._shared is attention.v_proj._shared
    assert attention.o_proj._shared is not attention.q_proj._shared
    assert mlp.gate_proj._shared is mlp.up_proj._shared is not mlp.down_proj._shared
    assert all(part._shared.factors is not None for part in classifier.modules() if isinstance(part, Int8Linear))
