"""The two executions of one description: segment by segment, and all segments in one call of variable length."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from onelogit import attention
from onelogit.attention import KeysValues, Reading
from onelogit.forest import CARRIED, Cursor, next_batch

HEADS, KEY_HEADS, WIDTH = 4, 2, 8
ROWS = sorted([(1, 2, 3), (1, 2, 3, 4, 5, 6), (1, 2, 9), (1, 7, 7, 7), (8,), (8, 8, 8, 8, 8)])


def varlen_reference(
    query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, scale=None, window_size=(-1, -1), enable_gqa=False
):
    """What the documentation of `torch.nn.attention.varlen.varlen_attn` says, one sequence at a time."""
    outputs = []
    for index in range(len(cu_seq_q) - 1):
        q = query[cu_seq_q[index] : cu_seq_q[index + 1]]
        k, v = (tensor[cu_seq_k[index] : cu_seq_k[index + 1]] for tensor in (key, value))
        assert len(q) <= max_q
        assert len(k) <= max_k
        distance = (torch.arange(len(q))[:, None] + len(k) - len(q)) - torch.arange(len(k))
        mask = (distance >= -window_size[1]) & ((distance <= window_size[0]) | (window_size[0] < 0))
        tensors = (tensor.transpose(0, 1)[None] for tensor in (q, k, v))
        seen = scaled_dot_product_attention(*tensors, attn_mask=mask, scale=scale, enable_gqa=enable_gqa)
        outputs.append(seen[0].transpose(0, 1))
    return torch.cat(outputs)


def attend(batch, layer: int, window: int | None) -> Reading:
    torch.manual_seed(5)
    past = [[KeysValues(*torch.randn(2, KEY_HEADS, 4, WIDTH))] * 2 for _ in batch.past]
    own = KeysValues(*torch.randn(2, KEY_HEADS, len(batch.ids), WIDTH))
    query = torch.randn(HEADS, len(batch.ids), WIDTH)
    return Reading(batch, past, layer_count=2).attend(query, own, layer, scaling=0.3, window=window)


@pytest.mark.parametrize("window", [None, 1, 2, 3, 100])
@pytest.mark.parametrize("layer", [0, 1], ids=["a layer", "the last layer"])
@pytest.mark.parametrize("cursor", [Cursor(), Cursor(3, 2)], ids=["first batch", "with carried keys"])
def test_both_executions_see_the_same(monkeypatch: pytest.MonkeyPatch, cursor: Cursor, layer: int, window: int | None):
    batch = next_batch(ROWS, cursor, 100)
    in_turn = attend(batch, layer, window)
    monkeypatch.setattr(attention, "_has_varlen", lambda query: True)
    monkeypatch.setattr(attention, "_varlen_attention", lambda: varlen_reference)

    at_once = attend(batch, layer, window)

    assert (CARRIED in batch.past) == bool(cursor.begun)
    assert torch.allclose(at_once, in_turn, atol=1e-6)
    assert bool((at_once.abs().sum((1, 2)) > 0).all()) == (layer == 0 or len(batch.ends) == len(batch.ids))


def test_pytorchs_own_call_takes_what_it_is_given():
    assert attention._varlen_attention() is not None
