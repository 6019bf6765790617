"""A decoder in half precision, on a CPU or CUDA -> the same decoder; norms and MLPs take fewer passes over memory.

If matrix products are fast, half of a layer's time is element-wise work: a norm that converts to float32 and back
launches eight kernels and writes six tensors; a gated MLP writes four. PyTorch has a fused norm for CUDA. For a CPU it
has neither, but kernels of other operations compute the same.
"""

from collections.abc import Callable
from typing import Any
from weakref import ref

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm, rms_norm
from transformers import PreTrainedModel

_TOLERANCE = 2**-6  # relative to the largest number: two steps of bfloat16
_DTYPES = {"cpu": (torch.bfloat16,), "cuda": (torch.bfloat16, torch.float16)}

FusedFunction = Callable[[Any, Tensor], Tensor]


def fuse(model: PreTrainedModel) -> None:
    """Replace, in place, the forward of each norm and gated MLP by a faster one with the same results.

    Weights are not changed. Models on other devices or in other dtypes are not changed, nor are modules whose results
    for a sample would differ, nor modules whose forward other code has replaced.
    """
    for module in model.base_model.modules() if _is_supported(model) else ():
        if "forward" in vars(module) and not _is_fused(module):
            continue  # accelerate replaces it if a model is spread over devices
        fused = _fused_function(module)
        if fused is not None and _agrees(module, fused):
            module.forward = _FusedForward(module, fused)


def unfuse(part: nn.Module) -> None:
    """Undo `fuse`: PyTorch's compiler would guard each fused forward, and therefore compile every layer separately."""
    for module in part.modules():
        if _is_fused(module):
            del module.forward


def _is_fused(module: nn.Module) -> bool:
    return isinstance(vars(module).get("forward"), _FusedForward)


class _FusedForward:
    """Calls the fused function, or the module's own forward for training, compilers, other devices, changed modules.

    Holds a weak reference to the module: a cycle would delay freeing GPU memory until the garbage collector runs.
    """

    def __init__(self, module: nn.Module, fused: FusedFunction) -> None:
        self._module, self._fused = ref(module), fused

    def __call__(self, hidden: Tensor) -> Tensor:
        module: Any = self._module()
        if (
            not torch.compiler.is_compiling()
            and torch.is_inference_mode_enabled()
            and _is_supported(hidden)
            and _fused_function(module) is self._fused
        ):
            return self._fused(module, hidden)
        return type(module).forward(module, hidden)  # type: ignore[no-any-return]

    def __reduce__(self) -> tuple[type["_FusedForward"], tuple[nn.Module | None, FusedFunction]]:
        return _FusedForward, (self._module(), self._fused)  # a copied forward belongs to the copied module


def _is_supported(values: PreTrainedModel | Tensor) -> bool:
    return values.dtype in _DTYPES.get(values.device.type, ())


def _fused_function(module: nn.Module) -> FusedFunction | None:
    if type(module).__name__.endswith("RMSNorm") and hasattr(module, "variance_epsilon"):
        weight: Any = module.weight
        return {"cpu": _rms_norm_on_cpu, "cuda": _rms_norm_on_cuda}.get(weight.device.type)
    projections = [getattr(module, name, None) for name in ("gate_proj", "up_proj", "down_proj")]
    is_silu = type(getattr(module, "act_fn", None)).__name__ in ("SiLU", "SiLUActivation")
    return _gated_mlp_on_cpu if is_silu and _has_fused_linear() and all(map(_is_plain_on_cpu, projections)) else None


def _is_plain_on_cpu(part: nn.Module | None) -> bool:
    """Whether a module only multiplies by its weight; some quantised layers have the same class but do more."""
    if type(part) is not nn.Linear or part.bias is not None or "forward" in vars(part):
        return False
    if part._forward_hooks or part._forward_pre_hooks:
        return False
    weight = getattr(part, "weight", None)  # packed layers replace it
    return type(weight) is nn.Parameter and weight.device.type == "cpu" and weight.dtype in _DTYPES["cpu"]


def _rms_norm_on_cuda(module: Any, hidden: Tensor) -> Tensor:
    """One CUDA kernel from PyTorch 2.9 on: https://github.com/pytorch/pytorch/pull/153666."""
    return rms_norm(hidden, hidden.shape[-1:], module.weight, module.variance_epsilon)


def _rms_norm_on_cpu(module: Any, hidden: Tensor) -> Tensor:
    """A batch norm with a channel per token, whose mean is 0 and whose variance is the token's mean square.

    Its kernel reads and writes bfloat16 and computes in float32, in one pass.
    """
    width = hidden.shape[-1]
    tokens = hidden.reshape(1, -1, width)
    mean_square = torch.linalg.vector_norm(tokens[0], dim=-1, dtype=torch.float32).square_().div_(width)
    normed = batch_norm(tokens, torch.zeros_like(mean_square), mean_square, eps=module.variance_epsilon)
    return normed.view(hidden.shape).mul_(module.weight)


def _gated_mlp_on_cpu(module: Any, hidden: Tensor) -> Tensor:
    """The MLP, whose matrix products also apply the activation and the gate as they write their results."""
    linear = torch.ops.mkldnn._linear_pointwise
    gate = linear(hidden, module.gate_proj.weight, None, "swish", [], "")
    gated = linear.binary(hidden, gate, module.up_proj.weight, None, "mul")
    return module.down_proj(gated)  # type: ignore[no-any-return]


def _has_fused_linear() -> bool:
    """Whether this build has oneDNN's linear layers with an epilogue, which TorchInductor also uses."""
    has_operator = hasattr(torch.ops, "mkldnn") and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return has_operator and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]


@torch.inference_mode()
def _agrees(module: Any, fused: FusedFunction) -> bool:
    weight = module.gate_proj.weight if hasattr(module, "gate_proj") else module.weight  # a norm's is a vector
    sample = torch.linspace(-3, 3, 5 * weight.shape[-1], dtype=weight.dtype, device=weight.device).view(1, 5, -1)
    expected = module(sample)
    try:
        difference = (fused(module, sample) - expected).abs().max()
    except (RuntimeError, NotImplementedError, TypeError):  # this build lacks the operator, or calls it differently
        return False
    return bool(difference <= _TOLERANCE * expected.abs().max())
