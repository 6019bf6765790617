"""What running out of memory looks like, and what a token takes."""

import pytest
import torch

from onelogit.memory import is_out_of_memory


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), True),
        (MemoryError(), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:124] . DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 17.00 GB)"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_running_out_of_memory_is_told_from_other_errors(error: BaseException, expected: bool):
    assert is_out_of_memory(error) == expected


def test_a_real_failure_to_allocate_is_recognised():
    with pytest.raises((RuntimeError, MemoryError)) as raised:
        torch.empty(2**46)  # more than the addresses of a process reach

    assert is_out_of_memory(raised.value)
