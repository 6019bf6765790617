"""Attention by products on a CPU: about as exact as PyTorch's kernel in the same dtype, and only where it is faster."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from onelogit.engine.attention import context
from onelogit.engine.attention.backend import KeyValue
from onelogit.engine.attention.context import AttentionContext, backends_of
from onelogit.engine.attention.sdpa import ProductAttention, SdpaAttention
from onelogit.engine.prefix_tree import Cursor, next_batch

HEADS, KEY_HEADS, WIDTH = 4, 2, 64
LENGTHS = (30, 90, 300, 550)
ROWS = [(*range(70), *range(1000 * number, 1000 * number + length)) for number, length in enumerate(LENGTHS, 1)]
DIRECTION = torch.linspace(-1, 1, WIDTH) / torch.linspace(-1, 1, WIDTH).norm()

Change = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def spread_of(deviation: float) -> Change:
    """Scores with this standard deviation."""
    return lambda query, keys: (query * deviation, keys)


def all_about(score: float) -> Change:
    """Scores with a common offset, as by the biases of queries and keys."""
    size = (abs(score) * WIDTH**0.5) ** 0.5
    return lambda query, keys: (query + size * DIRECTION, keys + (size if score > 0 else -size) * DIRECTION)


def some_about(score: float) -> Change:
    """Scores of two keys, of which no sample contains one."""

    def change(query: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        keys[[1, 5]] += score * WIDTH**0.5 / 8 * DIRECTION
        return query + 8 * DIRECTION, keys

    return change


def attended(dtype: torch.dtype, backends: list[type], change: Change) -> Tensor:
    """The output for random queries, keys and values, which bfloat16 represents exactly."""
    torch.manual_seed(0)
    batch = next_batch(ROWS, Cursor(), 2000)
    count = len(batch.ids)
    query, keys = change(torch.randn(HEADS, count, WIDTH), torch.randn(count, KEY_HEADS, WIDTH))
    values = torch.randn(count, KEY_HEADS, WIDTH)
    query, keys, values = (each.bfloat16().to(dtype) for each in (query, keys, values))
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(ProductAttention, "supports", staticmethod(lambda _: True))
        monkeypatch.setattr(context, "BACKENDS", {"cpu": backends})
        whole = AttentionContext(batch, 2, [], [], padded_length=count)
        return whole.attend(query, KeyValue(keys, values), 0, scaling=None, window=None).float()


@pytest.mark.parametrize(
    "change",
    [
        *map(spread_of, (1, 3, 6, 30)),
        *map(all_about, (30, -30, 1e3, -1e3, 1e4, -1e4)),
        *map(some_about, (10, 30, 300)),
    ],
    ids=[
        *(f"spread {each}" for each in (1, 3, 6, 30)),
        *["30", "-30", "1e3", "-1e3", "1e4", "-1e4", "peaks 10", "peaks 30", "peaks 300"],
    ],
)
def test_the_error_in_bfloat16_is_little_more_than_that_of_pytorchs_kernel(change: Change):
    """Rounded before the subtraction, or far above a sample's greatest score, it would be 5 to 60 times larger."""
    exact = attended(torch.float32, [], change)

    mine, theirs = (attended(torch.bfloat16, backends, change) - exact for backends in ([ProductAttention], []))

    assert 0 < mine.norm() < 1.7 * theirs.norm()
    assert mine.norm(dim=-1).max() < 0.02 * exact.norm(dim=-1).max()


@pytest.mark.parametrize(
    ("change", "falls_back"), [(spread_of(1), False), (all_about(30), False), (some_about(30), True)]
)
def test_pytorchs_kernel_computes_only_what_products_would_round_too_much(
    change: Change, falls_back: bool, monkeypatch: pytest.MonkeyPatch
):
    plain, segments = SdpaAttention._attend_segment, list[int]()

    def noted(backend: SdpaAttention, query: Tensor, *rest: object) -> Tensor:
        segments.append(query.shape[1])
        return plain(backend, query, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(SdpaAttention, "_attend_segment", noted)

    attended(torch.bfloat16, [ProductAttention], change)

    assert bool(segments) == falls_back


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
