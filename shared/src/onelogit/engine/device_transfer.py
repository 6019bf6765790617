"""Numbers -> a tensor on a device; on CUDA without waiting until it has done what it was given before."""

from array import array
from collections.abc import Sequence

import torch
from torch import Tensor

_TYPES = {torch.long: "q", torch.int32: "i"}


def tensor_on(device: torch.device, numbers: Sequence[int], dtype: torch.dtype = torch.long) -> Tensor:
    """The whole numbers as a tensor, shape (numbers,)."""
    if not numbers:
        return torch.empty(0, dtype=dtype, device=device)
    return sent(torch.frombuffer(array(_TYPES[dtype], numbers), dtype=dtype), device)  # a list takes five times as long


def places(spans: Sequence[tuple[int, int]]) -> Tensor:
    """All places from start to stop of each span, one span after the other; on the CPU, shape (places,)."""
    here = torch.device("cpu")
    starts = tensor_on(here, [start for start, _ in spans])
    lengths = tensor_on(here, [stop - start for start, stop in spans])
    first = starts - lengths.cumsum(0) + lengths
    return torch.arange(int(lengths.sum())) + first.repeat_interleave(lengths)


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the CPU on a device; by way of pinned memory where that is the device's to read by itself."""
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    # MPS, not waited for, reads what was let go meanwhile: https://github.com/pytorch/pytorch/issues/189690
    return tensor.to(device)


class Coming:
    """The numbers of a tensor, on their way from its device since this was made.

    Who reads them waits for them alone, and not for what the device has been given since.
    """

    def __init__(self, tensor: Tensor) -> None:
        is_cuda = tensor.is_cuda
        self._here = torch.empty_like(tensor, device="cpu", pin_memory=is_cuda).copy_(tensor, non_blocking=is_cuda)
        self._arrived = torch.cuda.current_stream(tensor.device).record_event() if is_cuda else None

    def are_there(self) -> bool:
        """Whether reading them would not wait."""
        return self._arrived is None or self._arrived.query()

    def numbers(self) -> list[float]:
        """All of them, of a tensor of one dimension."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return [float(number) for number in self._here.tolist()]
