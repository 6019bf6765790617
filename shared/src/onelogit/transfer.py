"""Numbers -> a tensor on a device, without waiting until it has what it was given before."""

from collections.abc import Sequence

import torch
from torch import Tensor


def tensor_on(device: torch.device, numbers: Sequence[object], dtype: torch.dtype = torch.long) -> Tensor:
    """The numbers, or lists of them, as a tensor; from pinned memory where the device is another one's to feed."""
    if device.type != "cuda":
        return torch.tensor(numbers, dtype=dtype, device=device)
    return torch.tensor(numbers, dtype=dtype, pin_memory=True).to(device, non_blocking=True)


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on another device; into pinned memory, and from there, in the order of the device's work."""
    if tensor.is_cuda and device.type == "cpu":
        return torch.empty_like(tensor, device=device, pin_memory=True).copy_(tensor, non_blocking=True)
    return tensor.to(device, non_blocking=True)
