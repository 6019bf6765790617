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


class StandInTensor(Tensor):
    """A tensor on a stand-in device; `on_cpu` holds its numbers."""

    on_cpu: Tensor

    @staticmethod
    def __new__(cls, on_cpu: Tensor, device: torch.device) -> "StandInTensor":
        about = {"dtype": on_cpu.dtype, "device": device, "storage_offset": on_cpu.storage_offset()}
        with torch.inference_mode(mode=False):
            stand_in = Tensor._make_wrapper_subclass(cls, on_cpu.shape, strides=on_cpu.stride(), **about)
        stand_in.on_cpu = on_cpu
        return stand_in

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{func} outside `stand_in_devices`")


class OperationRecorder(TorchDispatchMode):
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
        stand_ins = [tensor for tensor in tensors if isinstance(tensor, StandInTensor)]
        if not stand_ins:
            return func(*args, **kwargs)
        sides = {tensor.device for tensor in tensors if tensor.dim()}
        assert len(sides) < 2, f"{name} takes tensors of {sides}"
        self.seen[name] += 1
        self.waits += [name] if name.startswith(WAITS) else []
        device = torch.device(kwargs.get("device") or stand_ins[0].device)
        kwargs |= {"device": CPU} if "device" in kwargs else {}
        on_cpu, options = tree_map(
            lambda leaf: leaf.on_cpu if isinstance(leaf, StandInTensor) else leaf, (args, kwargs)
        )
        output = attend(*on_cpu) if name == VARLEN else func(*on_cpu, **options)
        if name.split(".")[1].endswith(IN_PLACE):
            return args[0]
        return tree_map(lambda leaf: moved(leaf, device) if isinstance(leaf, Tensor) else leaf, output)

    def copied(self, tensor: Tensor, source: Tensor, *, non_blocking: bool = False) -> Tensor:
        """`Tensor.copy_`, between any devices."""
        self.seen["copy_"] += 1
        self.waits += [] if non_blocking else ["copy_"]
        on_cpu(tensor).copy_(on_cpu(source))
        return tensor

    def sent(self, tensor: Tensor, device: torch.device, *, non_blocking: bool = False) -> Tensor:
        """`Tensor.to`; stand-in devices wait for each other without the host."""
        self.seen["to"] += 1
        self.waits += [] if non_blocking or {tensor.device.type, device.type} == {"cuda"} else ["to"]
        return moved(on_cpu(tensor), device)


class DriverStandIn(TorchFunctionMode):
    """Replaces what Python would ask of a CUDA driver before any operation runs."""

    def __init__(self, recorder: OperationRecorder) -> None:
        super().__init__()
        self._recorder = recorder

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        is_stand_in = bool(args) and isinstance(args[0], StandInTensor)
        if func is Tensor.__getitem__ and is_stand_in:
            return indexed(*args)
        if func in NUMBERS and is_stand_in:
            self._recorder.waits.append(func.__name__)
            return func(args[0].on_cpu)
        if func is Tensor.copy_:
            return self._recorder.copied(*args, **kwargs)
        if func is Tensor.to and len(args) > 1 and isinstance(args[1], torch.device):
            kwargs["device"] = args[1]
        if func is Tensor.to and "device" in kwargs:
            is_there = kwargs["device"] == args[0].device
            return args[0] if is_there else self._recorder.sent(args[0], **kwargs)
        device = torch.device(kwargs.get("device") or "cpu")
        if device.type == "cuda":
            return moved(func(*args, **{**kwargs, "device": CPU}), device)
        return func(*args, **kwargs)


def on_cpu(value: Any) -> Any:
    """The CPU tensor with the numbers of a stand-in; any other value itself."""
    return value.on_cpu if isinstance(value, StandInTensor) else value


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """A CPU tensor, moved to a device."""
    return tensor if device.type == "cpu" else StandInTensor(tensor, device)


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
def stand_in_devices(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int] = (9, 0)
) -> Iterator[OperationRecorder]:
    """Two stand-in devices, as long as the context is open."""
    monkeypatch.setattr(Tensor, "pin_memory", lambda self: self)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream())
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(model_runner, "default_batch_tokens", lambda classifier: 2048)
    with OperationRecorder() as recorder, DriverStandIn(recorder):
        yield recorder


def move_weights(module: nn.Module, device: str) -> None:
    """Move the module's weights to a device, in place."""
    for each in module.modules():
        for name, weight in each._parameters.items():
            if weight is not None:
                stand_in = StandInTensor(on_cpu(weight.detach()), torch.device(device))
                each._parameters[name] = nn.Parameter(stand_in, requires_grad=False)
        for name, buffer in each._buffers.items():
            each._buffers[name] = None if buffer is None else StandInTensor(on_cpu(buffer), torch.device(device))
