"""Queries of a batch and the keys before them -> attention by matrix products, block by block, on a CPU in bfloat16."""

import torch
from torch import Tensor

from onelogit.engine.attention.backend import KeyValue
from onelogit.engine.attention.sdpa import Block, SdpaAttention, rounded

_BLOCK = 256  # queries whose scores are in memory at the same time; a block skips the keys after its last query
_SAMPLED = 4  # one key of so many; divides `sdpa.LENGTH_MULTIPLE`


class ProductAttention(SdpaAttention):
    """Two products for each block of a segment in each layer; see `AttentionBackend`.

    Query heads with the same key head are folded into rows. A product rounds its scores to bfloat16, which PyTorch's
    kernel does not. What matters are the largest ones of a query: they are rounded after the greatest score of a sample
    of the keys is subtracted, so they are close to 0, where bfloat16 is fine.
    """

    @staticmethod
    def supports(query: Tensor) -> bool:
        """Whether PyTorch's own kernel is slower: without matrix units (AMX), it multiplies small tiles one by one.

        Not found by a timed trial: logits would then depend on how busy the machine was while the model was loaded.
        """
        return query.device.type == "cpu" and query.dtype == torch.bfloat16 and not torch.cpu._is_amx_tile_supported()

    def _attend_segment(
        self, query: Tensor, seen: KeyValue, block: Block, scaling: float | None, window: int | None
    ) -> Tensor:
        heads, rows, width = query.shape
        if rows == 1 or (window is not None and window < block.visible):  # a sample may have no key in a window
            return super()._attend_segment(query, seen, block, scaling, window)
        keys, values = seen
        mask = self._cached_mask(block, None, query.dtype, query.device)
        sample, scale = keys[:, ::_SAMPLED], width**-0.5 if scaling is None else scaling
        attended = query.new_empty((heads, rows, values.shape[-1]))
        step = rounded(-(-rows // -(-rows // _BLOCK)))
        for start in range(0, rows, step):
            stop = min(rows, start + step)
            end = min(block.keys, rounded(max(1, block.visible - block.own - block.before + stop)))
            hidden = mask[start:stop, :end]
            folded = query[:, start:stop].reshape(len(keys), -1, width)
            sampled = torch.bmm(folded, sample[:, : end // _SAMPLED].transpose(1, 2))
            sampled = sampled.view(len(keys), -1, *hidden[:, ::_SAMPLED].shape)
            greatest = torch.add(hidden[:, ::_SAMPLED], sampled, alpha=scale).amax(-1, keepdim=True)
            scores = torch.sub(hidden, greatest).view(*folded.shape[:2], end)
            torch.baddbmm(scores, folded, keys[:, :end].transpose(1, 2), alpha=scale, out=scores)
            products = torch.bmm(scores.softmax(-1), values[:, :end])
            attended[:, start:stop] = products.view(heads, stop - start, -1)
        return attended
