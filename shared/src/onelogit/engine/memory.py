"""A model on its device -> how many tokens a forward pass may have, and which errors mean that it had too many."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import PreTrainedModel

from onelogit.engine.prefix_tree import MAX_KEYS_PER_TOKEN
from onelogit.errors import DeviceMemoryError, first_line

# Larger batches are not faster; on a CPU, they do not fit into its caches.
_MAX_BATCH_TOKENS = {"cpu": 2048, "mps": 8192, "cuda": 32768}
_MIN_BATCH_TOKENS = 128
# Words in the errors of drivers, the CPU's allocator, and CUDA's libraries, whose handles need memory, too.
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "_status_alloc_failed")
_SHARE_OF_FREE_MEMORY = 0.5


class _ControlGroup(NamedTuple):
    """The files with a container's memory limit: https://docs.kernel.org/admin-guide/cgroup-v2.html."""

    limit: str
    used: str
    statistics: str
    reclaimable: str


_CONTROL_GROUP_ROOT = Path("/sys/fs/cgroup")
_CONTROL_GROUPS = (
    _ControlGroup("memory.max", "memory.current", "memory.stat", "inactive_file"),
    _ControlGroup(  # version 1
        "memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file"
    ),
)


def default_batch_tokens(model: PreTrainedModel) -> int:
    """The tokens that make a batch fast, but at most as many as fit in half of the free memory; at least 128."""
    limit = _MAX_BATCH_TOKENS.get(model.device.type, 2048)
    free = free_bytes(model.device)
    if free is None:
        return limit
    return max(_MIN_BATCH_TOKENS, min(limit, int(free * _SHARE_OF_FREE_MEMORY / bytes_per_token(model))))


def bytes_per_token(model: PreTrainedModel) -> int:
    """An upper estimate of the memory that one token needs in one layer, in bytes."""
    config = model.config.get_text_config()
    hidden = int(config.hidden_size)
    heads = int(getattr(config, "num_attention_heads", 1))
    head_dim = int(getattr(config, "head_dim", None) or hidden // heads)
    inner = int(getattr(config, "intermediate_size", None) or 4 * hidden)
    own, in_float32 = 8 * hidden + 3 * inner + 9 * heads * head_dim, 4 * (hidden + heads * head_dim)
    # A CPU gathers the keys and values of one segment at a time, other devices of all segments at once.
    key_heads = int(getattr(config, "num_key_value_heads", None) or heads)
    gathered = 0 if model.device.type == "cpu" else 2 * MAX_KEYS_PER_TOKEN * key_heads * head_dim
    return (own + gathered) * model.dtype.itemsize + (in_float32 + _numbers_of_rule(config)) * 4


def _numbers_of_rule(config: Any) -> int:
    """The float32 numbers of one token in a gated delta rule; 0 if the model has none."""
    if "linear_attention" not in (getattr(config, "layer_types", None) or ()):
        return 0
    heads = int(getattr(config, "linear_num_value_heads", 1))
    width = max(int(getattr(config, f"linear_{kind}_head_dim", 0)) for kind in ("key", "value"))
    # Vectors such as queries, keys and values with and without factors; and matrices over the 64 tokens of a chunk.
    return heads * (14 * width + 5 * 64)


def free_bytes(device: torch.device) -> int | None:
    """Bytes that can be allocated now; None if the device does not report them."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    if device.type != "cpu":
        return None
    available = [count for count in (_machine_bytes(), *map(_container_bytes, _CONTROL_GROUPS)) if count is not None]
    return max(0, min(available)) if available else None


def _container_bytes(group: _ControlGroup) -> int | None:
    """A control group's available memory, including reclaimable caches; None if it has no limit."""
    try:
        limit, used = (
            int((_CONTROL_GROUP_ROOT / name).read_text(encoding="ascii")) for name in (group.limit, group.used)
        )
        lines = (_CONTROL_GROUP_ROOT / group.statistics).read_text(encoding="ascii").splitlines()
        return limit - used + int(dict(line.split() for line in lines).get(group.reclaimable, 0))
    except (OSError, ValueError):  # "max" means no limit
        return None


def _machine_bytes() -> int | None:
    """Linux's available memory: free memory and reclaimable caches. On other systems, free pages."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        return int(next(line for line in lines if line.startswith("MemAvailable")).split()[1]) * 1024
    except (OSError, StopIteration):
        names = os.sysconf_names if hasattr(os, "sysconf") else {}  # not on Windows
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if "SC_AVPHYS_PAGES" in names else None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a batch failed only because of its size, so that a smaller one may succeed."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    message = str(error).lower()
    return isinstance(error, RuntimeError) and any(word in message for word in _OUT_OF_MEMORY)


@contextmanager
def memory_errors_named(message: str) -> Iterator[None]:
    """Raise DeviceMemoryError, with the message and the system's words, if the block runs out of memory."""
    try:
        yield
        return
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, DeviceMemoryError) or not is_out_of_memory(error):
            raise
        reason = first_line(error) or type(error).__name__
    # Outside the except block, where the memory of the frames that failed is freed.
    raise DeviceMemoryError(f"{message} ({reason})")


def release_cached(device: torch.device) -> None:
    """Return unused device memory that PyTorch has reserved."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
