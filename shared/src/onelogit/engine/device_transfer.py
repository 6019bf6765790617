"""Numbers -> tensors on a device, and logits back from it, without waiting for CUDA until the logits are read."""

import math
from array import array
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

_TYPE_CODES = {torch.long: "q", torch.int32: "i"}


def tensor_on(device: torch.device, numbers: Sequence[int], dtype: torch.dtype = torch.long) -> Tensor:
    """The integers as a tensor, shape (numbers,)."""
    if not numbers:
        return torch.empty(0, dtype=dtype, device=device)
    # PyTorch takes five times as long to convert a list.
    return to_device(torch.frombuffer(array(_TYPE_CODES[dtype], numbers), dtype=dtype), device)


def indices_of(spans: Sequence[tuple[int, int]]) -> Tensor:
    """All indices from start to stop of each span, one span after the other; on the CPU, shape (indices,)."""
    cpu = torch.device("cpu")
    starts = tensor_on(cpu, [start for start, _ in spans])
    lengths = tensor_on(cpu, [stop - start for start, stop in spans])
    first = starts - lengths.cumsum(0) + lengths
    return torch.arange(int(lengths.sum())) + first.repeat_interleave(lengths)


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A copy of a CPU tensor on a device; for CUDA, through pinned memory and without waiting."""
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    # Without waiting, MPS may read memory that has been freed: https://github.com/pytorch/pytorch/issues/189690
    return tensor.to(device)


class PendingLogits:
    """Logits on their way from the device that computes them; the constructor starts the copy.

    Args:
        indices: for each logit, the indices of its items; identical items share a logit.
        logits: shape (logits,), on any device.
        on_spoilt: called if one of them is NaN or infinite, when they are read.
    """

    def __init__(
        self, indices: Sequence[Sequence[int]], logits: Tensor, on_spoilt: Callable[[], object] | None = None
    ) -> None:
        self._indices, self._on_spoilt = indices, on_spoilt
        is_cuda = logits.is_cuda
        self._host = torch.empty_like(logits, device="cpu", pin_memory=is_cuda).copy_(logits, non_blocking=is_cuda)
        self._arrival = torch.cuda.current_stream(logits.device).record_event() if is_cuda else None

    def is_ready(self) -> bool:
        """Whether `logits` would return without waiting."""
        return self._arrival is None or self._arrival.query()

    def logits(self) -> list[tuple[int, float]]:
        """Each item's index and logit. Waits only for these logits, not for later work on the device."""
        if self._arrival is not None:
            self._arrival.synchronize()
        numbers: list[float] = self._host.tolist()  # Python's numbers need no memory of a device to be checked
        if self._on_spoilt is not None and not all(map(math.isfinite, numbers)):
            self._on_spoilt()
        pairs = zip(self._indices, numbers, strict=True)
        return [(index, logit) for indices, logit in pairs for index in indices]
