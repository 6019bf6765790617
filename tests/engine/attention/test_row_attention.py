"""Each packed row attends to itself alone, however its attention is computed."""

from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from onelogit.engine.attention import flash_varlen
from onelogit.engine.attention.flash_varlen import FlashVarlenAttention
from onelogit.engine.attention.row_attention import Pattern, RowAttention
from support.varlen import varlen_reference

LENGTHS = (700, 65, 64, 33, 1, 33)
INDICES = torch.arange(max(LENGTHS))
DISTANCES = INDICES[:, None] - INDICES
MASKS = {
    "whole": DISTANCES == DISTANCES,
    "window": DISTANCES.abs() <= 20,
    "causal": DISTANCES >= 0,
    "causal window": (DISTANCES >= 0) & (DISTANCES < 50),
    "prefix": (DISTANCES >= 0) | (INDICES < 5),
}


def tensors(heads: int, key_heads: int, padding: int, dtype: torch.dtype) -> list[torch.Tensor]:
    torch.manual_seed(4)
    count = sum(LENGTHS) + padding
    return [torch.randn(each, count, 16, dtype=dtype) for each in (heads, key_heads, key_heads)]


def expected(query, key, value, mask: torch.Tensor) -> torch.Tensor:
    outputs = []
    for rows in zip(*(tensor.float().split(LENGTHS, 1) for tensor in (query, key, value)), strict=True):
        own, keys, values = rows
        keys, values = (tensor.repeat_interleave(len(query) // len(key), 0) for tensor in (keys, values))
        scores = (own @ keys.transpose(1, 2) * 0.3).masked_fill(~mask[: own.shape[1], : own.shape[1]], -torch.inf)
        outputs.append((scores.softmax(-1) @ values).transpose(0, 1))
    return torch.cat(outputs)


@pytest.mark.parametrize("read", [None, 0, -1])
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("key_heads", [4, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_row_attends_to_itself_as_its_mask_says(
    dtype: torch.dtype, key_heads: int, mask: torch.Tensor, read: int | None
):
    query, key, value = tensors(4, key_heads, 13, dtype)

    output = RowAttention(LENGTHS, Pattern.of_mask(mask), read).attend(query, key, value, 0.3)

    assert output.shape == (sum(LENGTHS) + 13, 4, 16)
    assert output.dtype == dtype
    truth = expected(*(tensor[:, : sum(LENGTHS)] for tensor in (query, key, value)), mask)
    if read is not None:
        ends = torch.tensor(LENGTHS).cumsum(0)
        indices = ends - 1 if read else ends - torch.tensor(LENGTHS)
        assert int((output.float().abs().sum((1, 2)) > 0).sum()) == len(LENGTHS)
        output, truth = output[indices], truth[indices]
    assert torch.allclose(output[: len(truth)].float(), truth, atol=1e-5 if dtype == torch.float32 else 0.03)


@pytest.mark.parametrize("name", ["whole", "window"])
def test_flash_attention_computes_all_rows_in_one_call(name: str, monkeypatch: pytest.MonkeyPatch):
    query, key, value = tensors(4, 2, 0, torch.float32)
    calls = []

    def kernel(*args: object, **options: object) -> torch.Tensor:
        calls.append(args)
        return varlen_reference(*args, enable_gqa=True, **options)

    monkeypatch.setattr(flash_varlen, "_varlen_attention", lambda: partial(kernel))
    monkeypatch.setattr(FlashVarlenAttention, "supports", staticmethod(lambda _: True))

    output = RowAttention(LENGTHS, Pattern.of_mask(MASKS[name])).attend(query, key, value, 0.3)

    assert len(calls) == 1
    assert torch.allclose(output, expected(query, key, value, MASKS[name]), atol=1e-5)


@given(length=st.integers(1, 9), share=st.floats(0, 1), seed=st.integers(0, 999))
def test_a_pattern_has_the_greatest_distance_of_its_mask(length: int, share: float, seed: int):
    indices = torch.arange(length)
    distances = (indices[:, None] - indices).abs()
    some = torch.rand(length, length, generator=torch.Generator().manual_seed(seed)) < share
    for mask in (some, distances <= share * 4, some.tril()):
        pattern = Pattern.of_mask(mask)
        if mask.all():
            assert pattern == Pattern()
            continue
        assert pattern.reach == max((distances * mask).flatten().tolist())
        assert pattern.is_window == torch.equal(mask, distances <= pattern.reach)


@pytest.mark.parametrize("offset", [30, -30, 1e3, -1e3])
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_large_scores_are_about_as_exact_in_bfloat16_as_by_pytorchs_kernel(mask: torch.Tensor, offset: float):
    query, key, value = tensors(4, 2, 13, torch.float32)
    direction = torch.linspace(-1, 1, 16) / torch.linspace(-1, 1, 16).norm()
    size = (abs(offset) / 0.3) ** 0.5
    query, key = query + size * direction, key + (size if offset > 0 else -size) * direction
    query, key, value = (each.bfloat16() for each in (query, key, value))
    attention, count = RowAttention(LENGTHS, Pattern.of_mask(mask)), sum(LENGTHS)
    truth = expected(*(each[:, :count] for each in (query, key, value)), mask)

    errors = []
    for attend in (attention._by_products, attention._by_sdpa):
        with pytest.MonkeyPatch.context() as monkeypatch:
            monkeypatch.setattr(attention, "_by_products", attend)
            errors.append(float((attention.attend(query, key, value, 0.3)[:count].float() - truth).norm()))

    assert 0 < errors[0] < 1.7 * errors[1]


def test_a_row_that_is_not_a_number_spoils_no_neighbour():
    query, key, value = tensors(4, 2, 13, torch.bfloat16)
    attention = RowAttention(LENGTHS, Pattern())
    plain = attention.attend(query, key, value, 0.3)
    ends = torch.tensor(LENGTHS).cumsum(0).tolist()
    for each in (query, key, value):
        each[:, ends[1] : ends[2]] = float("nan")

    output = attention.attend(query, key, value, 0.3)

    assert output[ends[1] : ends[2]].isnan().all()
    others = [*range(ends[1]), *range(ends[2], sum(LENGTHS))]
    assert torch.allclose(output[others].float(), plain[others].float(), atol=0.02)
