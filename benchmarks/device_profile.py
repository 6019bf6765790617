"""A call -> what it gives the device to do: how many launches, how long the device is busy, who makes the host wait."""

import warnings
from typing import Any

import torch
from device_clock import Call, time_call
from torch._C._profiler import _ExperimentalConfig
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity

MOST = 15  # kernels that are named


def profile(device: torch.device, call: Call) -> dict[str, Any]:
    """Of one warm call. On a CPU its operators stand for kernels, and their time by themselves for the kernels'.

    Returns:
        `launches`, copies among them; `busy_s`, their times added up; `call_s` without a profiler; `waits`, how often
        the host was made to wait for a CUDA device, None elsewhere; `kernels` with the longest times.
    """
    call()
    call_s = time_call(device, call).wall_s
    waits = _waits(call) if device.type == "cuda" else None
    kernels = _kernels(device, call)
    return {
        "launches": sum(kernel["launches"] for kernel in kernels),
        "busy_s": sum(kernel["seconds"] for kernel in kernels),
        "call_s": call_s,
        "waits": waits,
        "kernels": kernels[:MOST],
    }


def _kernels(device: torch.device, call: Call) -> list[dict[str, Any]]:
    is_cuda = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if is_cuda else [])]
    everywhere = _ExperimentalConfig(profile_all_threads=True)  # onelogit computes in a thread of its own
    with torch.profiler.profile(activities=activities, experimental_config=everywhere) as profiled:
        call()
    kind = DeviceType.CUDA if is_cuda else DeviceType.CPU
    found = [
        {
            "name": event.key,
            "launches": event.count,
            "seconds": (event.self_device_time_total if is_cuda else event.self_cpu_time_total) / 1e6,
        }
        for event in profiled.key_averages()
        if event.device_type == kind and not getattr(event, "is_user_annotation", False)  # spans around kernels
    ]
    return sorted(found, key=lambda kernel: -kernel["seconds"])


def _waits(call: Call) -> int:
    """As PyTorch warns of them; calls of libraries that it does not know of are not counted."""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            call()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(warning.message) for warning in warned)
