"""A model on its device -> how many tokens a forward pass may hold, and what it looks like when they were too many."""

import os
from pathlib import Path
from typing import NamedTuple

import torch
from transformers import PreTrainedModel

from onelogit.engine.prefix_tree import MOST_KEYS_PER_TOKEN

# Above these nothing gets faster; on a CPU larger batches fall out of its caches.
_MOST_BATCH_TOKENS = {"cpu": 2048, "mps": 8192, "cuda": 32768}
_FEWEST_BATCH_TOKENS = 128
# As a driver says it, a CPU's allocator, and the libraries of CUDA, whose handles need memory as well.
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "_status_alloc_failed")
_SHARE_OF_FREE_MEMORY = 0.5


class _ControlGroup(NamedTuple):
    """Where Linux says what a container may take: https://docs.kernel.org/admin-guide/cgroup-v2.html."""

    limit: str
    used: str
    statistics: str
    yielding: str


_GROUPS = Path("/sys/fs/cgroup")
_CONTROL_GROUPS = (
    _ControlGroup("memory.max", "memory.current", "memory.stat", "inactive_file"),
    _ControlGroup(  # version 1
        "memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file"
    ),
)


def default_batch_tokens(model: PreTrainedModel) -> int:
    """As many tokens as are worth computing at once, or as half of the free memory holds."""
    most = _MOST_BATCH_TOKENS.get(model.device.type, 2048)
    free = free_bytes(model.device)
    if free is None:
        return most
    return max(_FEWEST_BATCH_TOKENS, min(most, int(free * _SHARE_OF_FREE_MEMORY / bytes_per_token(model))))


def bytes_per_token(model: PreTrainedModel) -> int:
    """An estimate, on the high side, of what one token takes while it passes through one layer."""
    config = model.config.get_text_config()
    hidden = int(config.hidden_size)
    heads = int(getattr(config, "num_attention_heads", 1))
    width = int(getattr(config, "head_dim", None) or hidden // heads)
    inner = int(getattr(config, "intermediate_size", None) or 4 * hidden)
    own, in_float32 = 8 * hidden + 3 * inner + 9 * heads * width, 4 * hidden + 4 * heads * width
    # A CPU gathers keys and values for one segment at a time, other devices for all.
    key_heads = int(getattr(config, "num_key_value_heads", None) or heads)
    gathered = 0 if model.device.type == "cpu" else 2 * MOST_KEYS_PER_TOKEN * key_heads * width
    return (own + gathered) * model.dtype.itemsize + in_float32 * 4


def free_bytes(device: torch.device) -> int | None:
    """Memory that could be taken now; None where nothing tells."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    if device.type != "cpu":
        return None
    return _available_bytes()


def _available_bytes() -> int | None:
    """What the machine has, or what a container is allowed, where that is less."""
    known = [count for count in (_machine_bytes(), *map(_group_bytes, _CONTROL_GROUPS)) if count is not None]
    return max(0, min(known)) if known else None


def _group_bytes(group: _ControlGroup) -> int | None:
    """What a control group has left, with what its caches would yield; None where it has no limit."""
    try:
        limit, used = (int((_GROUPS / name).read_text(encoding="ascii")) for name in (group.limit, group.used))
        lines = (_GROUPS / group.statistics).read_text(encoding="ascii").splitlines()
        return limit - used + int(dict(line.split() for line in lines).get(group.yielding, 0))
    except (OSError, ValueError):  # "max" stands for none
        return None


def _machine_bytes() -> int | None:
    """What Linux calls available: free, or taken by caches that would yield. Pages that are free, elsewhere."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        return int(next(line for line in lines if line.startswith("MemAvailable")).split()[1]) * 1024
    except (OSError, StopIteration):
        names = getattr(os, "sysconf_names", {})
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if "SC_AVPHYS_PAGES" in names else None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a batch failed for its size alone; a smaller one may do."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    message = str(error).lower()
    return isinstance(error, RuntimeError) and any(word in message for word in _OUT_OF_MEMORY)


def release_cached(device: torch.device) -> None:
    """Hand back what PyTorch holds of the device's memory without using it."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
