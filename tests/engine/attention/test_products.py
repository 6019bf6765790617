"""Attention by products on a CPU: as exact as PyTorch's kernel in the same dtype, and used only where it is faster."""

import pytest
import torch

from onelogit.engine.attention import context
from onelogit.engine.attention.backend import KeyValue
from onelogit.engine.attention.context import AttentionContext, backends_of
from onelogit.engine.attention.sdpa import ProductAttention, SdpaAttention
from onelogit.engine.prefix_tree import Cursor, next_batch

HEADS, KEY_HEADS, WIDTH = 4, 2, 64
LENGTHS = (30, 90, 300, 550)
ROWS = [(*range(70), *range(1000 * number, 1000 * number + length)) for number, length in enumerate(LENGTHS, 1)]


def attended(dtype: torch.dtype, backends: list[type], spread: float) -> torch.Tensor:
    """Random queries and keys whose scores have this standard deviation."""
    torch.manual_seed(0)
    batch = next_batch(ROWS, Cursor(), 2000)
    count = len(batch.ids)
    query, keys = torch.randn(HEADS, count, WIDTH) * spread, torch.randn(count, KEY_HEADS, WIDTH)
    own = KeyValue(keys.to(dtype), torch.randn(count, KEY_HEADS, WIDTH).to(dtype))
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(ProductAttention, "supports", staticmethod(lambda _: True))
        monkeypatch.setattr(context, "BACKENDS", {"cpu": backends})
        whole = AttentionContext(batch, 2, [], [], padded_length=count)
        return whole.attend(query.to(dtype), own, 0, scaling=None, window=None).float()


@pytest.mark.parametrize("spread", [1, 3, 6])
def test_the_error_in_bfloat16_is_that_of_pytorchs_kernel(spread: float):
    """Without the subtraction before scores are rounded, it would be twice as large."""
    exact = attended(torch.float32, [], spread)

    mine, theirs = (
        (attended(torch.bfloat16, backends, spread) - exact).norm() / exact.norm()
        for backends in ([ProductAttention], [])
    )

    assert 0 < mine < 1.2 * theirs


def test_processors_with_matrix_units_use_pytorchs_kernel(monkeypatch: pytest.MonkeyPatch):
    query = torch.zeros((HEADS, 1, WIDTH), dtype=torch.bfloat16)
    used = {}
    for has_units in (False, True):
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda has_units=has_units: has_units)
        used[has_units] = next(each for each in backends_of(query.device) if each.supports(query))

    assert used == {False: ProductAttention, True: SdpaAttention}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_other_dtypes_use_pytorchs_kernel(dtype: torch.dtype):
    assert not ProductAttention.supports(torch.zeros((HEADS, 1, WIDTH), dtype=dtype))
