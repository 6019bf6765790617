"""One batch of rows -> its hidden states or logits, in one pass through a model, on the model's device."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from onelogit.conversion.head import Float32Head
from onelogit.engine.attention.context import AttentionContext
from onelogit.engine.attention.hooks import current
from onelogit.engine.attention.sdpa import rounded
from onelogit.engine.device_transfer import tensor_on
from onelogit.engine.keys import LayerKeyValues
from onelogit.engine.prefix_tree import Batch, Cursor, next_batch
from onelogit.prompts.token_rows import TokenRow


def has_own_head(classifier: PreTrainedModel) -> bool:
    """Whether it came complete with a head that is not ours, and says itself what a logit is."""
    return not isinstance(getattr(classifier, "score", None), Float32Head)


def context_for(
    batch: Batch,
    classifier: PreTrainedModel,
    batch_tokens: int,
    carried: LayerKeyValues | None = None,
    kept: LayerKeyValues | None = None,
) -> AttentionContext:
    """A batch with what it may see besides, filled up within the budget to a length that kernels meet again.

    Args:
        batch: of the rows' forest.
        classifier: that will read it.
        batch_tokens: the budget.
        carried: what the batch before handed on; None for nothing.
        kept: what is kept between forests; None for nothing.
    """
    count = len(batch.ids)
    is_filled = classifier.device.type != "cuda" and rounded(count) <= batch_tokens
    layer_count = int(getattr(classifier.config.get_text_config(), "num_hidden_layers", 0))
    return AttentionContext(batch, layer_count, carried or [], kept or [], rounded(count) if is_filled else count)


def read_token(classifier: PreTrainedModel) -> LayerKeyValues:
    """Keys and values of one token, as each layer makes them, where it makes them."""
    # A row that is cut hands its keys on. Of one token alone, compiled layers would be compiled once more.
    context = context_for(next_batch([(0, 0, 0)], Cursor(), 2), classifier, 2)
    run_prefix_tree(classifier, context)
    return [layer.part(0, 1) for layer in context.carry]


@torch.inference_mode()
def run_prefix_tree(classifier: PreTrainedModel, context: AttentionContext) -> Tensor:
    """The last hidden state of each row that ends in the batch, shape (rows, hidden)."""
    batch, device = context.batch, classifier.device
    fillers = [0] * (context.width - len(batch.ids))
    with current(context):
        hidden: Tensor = classifier.base_model(
            input_ids=tensor_on(device, batch.ids + fillers)[None],
            position_ids=tensor_on(device, batch.positions + fillers)[None],
            attention_mask=torch.zeros((1, 1, 1, 1), device=device),  # as if prepared: no mask is made
            use_cache=False,
        ).last_hidden_state
    return hidden[0, context.ends(hidden.device)]


@torch.inference_mode()
def read_padded(classifier: PreTrainedModel, rows: Sequence[TokenRow]) -> Tensor:
    """The last hidden state of each row, shape (rows, hidden)."""
    # Padded at the right, without a mask: a causal model never looks right, so each row reads as if it were alone.
    hidden: Tensor = classifier.base_model(
        input_ids=_padded([row.ids for row in rows], 0, classifier.device), use_cache=False
    ).last_hidden_state
    last = tensor_on(hidden.device, [len(row.ids) - 1 for row in rows])
    return hidden[torch.arange(len(rows), device=hidden.device), last]


@torch.inference_mode()
def classify(classifier: PreTrainedModel, rows: Sequence[TokenRow]) -> Tensor:
    """The logits that a classifier with its own head gives, float32, shape (rows,)."""
    device = classifier.device
    inputs = {
        "input_ids": _padded([row.ids for row in rows], classifier.config.pad_token_id or 0, device),
        "attention_mask": _padded([[1] * len(row.ids) for row in rows], 0, device),
    }
    if rows[0].second_start:
        types = [[0] * row.second_start + [1] * (len(row.ids) - row.second_start) for row in rows]
        inputs["token_type_ids"] = _padded(types, 0, device)
    logits: Tensor = classifier(**inputs).logits
    return logits[:, 0].float()


@torch.inference_mode()
def read_out(classifier: PreTrainedModel, hidden: Tensor) -> Tensor:
    """The logits that our head reads of hidden states of shape (rows, hidden); float32, shape (rows,)."""
    logits: Tensor = classifier.get_submodule("score")(hidden)
    return logits[:, 0].float()


def _padded(rows: Sequence[Sequence[int]], filler: int, device: torch.device) -> Tensor:
    """Shape (rows, longest), filled up at the right."""
    width = max(map(len, rows))
    filled = [id for row in rows for id in (*row, *[filler] * (width - len(row)))]
    return tensor_on(device, filled).view(len(rows), width)
