"""One warm call -> its launches, waits and longest kernels, by PyTorch's profiler."""

import warnings
from typing import Any

import torch
from timing import Compute, time_call
from torch._C._profiler import _ExperimentalConfig
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity

MAX_KERNELS = 15


def profile(device: torch.device, compute: Compute) -> dict[str, Any]:
    """Profile one warm call. On a CPU, operators are counted instead of kernels, without the operators that they call.

    Returns:
        `launches`, including copies; `busy_s`, the sum of their times; `call_s` without a profiler; `waits`, how often
        the host had to wait for a CUDA device, None for other devices; `kernels`, those with the longest times.
    """
    compute()
    call_s = time_call(device, compute).wall_s
    waits = _waits(compute) if device.type == "cuda" else None
    kernels = _kernels(device, compute)
    return {
        "launches": sum(kernel["launches"] for kernel in kernels),
        "busy_s": sum(kernel["seconds"] for kernel in kernels),
        "call_s": call_s,
        "waits": waits,
        "kernels": kernels[:MAX_KERNELS],
    }


def _kernels(device: torch.device, compute: Compute) -> list[dict[str, Any]]:
    is_cuda = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if is_cuda else [])]
    config = _ExperimentalConfig(profile_all_threads=True)  # onelogit computes in a thread of its own
    with torch.profiler.profile(activities=activities, experimental_config=config) as profiled:
        compute()
    kind = DeviceType.CUDA if is_cuda else DeviceType.CPU
    kernels = [
        {
            "name": event.key,
            "launches": event.count,
            "seconds": (event.self_device_time_total if is_cuda else event.self_cpu_time_total) / 1e6,
        }
        for event in profiled.key_averages()
        if event.device_type == kind and not getattr(event, "is_user_annotation", False)  # spans around kernels
    ]
    return sorted(kernels, key=lambda kernel: -kernel["seconds"])


def _waits(compute: Compute) -> int:
    """The waits that PyTorch warns of; it does not see those in calls of other libraries."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            compute()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(warning.message) for warning in caught)
