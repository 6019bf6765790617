"""Two attention backends that must agree: segment by segment, and all segments in one call of variable length."""

from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.attention import varlen
from torch.nn.functional import scaled_dot_product_attention

from onelogit.engine.attention import context as context_module
from onelogit.engine.attention import flash_varlen, sdpa
from onelogit.engine.attention.backend import KeyValue
from onelogit.engine.attention.context import AttentionContext
from onelogit.engine.attention.flash_varlen import FlashVarlenAttention
from onelogit.engine.device_transfer import indices_of, to_device
from onelogit.engine.prefix_tree import CACHED, CARRIED, CachedPrefix, Cursor, next_batch
from support.varlen import varlen_reference

HEADS, KEY_HEADS, WIDTH = 4, 2, 8
SHORT = sorted([(1, 2, 3), (1, 2, 3, 4, 5, 6), (1, 2, 9), (1, 7, 7, 7), (8,), (8, 8, 8, 8, 8)])
LONG = sorted([(*range(40),), (*range(20), *range(70)), (*range(20), *range(64)), (5,) * 33, (5, 6, *[7] * 31)])


def attend(batch, layer: int, window: int | None, padding: int) -> tuple[torch.Tensor, AttentionContext]:
    torch.manual_seed(5)
    carried, cached = ([KeyValue(*torch.randn(2, count, KEY_HEADS, WIDTH))] * 2 for count in (4, 50))
    width = len(batch.ids) + padding
    own = KeyValue(*torch.randn(2, width, KEY_HEADS, WIDTH))
    query = torch.randn(HEADS, width, WIDTH)
    context = AttentionContext(batch, 2, carried, cached, width=width)
    return context.attend(query, own, layer, scaling=0.3, window=window)[: len(batch.ids)], context


def find_cached(row: int) -> CachedPrefix | None:
    """Some rows have their first two tokens in the cache, in two places."""
    return CachedPrefix(2, [(7 + row, 8 + row), (40 - row, 41 - row)]) if row in (3, 5) else None


@pytest.mark.parametrize("window", [None, 1, 2, 3, 32, 33, 100])
@pytest.mark.parametrize("layer", [0, 1], ids=["a layer", "the last layer"])
@pytest.mark.parametrize("padding", [0, 3, 50])
@pytest.mark.parametrize("find", [None, find_cached], ids=["nothing cached", "cached keys"])
@pytest.mark.parametrize(
    ("rows", "cursor"),
    [(SHORT, Cursor()), (SHORT, Cursor(3, 2)), (LONG, Cursor()), (LONG, Cursor(1, 3))],
    ids=["short", "short, with carried keys", "long", "long, with carried keys"],
)
def test_both_backends_compute_the_same_attention(
    monkeypatch: pytest.MonkeyPatch, rows, cursor: Cursor, find, padding: int, layer: int, window: int | None
):
    batch = next_batch(rows, cursor, 300, find_cached=find)
    sdpa_output, _ = attend(batch, layer, window, padding)
    monkeypatch.setattr(context_module, "BACKENDS", {"cpu": FlashVarlenAttention})
    monkeypatch.setattr(FlashVarlenAttention, "supports", lambda *_: True)
    monkeypatch.setattr(flash_varlen, "_varlen_attention", lambda: partial(varlen_reference, enable_gqa=True))

    flash_output, _ = attend(batch, layer, window, padding)

    used = {span.source for segment in batch.segments for span in segment.ancestors}
    assert (CARRIED in used, CACHED in used) == (bool(cursor.token), find is not None)
    assert torch.allclose(flash_output, sdpa_output, atol=1e-6)
    assert bool((flash_output.abs().sum((1, 2)) > 0).all()) == (layer == 0 or len(batch.ends) == len(batch.ids))


