"""Attention of variable length as PyTorch documents it, one sequence at a time."""

import torch
from torch.nn.functional import scaled_dot_product_attention


def varlen_reference(
    query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, scale=None, window_size=(-1, -1), enable_gqa=False
):
    """`torch.nn.attention.varlen.varlen_attn` as documented, one sequence at a time."""
    outputs = []
    for index in range(len(cu_seq_q) - 1):
        q = query[cu_seq_q[index] : cu_seq_q[index + 1]]
        k, v = (tensor[cu_seq_k[index] : cu_seq_k[index + 1]] for tensor in (key, value))
        assert len(q) <= max_q
        assert len(k) <= max_k
        distance = (torch.arange(len(q))[:, None] + len(k) - len(q)) - torch.arange(len(k))
        mask = ((distance >= -window_size[1]) | (window_size[1] < 0)) & (
            (distance <= window_size[0]) | (window_size[0] < 0)
        )
        tensors = (tensor.transpose(0, 1)[None] for tensor in (q, k, v))
        seen = scaled_dot_product_attention(*tensors, attn_mask=mask, scale=scale, enable_gqa=enable_gqa)
        outputs.append(seen[0].transpose(0, 1))
    return torch.cat(outputs)
