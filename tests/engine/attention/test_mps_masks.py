"""Attention as on MPS, tried on the CPU: few queries always have a mask of numbers.

Up to PyTorch 2.11, MPS has kernels that are wrong for some lengths and strides. They take up to 8 queries without a
mask, or with a mask of bool: https://github.com/pytorch/pytorch/issues/174861, issues/163597. MPS is not tested here.
"""

from typing import Any

import pytest
import torch

from onelogit.engine.attention import row_attention, sdpa
from onelogit.engine.attention.backend import KeySources, KeyValue
from onelogit.engine.attention.row_attention import Pattern, RowAttention
from onelogit.engine.attention.sdpa import SdpaAttention
from onelogit.engine.prefix_tree import Cursor, next_batch

HEADS, KEY_HEADS, WIDTH = 4, 2, 64
ROWS = sorted([(*range(31), number) for number in range(3)] + [(5,) * 32, (*range(40),), (1, 2, 3)])
LENGTHS = (40, 1, 7, 32)
DISTANCES = torch.arange(max(LENGTHS))[:, None] - torch.arange(max(LENGTHS))

Call = tuple[int, object, bool]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Call]:
    """For each call of PyTorch's attention: the number of queries, the mask's dtype, and whether it is causal."""
    found: list[Call] = []
    for module in (sdpa, row_attention):
        attend = module.scaled_dot_product_attention

        def recorded(query: Any, *rest: Any, attend: Any = attend, **options: Any) -> Any:
            mask, is_causal = options.get("attn_mask"), bool(options.get("is_causal"))
            found.append((query.shape[-2], None if mask is None else mask.dtype, is_causal))
            return attend(query, *rest, **options)

        monkeypatch.setattr(module, "scaled_dot_product_attention", recorded)
    return found


def check(calls: list[Call], dtype: torch.dtype) -> None:
    few = [call for call in calls if call[0] <= 8]
    assert few
    assert all(mask == dtype or is_causal for _, mask, is_causal in few)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("ends_only", [False, True])
@pytest.mark.parametrize("window", [None, 8])
def test_few_queries_of_a_prefix_tree_have_a_mask_of_numbers(
    window: int | None, ends_only: bool, dtype: torch.dtype, calls: list[Call], monkeypatch: pytest.MonkeyPatch
):
    torch.manual_seed(5)
    batch = next_batch(ROWS, Cursor(), 300)
    count = len(batch.ids)
    query, keys, values = (torch.randn(heads, count, WIDTH, dtype=dtype) for heads in (HEADS, KEY_HEADS, KEY_HEADS))
    own = KeyValue(keys.transpose(0, 1), values.transpose(0, 1))

    def attend() -> torch.Tensor:
        sources = KeySources(own, own.part(0, 0), own.part(0, 0))
        return SdpaAttention(batch, ()).attend(query, sources, 0.3, window, ends_only=ends_only)

    expected = attend()
    calls.clear()
    monkeypatch.setattr(sdpa, "needs_mask", lambda device: True)
    output = attend()

    check(calls, dtype)
    assert torch.allclose(output, expected, atol=1e-5 if dtype == torch.float32 else 0.02)


MASKS = {"whole": DISTANCES == DISTANCES, "window": DISTANCES.abs() <= 3, "causal": DISTANCES >= 0}


@pytest.mark.parametrize("read", [None, 0, -1])
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_few_queries_of_packed_rows_have_a_mask_of_numbers(
    mask: torch.Tensor, read: int | None, calls: list[Call], monkeypatch: pytest.MonkeyPatch
):
    torch.manual_seed(5)
    tensors = [torch.randn(heads, sum(LENGTHS), WIDTH) for heads in (HEADS, KEY_HEADS, KEY_HEADS)]
    attention = RowAttention(LENGTHS, Pattern.of_mask(mask), read)
    expected = attention.attend(*tensors, 0.3)
    calls.clear()
    monkeypatch.setattr(row_attention, "needs_mask", lambda device: True)
    output = attention.attend(*tensors, 0.3)

    check(calls, torch.float32)
    assert torch.allclose(output, expected, atol=1e-5)


def test_only_mps_needs_masks():
    assert sdpa.needs_mask(torch.device("mps"))
    assert not sdpa.needs_mask(torch.device("cpu"))
    assert not sdpa.needs_mask(torch.device("cuda", 0))