@pytest.mark.parametrize("find", [None, find_cached], ids=["nothing cached", "cached keys"])
@pytest.mark.parametrize(("rows", "cursor"), [(SHORT, Cursor()), (LONG, Cursor(1, 3))])
def test_both_backends_copy_the_same_outgoing_keys_and_values(
    monkeypatch: pytest.MonkeyPatch, rows, cursor: Cursor, find
):
    cacheable_lengths = [range(2, len(row) + 1, 3) for row in rows]
    batch = next_batch(rows, cursor, 90, cacheable_lengths, find)
    _, sdpa_output = attend(batch, 0, None, padding=3)
    monkeypatch.setattr(context_module, "BACKENDS", {"cpu": FlashVarlenAttention})
    monkeypatch.setattr(FlashVarlenAttention, "supports", lambda *_: True)
    monkeypatch.setattr(flash_varlen, "_varlen_attention", lambda: partial(varlen_reference, enable_gqa=True))

    _, flash_output = attend(batch, 0, None, padding=3)

    assert len(batch.cacheable_prefixes) > 1
    assert len(sdpa_output.cacheable_prefixes[0].keys) == sum(prefix.length for prefix in batch.cacheable_prefixes)
    assert len(sdpa_output.carry[0].keys) == batch.after.token
    for mine, other in zip(
        sdpa_output.cacheable_prefixes + sdpa_output.carry,
        flash_output.cacheable_prefixes + flash_output.carry,
        strict=True,
    ):
        for tensor, same in zip(mine, other, strict=True):
            assert torch.equal(tensor, same)
    for context in (sdpa_output, flash_output):
        for cacheable_prefixes, carry in zip(context.cacheable_prefixes[0], context.carry[0], strict=True):
            assert cacheable_prefixes.untyped_storage().nbytes() == cacheable_prefixes.nbytes + carry.nbytes


def test_pytorchs_varlen_attention_accepts_the_options():
    assert flash_varlen._varlen_attention() is not None


def test_pytorch_2_11_is_called_without_enable_gqa(monkeypatch: pytest.MonkeyPatch):
    """It has no such option and needs none: its kernel takes fewer key heads."""

    def of_2_11(
        query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, return_aux=None, scale=None, window_size=(-1, -1)
    ):
        return varlen_reference(
            query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, scale=scale, window_size=window_size, enable_gqa=True
        )

    batch = next_batch(SHORT, Cursor(), 300)
    sdpa_output, _ = attend(batch, 0, None, padding=0)
    monkeypatch.setattr(varlen, "varlen_attn", of_2_11)
    monkeypatch.setattr(context_module, "BACKENDS", {"cpu": FlashVarlenAttention})
    monkeypatch.setattr(FlashVarlenAttention, "supports", lambda *_: True)
    monkeypatch.setattr(flash_varlen, "_varlen_attention", flash_varlen._varlen_attention.__wrapped__)

    flash_output, _ = attend(batch, 0, None, padding=0)

    assert torch.allclose(flash_output, sdpa_output, atol=1e-6)


def test_pytorch_2_10_without_scale_and_window_is_not_called(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def of_2_10(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, is_causal=False, return_aux=None):
        raise AssertionError

    monkeypatch.setattr(varlen, "varlen_attn", of_2_10)

    assert flash_varlen._varlen_attention.__wrapped__() is None
    assert "2.11 or newer is faster" in caplog.text


def test_segments_are_padded_to_recurring_lengths(monkeypatch: pytest.MonkeyPatch):
    lengths = set()

    def noted(query, key, value, **options):
        lengths.add((query.shape[2], key.shape[2]))
        return scaled_dot_product_attention(query, key, value, **options)

    monkeypatch.setattr(sdpa, "scaled_dot_product_attention", noted)
    for length in range(33, 65):
        batch = next_batch([(*range(length),), (*range(20), *range(90, 90 + length))], Cursor(), 300)
        attend(batch, 0, None, padding=0)

    assert lengths == {(64, 64), (64, 96)}


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 9)).map(lambda span: (span[0], sum(span)))))
def test_indices_of_spans_follow_one_another(spans: list[tuple[int, int]]):
    found = indices_of(spans)

    assert found.tolist() == [place for span in spans for place in range(*span)]
    assert found.dtype == torch.long


def test_only_cuda_is_not_waited_for():
    """Other devices, if not waited for, may read memory that was freed meanwhile: pytorch/pytorch#189690, on MPS."""
    waits = []

    class Noted(torch.Tensor):
        @classmethod
        def __torch_function__(cls, function, types, args=(), kwargs=None):
            if function is torch.Tensor.to:
                waits.append(not (kwargs or {}).get("non_blocking"))
            return super().__torch_function__(function, types, args, kwargs or {})

    there = to_device(torch.arange(3).as_subclass(Noted), torch.device("meta"))

    assert there.is_meta
    assert waits == [True]
