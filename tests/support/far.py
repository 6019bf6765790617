"""Stand-ins for GPUs on machines without any: "cuda:0" and "cuda:1", with the numbers on the CPU.

An operation on tensors of several devices fails, and operations that would make the host wait for a GPU are recorded.
Kernels, streams, memory and speed are not simulated.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from onelogit.engine import model_runner
from support.varlen import varlen_reference

CPU = torch.device("cpu")
NUMBERS = (Tensor.__float__, Tensor.__bool__, Tensor.__int__, Tensor.__index__, Tensor.item, Tensor.tolist)
WAITS = ("aten._local_scalar_dense.", "aten.nonzero.", "aten.masked_select.", "aten.equal.")
VARLEN = "torch_attn._varlen_attn.default"
IN_PLACE = "_"


class Far(Tensor):
    """A tensor on a stand-in device; `near` holds its numbers."""

    near: Tensor

    @staticmethod
    def __new__(cls, near: Tensor, device: torch.device) -> "Far":
        about = {"dtype": near.dtype, "device": device, "storage_offset": near.storage_offset()}
        with torch.inference_mode(mode=False):
            far = Tensor._make_wrapper_subclass(cls, near.shape, strides=near.stride(), **about)
        far.near = near
        return far

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{func} outside `far_devices`")


class World(TorchDispatchMode):
    """Runs operations on stand-in devices, and records them.

    Attributes:
        seen: how often each operation ran on a stand-in device, by its name.
        waits: the operations that the host had to wait for.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()
        self.waits: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = str(func), {name: value for name, value in (kwargs or {}).items() if name != "pin_memory"}
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        far = [tensor for tensor in tensors if isinstance(tensor, Far)]
        if not far:
            return func(*args, **kwargs)
        sides = {tensor.device for tensor in tensors if tensor.dim()}
        assert len(sides) < 2, f"{name} takes tensors of {sides}"
        self.seen[name] += 1
        self.waits += [name] if name.startswith(WAITS) else []
        device = torch.device(kwargs.get("device") or far[0].device)
        kwargs |= {"device": CPU} if "device" in kwargs else {}
        near, options = tree_map(lambda leaf: leaf.near if isinstance(leaf, Far) else leaf, (args, kwargs))
        output = attend(*near) if name == VARLEN else func(*near, **options)
        if name.split(".")[1].endswith(IN_PLACE):
            return args[0]
        return tree_map(lambda leaf: moved(leaf, device) if isinstance(leaf, Tensor) else leaf, output)

    def copied(self, tensor: Tensor, source: Tensor, *, non_blocking: bool = False) -> Tensor:
        """`Tensor.copy_`, between any devices."""
        self.seen["copy_"] += 1
        self.waits += [] if non_blocking else ["copy_"]
        near(tensor).copy_(near(source))
        return tensor

    def sent(self, tensor: Tensor, device: torch.device, *, non_blocking: bool = False) -> Tensor:
        """`Tensor.to`; stand-in devices wait for each other without the host."""
        self.seen["to"] += 1
        self.waits += [] if non_blocking or {tensor.device.type, device.type} == {"cuda"} else ["to"]
        return moved(near(tensor), device)


class Python(TorchFunctionMode):
    """Replaces what Python would ask of a CUDA driver before any operation runs."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        is_far = bool(args) and isinstance(args[0], Far)
        if func is Tensor.__getitem__ and is_far:
            return indexed(*args)
        if func in NUMBERS and is_far:
            self._world.waits.append(func.__name__)
            return func(args[0].near)
        if func is Tensor.copy_:
            return self._world.copied(*args, **kwargs)
        if func is Tensor.to and len(args) > 1 and isinstance(args[1], torch.device):
            kwargs["device"] = args[1]
        if func is Tensor.to and "device" in kwargs:
            is_there = kwargs["device"] == args[0].device
            return args[0] if is_there else self._world.sent(args[0], **kwargs)
        device = torch.device(kwargs.get("device") or "cpu")
        if device.type == "cuda":
            return moved(func(*args, **{**kwargs, "device": CPU}), device)
        return func(*args, **kwargs)


def near(tensor: Tensor) -> Tensor:
    """The CPU tensor with the numbers."""
    return tensor.near if isinstance(tensor, Far) else tensor


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """A CPU tensor, moved to a device."""
    return tensor if device.type == "cpu" else Far(tensor, device)


def indexed(tensor: Tensor, index: Any) -> Tensor:
    """`Tensor.__getitem__` in single operations."""
    dim, places, left = 0, [], list(index) if isinstance(index, tuple) else [index]
    while left:
        each = left.pop(0)
        if each is None:
            tensor = tensor.unsqueeze(dim)
        elif isinstance(each, int):
            tensor, dim = tensor.select(dim, each), dim - 1
        elif isinstance(each, slice):
            tensor = torch.ops.aten.slice(tensor, dim, each.start, each.stop, each.step or 1)
        elif isinstance(each, Tensor):
            places += [None] * (dim - len(places)) + [each]
        else:
            assert each is Ellipsis
            dim = tensor.dim() - sum(other is not None for other in left) - 1
        dim += 1
    return torch.ops.aten.index(tensor, places) if places else tensor


def attend(query, key, value, starts, key_starts, most, most_keys, is_causal, scale, window, is_grouped, *_):
    lengths = {"scale": scale, "window_size": window, "enable_gqa": is_grouped}
    return varlen_reference(query, key, value, starts, key_starts, most, most_keys, **lengths), starts, starts


class Stream:
    """A stream whose work is always complete."""

    def record_event(self) -> "Stream":
        return self

    def synchronize(self) -> None:
        pass


@contextmanager
def far_devices(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int] = (9, 0)) -> Iterator[World]:
    """Two stand-in devices, as long as the context is open."""
    monkeypatch.setattr(Tensor, "pin_memory", lambda self: self)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream())
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(model_runner, "default_batch_tokens", lambda classifier: 2048)
    with World() as world, Python(world):
        yield world


def send(module: nn.Module, device: str) -> None:
    """Move the module's weights to a device, in place."""
    for each in module.modules():
        for name, weight in each._parameters.items():
            if weight is not None:
                far = Far(near(weight.detach()), torch.device(device))
                each._parameters[name] = nn.Parameter(far, requires_grad=False)
        for name, buffer in each._buffers.items():
            each._buffers[name] = None if buffer is None else Far(near(buffer), torch.device(device))
