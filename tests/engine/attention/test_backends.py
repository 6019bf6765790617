"""Every attention backend computes what the one for all devices does; and what is special about each."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import chain

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.attention import varlen
from torch.nn.functional import scaled_dot_product_attention

from onelogit.engine.attention import context, flash_varlen, sdpa
from onelogit.engine.attention.backend import AttentionBackend, KeyValue
from onelogit.engine.attention.context import BACKENDS, AttentionContext
from onelogit.engine.attention.flash_varlen import FlashVarlenAttention
from onelogit.engine.attention.sdpa import SdpaAttention
from onelogit.engine.device_transfer import indices_of, to_device
from onelogit.engine.prefix_tree import CACHED, CARRIED, CachedPrefix, Cursor, next_batch
from support.varlen import varlen_reference

HEADS, KEY_HEADS, WIDTH = 4, 2, 8
SHORT = sorted([(1, 2, 3), (1, 2, 3, 4, 5, 6), (1, 2, 9), (1, 7, 7, 7), (8,), (8, 8, 8, 8, 8)])
LONG = sorted([(*range(40),), (*range(20), *range(70)), (*range(20), *range(64)), (5,) * 33, (5, 6, *[7] * 31)])


def attend(batch, layer: int, window: int | None, padding: int) -> tuple[torch.Tensor, AttentionContext]:
    torch.manual_seed(5)
    carried, cached = ([KeyValue(*torch.randn(2, count, KEY_HEADS, WIDTH))] * 2 for count in (4, 50))
    token_count = len(batch.ids) + padding
    own = KeyValue(*torch.randn(2, token_count, KEY_HEADS, WIDTH))
    query = torch.randn(HEADS, token_count, WIDTH)
    context = AttentionContext(batch, 2, carried, cached, padded_length=token_count)
    return context.attend(query, own, layer, scaling=0.3, window=window)[: len(batch.ids)], context


def find_cached(row: int) -> CachedPrefix | None:
    """Some rows have their first two tokens in the cache, in two places."""
    return CachedPrefix(2, [(7 + row, 8 + row), (40 - row, 41 - row)]) if row in (3, 5) else None


FLASH_KERNEL = "onelogit.engine.attention.flash_varlen._varlen_attention"
CPU_KERNELS = {  # functions that a CPU lacks -> what replaces them
    FLASH_KERNEL: lambda: partial(varlen_reference, enable_gqa=True),
}
compared_backends = pytest.mark.parametrize(
    "backend", dict.fromkeys(chain(*BACKENDS.values())), ids=lambda each: each.__name__
)


@contextmanager
def only(backend: type[AttentionBackend]) -> Iterator[None]:
    """Inside this block, a CPU uses this backend for every query."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        for name, kernel in CPU_KERNELS.items():
            monkeypatch.setattr(name, kernel)
        monkeypatch.setattr(backend, "supports", staticmethod(lambda _: True))
        monkeypatch.setattr(context, "BACKENDS", {"cpu": [backend]})
        yield


@compared_backends
@pytest.mark.parametrize("window", [None, 1, 2, 3, 32, 33, 100])
@pytest.mark.parametrize("layer", [0, 1], ids=["a layer", "the last layer"])
@pytest.mark.parametrize("padding", [0, 3, 50])
@pytest.mark.parametrize("find", [None, find_cached], ids=["nothing cached", "cached keys"])
@pytest.mark.parametrize(
    ("rows", "cursor"),
    [(SHORT, Cursor()), (SHORT, Cursor(3, 2)), (LONG, Cursor()), (LONG, Cursor(1, 3))],
    ids=["short", "short, with carried keys", "long", "long, with carried keys"],
)
def test_every_backend_computes_the_same_attention(
    backend, rows, cursor: Cursor, find, padding: int, layer: int, window: int | None
):
    batch = next_batch(rows, cursor, 300, find_cached=find)
    with only(SdpaAttention):
        expected, _ = attend(batch, layer, window, padding)

    with only(backend):
        output, _ = attend(batch, layer, window, padding)

    used = {span.source for segment in batch.segments for span in segment.ancestors}
    assert (CARRIED in used, CACHED in used) == (bool(cursor.token), find is not None)
    assert torch.allclose(output, expected, atol=1e-6)
    assert bool((output.abs().sum((1, 2)) > 0).all()) == (layer == 0 or len(batch.ends) == len(batch.ids))


@compared_backends
@pytest.mark.parametrize("find", [None, find_cached], ids=["nothing cached", "cached keys"])
@pytest.mark.parametrize(("rows", "cursor"), [(SHORT, Cursor()), (LONG, Cursor(1, 3))])
def test_every_backend_copies_the_same_outgoing_keys_and_values(backend, rows, cursor: Cursor, find):
    cacheable_lengths = [range(2, len(row) + 1, 3) for row in rows]
    batch = next_batch(rows, cursor, 90, cacheable_lengths, find)
    with only(SdpaAttention):
        _, expected = attend(batch, 0, None, padding=3)

    with only(backend):
        _, output = attend(batch, 0, None, padding=3)

    assert len(batch.cacheable_prefixes) > 1
    assert len(expected.cacheable_key_values[0].keys) == sum(prefix.length for prefix in batch.cacheable_prefixes)
    assert len(expected.carry[0].keys) == batch.after.token
    for mine, other in zip(
        expected.cacheable_key_values + expected.carry, output.cacheable_key_values + output.carry, strict=True
    ):
        for tensor, same in zip(mine, other, strict=True):
            assert torch.equal(tensor, same)
    for result in (expected, output):
        for cacheable, carry in zip(result.cacheable_key_values[0], result.carry[0], strict=True):
            assert cacheable.untyped_storage().nbytes() == cacheable.nbytes + carry.nbytes


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
    expected, _ = attend(batch, 0, None, padding=0)
    monkeypatch.setattr(varlen, "varlen_attn", of_2_11)
    monkeypatch.setitem(CPU_KERNELS, FLASH_KERNEL, flash_varlen._varlen_attention.__wrapped__)

    with only(FlashVarlenAttention):
        output, _ = attend(batch, 0, None, padding=0)

    assert torch.allclose(output, expected, atol=1e-6)


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
