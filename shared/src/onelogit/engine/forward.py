"""One batch of rows -> its hidden states or logits, in one pass through a model, on the model's device."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear
from transformers import PreTrainedModel

from onelogit.conversion.head import Float32Head
from onelogit.engine.attention.backend import LayerKeyValues
from onelogit.engine.attention.context import AttentionContext, padded_length, use_context
from onelogit.engine.attention.recurrent import StateContext
from onelogit.engine.device_transfer import tensor_on
from onelogit.engine.prefix_tree import Batch
from onelogit.prompts.token_rows import TokenRow

_MOST_PADDING = 1.04  # for models with recurrent layers, whose batches are often short and their tokens expensive


def has_own_head(classifier: PreTrainedModel) -> bool:
    """Whether the classifier's own forward gives the logit; False for decoders from `sequence_classifier`."""
    return not isinstance(getattr(classifier, "score", None), Float32Head)


def context_for(
    batch: Batch,
    classifier: PreTrainedModel,
    batch_tokens: int,
    carried: LayerKeyValues | None = None,
    cached: LayerKeyValues | None = None,
    states: StateContext | None = None,
) -> AttentionContext:
    """The context in which a classifier computes a batch, padded if `batch_tokens` allows it.

    `carried` keys and values come from the batch before, `cached` ones from the prefix cache; None if there are none.
    `states` are for recurrent layers.
    """
    padded = padded_length(len(batch.ids), classifier.device)
    layer_count = int(getattr(classifier.config.get_text_config(), "num_hidden_layers", 0))
    most = batch_tokens if states is None else min(batch_tokens, int(len(batch.ids) * _MOST_PADDING))
    length = padded if padded <= most else len(batch.ids)
    return AttentionContext(batch, layer_count, carried or [], cached or [], length, states)


@torch.inference_mode()
def own_head_logits(classifier: PreTrainedModel, rows: Sequence[TokenRow]) -> Tensor:
    """The logit of each row, by a classifier with its own head; float32, shape (rows,)."""
    device = classifier.device
    inputs = {
        "input_ids": _padded([row.ids for row in rows], classifier.config.pad_token_id or 0, device),
        "attention_mask": _padded([[1] * len(row.ids) for row in rows], 0, device),
    }
    if any(row.second_start for row in rows):
        firsts = [row.second_start or len(row.ids) for row in rows]
        types = [[0] * first + [1] * (len(row.ids) - first) for row, first in zip(rows, firsts, strict=True)]
        inputs["token_type_ids"] = _padded(types, 0, device)
    logits: Tensor = classifier(**inputs).logits
    return logits[:, 0].float()


@torch.inference_mode()
def prefix_tree_hidden(classifier: PreTrainedModel, context: AttentionContext) -> Tensor:
    """The last hidden state of each row that ends in the batch, shape (rows, hidden)."""
    batch, device = context.batch, classifier.device
    padding = [0] * (context.padded_length - len(batch.ids))
    with use_context(context):
        hidden: Tensor = classifier.base_model(
            input_ids=tensor_on(device, batch.ids + padding)[None],
            position_ids=tensor_on(device, batch.positions + padding)[None],
            attention_mask=torch.zeros((1, 1, 1, 1), device=device),  # transformers keeps a mask of four dimensions
            use_cache=False,
        ).last_hidden_state
    return hidden[0, context.ends(hidden.device)]


@torch.inference_mode()
def padded_hidden(classifier: PreTrainedModel, rows: Sequence[TokenRow], *, is_causal: bool = True) -> Tensor:
    """The last hidden state of each row, shape (rows, hidden)."""
    hidden = padded_hidden_of_all(classifier, [row.ids for row in rows], is_causal=is_causal)
    last = tensor_on(hidden.device, [len(row.ids) - 1 for row in rows])
    return hidden[torch.arange(len(rows), device=hidden.device), last]


@torch.inference_mode()
def padded_hidden_of_all(
    classifier: PreTrainedModel, rows: Sequence[Sequence[int]], *, is_causal: bool = True
) -> Tensor:
    """The hidden states of all tokens, shape (rows, longest, hidden).

    Padding at the right needs no mask if the model is causal: its tokens do not attend to it.
    """
    masks = {} if is_causal else {"attention_mask": _padded([[1] * len(row) for row in rows], 0, classifier.device)}
    hidden: Tensor = classifier.base_model(
        input_ids=_padded(rows, 0, classifier.device), use_cache=False, **masks
    ).last_hidden_state
    return hidden


@torch.inference_mode()
def converted_head_logits(classifier: PreTrainedModel, hidden: Tensor) -> Tensor:
    """The logits of last hidden states, shape (rows, hidden); float32, shape (rows,)."""
    head: Any = classifier.score
    return linear(hidden.float(), head.weight, head.bias)[:, 0]  # as `Float32Head.forward`


def _padded(rows: Sequence[Sequence[int]], padding: int, device: torch.device) -> Tensor:
    """The rows, padded at the right; shape (rows, longest)."""
    length = max(map(len, rows))
    padded = [id for row in rows for id in (*row, *[padding] * (length - len(row)))]
    return tensor_on(device, padded).view(len(rows), length)
