"""The machine's processor and load, and the memory of this process or of a CUDA device."""

import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import device as Device  # noqa: N812  a type


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """Bytes resident in the process or, on a CUDA device, bytes that PyTorch has allocated there.

    Attributes:
        loaded: after the model was loaded; None if the system does not report it.
        peak: the most while scoring. On systems other than Linux it includes loading.
    """

    loaded: int | None
    peak: int


def reset_peak_memory(device: "Device") -> int | None:
    """Restart the peak from the memory in use now, and return that; None if the system does not support it."""
    if device.type == "cuda":
        import torch  # noqa: PLC0415  slow, and not needed to benchmark a server

        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    resident = resident_bytes("VmRSS")
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    except OSError:
        return None
    return resident


def peak_memory(device: "Device") -> int | None:
    """Bytes at the peak; None on Windows."""
    if device.type == "cuda":
        import torch  # noqa: PLC0415  as above

        return torch.cuda.max_memory_allocated(device)
    peak = resident_bytes("VmHWM")
    if peak is not None:
        return peak
    try:
        import resource  # noqa: PLC0415  not available on Windows
    except ImportError:
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def resident_bytes(field: str) -> int | None:
    """A field of Linux's /proc/self/status in bytes: VmRSS is the memory in use now, VmHWM the peak."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(field)), None)


def processor_name() -> str:
    """The processor's model if the system reports it, else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def load_per_core() -> float | None:
    """The mean number of running programs over the last minute, divided by the cores; None on Windows."""
    try:
        return os.getloadavg()[0] / (os.cpu_count() or 1)
    except (AttributeError, OSError):
        return None
