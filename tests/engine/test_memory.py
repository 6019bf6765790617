"""Errors that mean too little memory, and the memory that is free."""

from pathlib import Path

import pytest
import torch

from onelogit.engine import memory
from onelogit.engine.memory import free_bytes, is_out_of_memory


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), True),
        (MemoryError(), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:124] . DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 17.00 GB)"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_running_out_of_memory_is_distinguished_from_other_errors(error: BaseException, expected: bool):
    assert is_out_of_memory(error) == expected


def test_a_real_failure_to_allocate_is_recognised():
    with pytest.raises((RuntimeError, MemoryError)) as raised:
        torch.empty(2**46)  # more than the addresses of a process reach

    assert is_out_of_memory(raised.value)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"memory.max": "5000\n", "memory.current": "3000\n", "memory.stat": "anon 7\ninactive_file 500\n"}, 2500),
        (
            {
                "memory/memory.limit_in_bytes": "5000\n",
                "memory/memory.usage_in_bytes": "4900\n",
                "memory/memory.stat": "inactive_file 1\ntotal_inactive_file 50\n",
            },
            150,
        ),
        ({"memory.max": "5000\n", "memory.current": "6000\n", "memory.stat": ""}, 0),
    ],
    ids=["version 2", "version 1", "over its limit"],
)
def test_free_memory_of_a_container_is_bounded_by_its_limit(
    files: dict[str, str], expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(memory, "_CONTROL_GROUP_ROOT", tmp_path)

    assert free_bytes(torch.device("cpu")) == expected


@pytest.mark.parametrize("files", [{}, {"memory.max": "max\n", "memory.current": "3000\n", "memory.stat": ""}])
def test_free_memory_without_a_limit_is_that_of_the_machine(
    files: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(memory, "_CONTROL_GROUP_ROOT", tmp_path)

    free = free_bytes(torch.device("cpu"))

    assert free is not None
    assert free > 10**8
