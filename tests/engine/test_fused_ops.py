"""Norms and MLPs in half precision: fused if that gives the same numbers; their own forward wherever it is needed."""

import copy
import gc
import pickle
from weakref import ref

import pytest
import torch
from torch import nn
from transformers import (
    LlamaConfig,
    MistralConfig,
    PretrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

from onelogit.engine import fused_ops
from onelogit.engine.fused_ops import fuse
from support.classifiers import classifier_of


@pytest.fixture
def half() -> PreTrainedModel:
    classifier = classifier_of(Qwen3Config)
    classifier.base_model.to(torch.bfloat16)
    return classifier


def fused_modules(classifier: PreTrainedModel) -> list[str]:
    return [name for name, module in classifier.named_modules() if "forward" in vars(module)]


def hidden_of(classifier: PreTrainedModel) -> torch.Tensor:
    return classifier.base_model(torch.arange(5, 25)[None]).last_hidden_state


def test_every_norm_and_mlp_of_a_decoder_is_fused_and_nothing_else(half: PreTrainedModel):
    fuse(half)

    names = fused_modules(half)
    assert sum(name.endswith("norm") for name in names) == 3 * 4 + 1
    assert sum(name.endswith("mlp") for name in names) == (3 if torch.backends.mkldnn.is_available() else 0)
    assert all(name.endswith(("norm", "mlp")) for name in names)


def test_numbers_stay_within_rounding(half: PreTrainedModel):
    with torch.inference_mode():
        theirs = hidden_of(half)
        fuse(half)
        ours = hidden_of(half)

    assert (ours - theirs).float().norm() < 0.02 * theirs.float().norm()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("config_class", [Qwen2Config, Qwen3Config, LlamaConfig, MistralConfig])
def test_the_norm_for_cuda_gives_the_same_numbers(
    config_class: type[PretrainedConfig], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
):
    """The fused kernel runs only on CUDA; the same call on a CPU computes the same."""
    classifier = classifier_of(config_class)
    for parameter in classifier.base_model.parameters():
        parameter.data.add_(0.3 * torch.randn_like(parameter)) if parameter.dim() == 1 else None
    classifier.base_model.to(dtype)
    monkeypatch.setattr(fused_ops, "_rms_norm_on_cpu", fused_ops._rms_norm_on_cuda)
    monkeypatch.setattr(fused_ops, "_gated_mlp_on_cpu", None)
    monkeypatch.setitem(fused_ops._DTYPES, "cpu", (torch.bfloat16, torch.float16))
    with torch.inference_mode():
        theirs = hidden_of(classifier)
        fuse(classifier)
        ours = hidden_of(classifier)

    norms = [name for name, module in classifier.named_modules() if type(module).__name__.endswith("RMSNorm")]
    assert fused_modules(classifier) == norms
    assert 0 < (ours - theirs).float().norm() < 0.02 * theirs.float().norm()


def test_a_module_whose_forward_other_code_replaced_is_left_alone(half: PreTrainedModel):
    norm = half.base_model.norm
    norm.forward = lambda hidden: hidden * 0
    fuse(half)

    assert not norm(torch.ones(1, 3, 64)).any()


def test_a_module_whose_numbers_differ_is_left_alone(half: PreTrainedModel):
    norm = half.base_model.norm

    class OtherRMSNorm(type(norm)):
        def forward(self, hidden: torch.Tensor) -> torch.Tensor:
            return super().forward(hidden) + 1

    norm.__class__ = OtherRMSNorm
    fuse(half)

    assert "model.norm" not in fused_modules(half)


@pytest.mark.parametrize("fault", ["a bias", "another activation"])
def test_an_mlp_of_another_form_is_left_alone(fault: str, half: PreTrainedModel):
    mlp = half.base_model.layers[0].mlp
    if fault == "a bias":
        mlp.gate_proj.bias = nn.Parameter(torch.ones(96, dtype=torch.bfloat16))
    else:
        mlp.act_fn = nn.GELU()
    fuse(half)

    assert "model.layers.0.mlp" not in fused_modules(half)
    assert "model.layers.1.mlp" in fused_modules(half)


def test_float32_is_left_alone():
    classifier = classifier_of(Qwen3Config)

    fuse(classifier)

    assert fused_modules(classifier) == []


class Wrapped(nn.Module):
    """Replaces a projection and shows its weight, as an adapter layer does."""

    def __init__(self, inner: nn.Linear) -> None:
        super().__init__()
        self.inner = inner
        self.weight = inner.weight
        self.bias = None

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.inner(hidden) * 3


def test_a_replaced_projection_and_a_hook_take_effect(half: PreTrainedModel):
    fuse(half)
    mlp, calls = half.base_model.layers[0].mlp, []
    with torch.inference_mode():
        before = hidden_of(half)
        hook = mlp.gate_proj.register_forward_hook(lambda *args: calls.append(1))
        hidden_of(half)
        hook.remove()
        mlp.gate_proj = Wrapped(mlp.gate_proj)
        after = hidden_of(half)

    assert calls == [1]
    assert not torch.allclose(before, after, atol=0.05)


def test_a_model_without_references_is_freed_at_once(half: PreTrainedModel):
    """Running out of GPU memory does not start the garbage collector."""
    model = copy.deepcopy(half)
    fuse(model)
    weight = ref(model.base_model.norm.weight)
    gc.disable()
    try:
        del model
        assert weight() is None
    finally:
        gc.enable()


def test_compiling_a_whole_fused_model_gives_the_original_numbers(half: PreTrainedModel):
    with torch.inference_mode():
        expected = hidden_of(half)
        fuse(half)
        compiled = torch.compile(half.base_model, backend="eager")
        hidden = compiled(torch.arange(5, 25)[None]).last_hidden_state

    assert torch.equal(hidden, expected)


def test_training_copying_and_pickling_work_as_before(half: PreTrainedModel):
    fuse(half)
    for parameter in half.base_model.parameters():
        parameter.requires_grad_(True)

    hidden_of(half).sum().backward()

    assert half.base_model.layers[0].mlp.gate_proj.weight.grad is not None
    for again in (copy.deepcopy(half), pickle.loads(pickle.dumps(half))):
        assert fused_modules(again) == fused_modules(half)
        with torch.inference_mode():
            assert torch.equal(hidden_of(again), hidden_of(half))
