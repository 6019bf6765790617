"""Names of devices: those that are not here are refused before anything is read."""

from pathlib import Path
from typing import Any

import pytest
import torch

from onelogit import InputError, Reranker, open_reranker
from onelogit.checkpoints.device import find_device, find_dtype
from onelogit.option_checks import plain_options
from support.tiny import Tiny


@pytest.mark.parametrize(
    "name", ["abacus", "gpu", "auto", "CPU", "Cuda", "", " cpu", "cpu ", "cuda:-1", "cuda:", "cuda:one", "npu", True]
)
def test_an_unknown_name_is_refused_with_the_usual_names(name: object):
    with pytest.raises(InputError) as raised:
        Reranker.load("no-such/model", device=name)  # type: ignore[arg-type]

    assert (
        str(raised.value) == f"unknown device {name!r}; use cpu, cuda, cuda:1 or mps, or leave it out for the fastest"
    )


@pytest.mark.parametrize(("name", "meant"), [(0, "cuda:0"), (1, "cuda:1"), ("0", "cuda:0")])
def test_a_mere_number_is_refused_with_the_name_that_it_means(name: object, meant: str):
    with pytest.raises(InputError, match=rf"unknown device {name!r} \(did you mean '{meant}'\?\); use cpu, cuda"):
        Reranker.load("no-such/model", device=name)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("cuda", "CUDA"),
        ("cuda:99", "CUDA"),
        ("mps", r"Apple \(mps\)"),
        ("mps:0", r"Apple \(mps\)"),
        ("xpu", r"Intel \(xpu\)"),
        ("hpu", r"Gaudi \(hpu\)"),
        ("meta", "META"),
        ("vulkan", "VULKAN"),
        (torch.device("mps"), r"Apple \(mps\)"),
    ],
    ids=str,
)
def test_a_device_that_is_not_here_is_refused(name: str, kind: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)

    with pytest.raises(InputError, match=rf"device='{name}', but PyTorch finds no {kind} device here; use cpu, cuda,"):
        Reranker.load("no-such/model", device=name)


def test_a_missing_gpu_is_refused_before_any_file_is_read(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)

    assert find_device("cuda:1").index == 1
    with pytest.raises(InputError, match="device='cuda:2', but the last CUDA device here is cuda:1"):
        find_device("cuda:2")


def test_other_accelerators_are_used_if_they_are_here(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.xpu, "is_available", lambda: True)
    monkeypatch.setattr(torch.xpu, "device_count", lambda: 1)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)

    assert [str(find_device(name)) for name in ("xpu", "xpu:0", "mps", "mps:0")] == ["xpu", "xpu:0", "mps", "mps:0"]
    for name in ("xpu:1", "mps:1"):
        with pytest.raises(InputError, match=rf"the last .* device here is {name[:3]}:0"):
            find_device(name)


def test_a_device_of_torch_is_taken_and_is_plain_data(tiny_qwen: Tiny):
    assert Reranker.load(tiny_qwen.folder, device=torch.device("cpu")).device == "cpu"
    assert plain_options({"device": torch.device("cuda:1")}) == {"device": "cuda:1"}  # type: ignore[typeddict-item]
    first, second = (open_reranker(str(tiny_qwen.folder), device=device) for device in (torch.device("cpu"), "cpu"))
    assert first is second


def test_a_device_is_refused_before_a_folder_is_read(tmp_path: Path):
    with pytest.raises(InputError, match="unknown device 'gpu'"):
        Reranker.load(tmp_path, device="gpu")


def test_bfloat16_depends_on_the_given_gpu(monkeypatch: pytest.MonkeyPatch):
    """With an old GPU and a new one, the capability of the given one counts, not that of the first."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: [(7, 5), (9, 0)][device.index])

    dtypes = [find_dtype(None, torch.bfloat16, torch.device("cuda", index)) for index in range(2)]

    assert dtypes == [torch.float32, torch.bfloat16]


@pytest.mark.parametrize(
    "device_map", ["mps", {"": "cuda:99"}, {"": 99}, {"layers": "cpu", "": "xpu"}, "gpu", ["cpu"], {}]
)
def test_a_map_to_a_device_that_is_not_here_is_refused_before_anything_is_read(device_map: Any):
    with pytest.raises(InputError, match=r"device_map( is empty|=.* cannot be used: .*(finds no|last|unknown device))"):
        Reranker.load("no-such/model", device_map=device_map)
