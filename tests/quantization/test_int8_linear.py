"""A linear layer in 8 bits: close to the exact one, token by token, and nothing else of it is kept or saved."""

import copy
import os
import pickle
import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from onelogit import UnsupportedModelError
from onelogit.quantization.int8_linear import Int8Linear, SharedInput, quantise_tokens
from onelogit.quantization.processor import INSTRUCTIONS, capabilities

pytestmark = pytest.mark.skipif(not any(capabilities().get(name) for name in INSTRUCTIONS), reason="needs VNNI or AMX")


def exact_layer(inputs: int = 200, outputs: int = 96, dtype: torch.dtype = torch.bfloat16) -> nn.Linear:
    torch.manual_seed(5)
    return nn.Linear(inputs, outputs).requires_grad_(False).to(dtype)


def relative_error(found: Tensor, expected: Tensor) -> float:
    return float((found.float() - expected.float()).norm() / expected.float().norm())


@pytest.fixture(autouse=True)
def _without_gradients():
    with torch.inference_mode():
        yield


@pytest.mark.parametrize("shape", [(1, 7, 200), (33, 200), (1, 1, 200), (2, 3, 200)], ids=str)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float16], ids=str)
def test_a_product_is_off_by_about_one_percent(dtype: torch.dtype, shape: tuple[int, ...]):
    layer = exact_layer(dtype=dtype)
    kept = layer.weight.clone()
    hidden = torch.randn(shape).to(dtype)

    found = Int8Linear(layer, SharedInput())(hidden)

    assert (found.dtype, found.shape) == (dtype, (*shape[:-1], 96))
    assert 0 < relative_error(found, layer(hidden)) < 0.02
    assert torch.equal(layer.weight, kept)


def test_no_tokens_give_no_outputs():
    assert Int8Linear(exact_layer(), SharedInput())(torch.zeros(1, 0, 200)).shape == (1, 0, 96)


def test_integers_are_multiplied_exactly():
    layer = nn.Linear(300, 64, bias=False).requires_grad_(False)
    layer.weight.copy_(torch.randint(-127, 128, (64, 300)))
    layer.weight[:, 0] = 127  # so that the scale is 1
    hidden = torch.randint(-126, 127, (50, 300)).float()
    hidden[:, 0] = 126

    assert torch.equal(Int8Linear(layer, SharedInput())(hidden), layer(hidden))


def test_an_outlier_of_one_token_coarsens_no_other_token():
    layer, hidden = exact_layer(), torch.randn(1, 5, 200).bfloat16()
    quantised = Int8Linear(layer, SharedInput())
    alone = quantised(hidden[:, 1:].clone())

    hidden[0, 0, 3] = 3000

    assert torch.equal(quantised(hidden.clone())[:, 1:], alone)
    assert relative_error(quantised(hidden.clone())[0, 0], layer(hidden)[0, 0]) < 0.05


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("size", [1e-38, 1e-20, 1.0, 1e4, 1e30])
def test_every_value_is_within_half_a_step_at_any_size(size: float, dtype: torch.dtype):
    hidden = (torch.randn(64, 128) * size).to(dtype)

    values, scales = quantise_tokens(hidden)

    steps = (hidden.float() / scales.float() - (values.float() - 128)).abs().max()
    assert float(steps) < (0.51 if size > 1e-20 else 128)
    assert int(values.min()) >= 1


def test_what_is_not_a_number_stays_so_and_zeros_stay_zeros():
    layer, hidden = exact_layer(), torch.randn(1, 4, 200).bfloat16()
    hidden[0, 0, 5], hidden[0, 1, 5], hidden[0, 2] = float("nan"), float("inf"), 0

    found = Int8Linear(layer, SharedInput())(hidden)

    assert not found[0, :2].isfinite().any()
    assert torch.equal(found[0, 2], layer.bias)
    assert found[0, 3].isfinite().all()


def test_an_output_channel_of_zeros_gives_the_bias():
    layer = exact_layer()
    layer.weight[3] = 0

    assert torch.equal(Int8Linear(layer, SharedInput())(torch.randn(9, 200).bfloat16())[:, 3], layer.bias[3].expand(9))


def test_an_input_is_quantised_once_for_all_layers_of_a_module_and_then_forgotten():
    shared, hidden = SharedInput(), torch.randn(3, 200).bfloat16()
    first, second = (Int8Linear(exact_layer(), shared) for _ in range(2))
    first(hidden)
    kept = shared.quantised(hidden)

    assert second(hidden) is not None
    assert shared.quantised(hidden) is kept
    shared.clear()
    hidden.mul_(2)
    assert torch.equal(first(hidden), Int8Linear(exact_layer(), SharedInput())(hidden))


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))], ids=["copy", "pickle"]
)
def test_a_copy_computes_the_same_and_has_hooks_of_its_own(copied):
    layer, hidden = Int8Linear(exact_layer(), SharedInput()), torch.randn(3, 200).bfloat16()

    other = copied(layer)
    other.register_forward_hook(lambda *_: hidden.new_zeros(1))

    assert other(hidden).numel() == 1
    other._forward_hooks.clear()
    assert torch.equal(other(hidden), layer(hidden))


def test_casting_leaves_the_layer_as_it_is_and_saving_is_refused():
    layer, hidden = Int8Linear(exact_layer(), SharedInput()), torch.randn(3, 200).bfloat16()
    expected = layer(hidden)
    model = nn.ModuleDict({"layer": layer})

    model.half().float().to("cpu")

    assert torch.equal(layer(hidden), expected)
    with pytest.raises(UnsupportedModelError, match=r"8-bit weights of layer cannot be saved; Reranker\.save writes"):
        model.state_dict()


@pytest.mark.parametrize("inputs", [65, 127, 201])
@pytest.mark.parametrize("outputs", [65, 100])
@pytest.mark.parametrize("tokens", [1, 2, 17])
def test_no_width_need_be_a_multiple_of_anything(inputs: int, outputs: int, tokens: int):
    layer, hidden = exact_layer(inputs, outputs), torch.randn(tokens, inputs).bfloat16()

    assert relative_error(Int8Linear(layer, SharedInput())(hidden), layer(hidden)) < 0.02


def test_an_input_may_have_any_strides():
    layer, hidden = exact_layer(), torch.randn(200, 3, 5).bfloat16()

    for some in (hidden.permute(1, 2, 0), hidden.permute(2, 1, 0), hidden.flatten(1).t()[::2], hidden[:, 0, 0]):
        assert relative_error(Int8Linear(layer, SharedInput())(some), layer(some)) < 0.02


def test_half_precision_is_quantised_once_for_all_layers_too():
    shared, hidden = SharedInput(), torch.randn(3, 200).half()

    assert shared.quantised(hidden) is shared.quantised(hidden)


@pytest.mark.parametrize("instructions", ["AVX2", "AVX512_CORE"])
def test_instructions_whose_sums_overflow_are_recognised(instructions: str):
    """They add two products in 16 bits. oneDNN uses no others than this variable allows."""
    code = "from onelogit.quantization import processor; print(processor._is_exact())"
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": instructions}

    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)

    assert ran.stdout == "False\n"
