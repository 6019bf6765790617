"""A decoder in a half precision, on a CPU or CUDA -> the same one, whose norms and MLPs take fewer passes over memory.

Where matrix products are fast, half of a layer's time is element-wise work: a norm that converts to float32 and back
launches eight kernels and writes six tensors, a gated MLP writes four. PyTorch has a kernel for the norm on CUDA; on a
CPU it has none for either, but others that do their work.
"""

from collections.abc import Callable
from typing import Any
from weakref import ref

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm, rms_norm
from transformers import PreTrainedModel

_TOLERANCE = 2**-6  # of the largest number: two steps of bfloat16
_DTYPES = {"cpu": (torch.bfloat16,), "cuda": (torch.bfloat16, torch.float16)}

ModelRunner = Callable[[Any, Tensor], Tensor]


def fuse(model: PreTrainedModel) -> None:
    """Exchange, in place, the forward of each norm and gated MLP for one that gives the same numbers faster.

    Weights stay what they are and where they are. Other devices and dtypes are left alone, and so is a module whose
    numbers on a sample differ, or whose forward was exchanged before.
    """
    for module in model.base_model.modules() if _may_be_quick(model) else ():
        forward = None if _is_exchanged(module) else _quicker_forward(module)
        if forward is not None and _agrees(module, forward):
            module.forward = _FusedOps(module, forward)


def unfuse(part: nn.Module) -> None:
    """Give each module of a part its own forward back: a compiler would guard ours, and so compile every layer anew."""
    for module in part.modules():
        if _is_fused(module):
            del module.forward


def _is_fused(module: nn.Module) -> bool:
    return isinstance(vars(module).get("forward"), _FusedOps)


def _is_exchanged(module: nn.Module) -> bool:
    """Whether somebody else has, as accelerate does where a model is spread over devices."""
    return "forward" in vars(module) and not _is_fused(module)


class _FusedOps:
    """The quick way where it can be taken; the module's own for training, compilers, other devices, exchanged parts.

    It does not hold the module that holds it: in a ring, a model that is let go would keep its memory until Python
    looks for rings, which no want of a GPU's memory makes it do.
    """

    def __init__(self, module: nn.Module, quick: ModelRunner) -> None:
        self._module, self._quick = ref(module), quick

    def __call__(self, hidden: Tensor) -> Tensor:
        module: Any = self._module()
        if torch.compiler.is_compiling():
            return type(module).forward(module, hidden)  # type: ignore[no-any-return]
        if torch.is_inference_mode_enabled() and _may_be_quick(hidden) and _quicker_forward(module) is self._quick:
            return self._quick(module, hidden)
        return type(module).forward(module, hidden)  # type: ignore[no-any-return]

    def __reduce__(self) -> tuple[type["_FusedOps"], tuple[nn.Module | None, ModelRunner]]:
        return _FusedOps, (self._module(), self._quick)  # a copy's module is the copy


def _may_be_quick(values: PreTrainedModel | Tensor) -> bool:
    return values.dtype in _DTYPES.get(values.device.type, ())


def _quicker_forward(module: nn.Module) -> ModelRunner | None:
    if type(module).__name__.endswith("RMSNorm") and hasattr(module, "variance_epsilon"):
        weight: Any = module.weight
        return {"cpu": _rms_norm_on_cpu, "cuda": _rms_norm_on_cuda}.get(weight.device.type)
    projections = [getattr(module, name, None) for name in ("gate_proj", "up_proj", "down_proj")]
    is_silu = type(getattr(module, "act_fn", None)).__name__ in ("SiLU", "SiLUActivation")
    return _gated_mlp_on_cpu if is_silu and _has_fused_linear() and all(map(_is_plain_on_cpu, projections)) else None


def _is_plain_on_cpu(part: nn.Module | None) -> bool:
    """Whether it is a product with its weight and nothing else: of quantised ones, some only look like it."""
    if type(part) is not nn.Linear or part.bias is not None or _is_hooked(part) or "forward" in vars(part):
        return False
    weight = getattr(part, "weight", None)  # packed ones have another in its place
    return type(weight) is nn.Parameter and weight.device.type == "cpu" and weight.dtype in _DTYPES["cpu"]


def _is_hooked(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _rms_norm_on_cuda(module: Any, hidden: Tensor) -> Tensor:
    """One kernel of CUDA's, from PyTorch 2.9 on: https://github.com/pytorch/pytorch/pull/153666."""
    return rms_norm(hidden, hidden.shape[-1:], module.weight, module.variance_epsilon)


def _rms_norm_on_cpu(module: Any, hidden: Tensor) -> Tensor:
    """Each token is a channel of one batch norm whose mean is 0 and whose variance is the token's mean square.

    That kernel reads and writes bfloat16 and computes in float32, in one pass.
    """
    width = hidden.shape[-1]
    tokens = hidden.reshape(1, -1, width)
    mean_square = torch.linalg.vector_norm(tokens[0], dim=-1, dtype=torch.float32).square_().div_(width)
    normed = batch_norm(tokens, torch.zeros_like(mean_square), mean_square, eps=module.variance_epsilon)
    return normed.view(hidden.shape).mul_(module.weight)


def _gated_mlp_on_cpu(module: Any, hidden: Tensor) -> Tensor:
    """The activation and the product are done by the matrix products themselves, as they write their results."""
    linear = torch.ops.mkldnn._linear_pointwise
    gate = linear(hidden, module.gate_proj.weight, None, "swish", [], "")
    gated = linear.binary(hidden, gate, module.up_proj.weight, None, "mul")
    return module.down_proj(gated)  # type: ignore[no-any-return]


def _has_fused_linear() -> bool:
    """Whether oneDNN's linear layers with an epilogue, which TorchInductor compiles to, are there to be called."""
    has_operator = hasattr(torch.ops, "mkldnn") and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return has_operator and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]


@torch.inference_mode()
def _agrees(module: Any, forward: ModelRunner) -> bool:
    weight = module.gate_proj.weight if hasattr(module, "gate_proj") else module.weight  # a norm's is a vector
    sample = torch.linspace(-3, 3, 5 * weight.shape[-1], dtype=weight.dtype, device=weight.device).view(1, 5, -1)
    expected = module(sample)
    try:
        difference = (forward(module, sample) - expected).abs().max()
    except (RuntimeError, NotImplementedError, TypeError):  # an operator that this build lacks, or calls otherwise
        return False
    return bool(difference <= _TOLERANCE * expected.abs().max())
