"""The parts of a checkpoint -> a classifier with one logit, complete."""

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, PreTrainedModel
from transformers.modeling_layers import GenericForSequenceClassification
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING

from onelogit.checkpoints.loader import Checkpoint
from onelogit.checkpoints.module_chain import Pooling
from onelogit.conversion.head import Head, float32_head, one_logit_head
from onelogit.errors import UnsupportedModelError

_CONVERSION_FIELDS = ("classifier_from_token", "method", "is_original_qwen3_reranker")


def build_classifier(checkpoint: Checkpoint) -> PreTrainedModel:
    """The classifier that a checkpoint's parts make; its backbone is the checkpoint's own, not a copy.

    Raises:
        UnsupportedModelError: transformers has no sequence classifier for this architecture.
    """
    model = checkpoint.model
    if checkpoint.head_rows is not None:
        head = one_logit_head(*checkpoint.head_rows, checkpoint.recipe.read_out)
        return sequence_classifier(model, head, checkpoint.pad_token_id)
    if model.config.pad_token_id is None:
        model.config.pad_token_id = checkpoint.pad_token_id
    if checkpoint.chain is None or checkpoint.layers is None:
        return model
    return _with_layers(model, checkpoint.chain.pooling, checkpoint.layers)


def _with_layers(backbone: PreTrainedModel, pooling: Pooling, layers: nn.Sequential) -> PreTrainedModel:
    """A class of transformers where one computes just this, since others can serve that; else one of our own."""
    layers = layers.to(backbone.device)
    match list(layers):
        case [nn.Linear() as row] if pooling == "lasttoken" and _is_decoder(backbone):
            return sequence_classifier(backbone, Head(row.weight, row.bias), backbone.config.pad_token_id)
        case [nn.Linear() as dense, nn.GELU(), nn.LayerNorm() as norm, nn.Linear() as row] if (
            pooling != "lasttoken"
            and backbone.config.model_type == "modernbert"
            and backbone.config.norm_eps == norm.eps
            and dense.in_features == dense.out_features
        ):
            return _modernbert(backbone, pooling, dense, norm, row)
    return PooledClassifier(backbone, pooling, layers).eval()  # type: ignore[no-any-return, no-untyped-call]


def _is_decoder(backbone: PreTrainedModel) -> bool:
    config = backbone.config
    sees_right = getattr(config, "use_bidirectional_attention", None) or not getattr(config, "is_causal", True)
    kind: Any = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING.get(type(config), object)
    return not sees_right and issubclass(kind, GenericForSequenceClassification)


def _modernbert(
    backbone: PreTrainedModel, pooling: Pooling, dense: nn.Linear, norm: nn.LayerNorm, row: nn.Linear
) -> PreTrainedModel:
    """A `ModernBertForSequenceClassification` around the backbone, its head in float32.

    Its normalisation has a bias only where all of the backbone's have one. So the bias goes into the last layer's:
    `row @ (x + norm.bias) + row.bias` is `row @ x + (row @ norm.bias + row.bias)`.
    """
    config = deepcopy(backbone.config)
    config.num_labels = 1
    config.classifier_pooling = pooling
    config.classifier_bias = dense.bias is not None
    config.classifier_activation = "gelu"
    with torch.device("meta"):
        classifier = AutoModelForSequenceClassification.from_config(config)  # type: ignore[no-untyped-call]
    bias = row.weight.double() @ norm.bias.double() + (0 if row.bias is None else row.bias)
    classifier.model = backbone
    classifier.head.dense = float32_head(dense.weight, dense.bias)
    classifier.head.norm.weight = norm.weight
    if config.norm_bias:
        classifier.head.norm.bias = nn.Parameter(torch.zeros_like(norm.bias), requires_grad=False)
    classifier.classifier = float32_head(row.weight, bias.float())
    return classifier.eval()  # type: ignore[no-any-return]


def sequence_classifier(backbone: PreTrainedModel, head: Head, pad_token_id: int) -> PreTrainedModel:
    """The `...ForSequenceClassification` of the backbone's architecture, around the backbone itself.

    Nothing is copied: the classifier holds the given backbone, and `head` as its only other weight.

    Args:
        backbone: a decoder without a head.
        head: one logit for a reranker; several make as many labels.
        pad_token_id: transformers' own forward finds the last token by it.

    Raises:
        UnsupportedModelError: transformers has no sequence classifier for this architecture.
    """
    config = deepcopy(backbone.config)
    config.num_labels = len(head.weight)
    config.pad_token_id = pad_token_id
    for each in (config, config.get_text_config()):
        for field in _CONVERSION_FIELDS:  # they ask for what is now done
            if hasattr(each, field):
                delattr(each, field)
    try:
        with torch.device("meta"):
            classifier = AutoModelForSequenceClassification.from_config(config)  # type: ignore[no-untyped-call]
    except ValueError as error:
        raise UnsupportedModelError(f"transformers has no sequence classifier for {config.model_type!r}") from error
    classifier.config.architectures = [type(classifier).__name__]
    setattr(classifier, classifier.base_model_prefix, backbone)
    classifier.score = float32_head(
        head.weight.to(backbone.device), None if head.bias is None else head.bias.to(backbone.device)
    )
    return classifier.eval()  # type: ignore[no-any-return]


class PooledClassifier(PreTrainedModel):  # type: ignore[no-untyped-call]
    """One logit by way of a pooled hidden state, for a head that no class of transformers has.

    Args:
        backbone: an encoder, or a decoder without a head; any dtype.
        pooling: of its last hidden states.
        layers: from the pooled state to the logit, in float32.
    """

    base_model_prefix = "model"
    # The backbone was asked already, when it was loaded.
    _supports_sdpa = _supports_flash_attn = _supports_flex_attn = _supports_attention_backend = True

    def __init__(self, backbone: PreTrainedModel, pooling: Pooling, layers: nn.Sequential) -> None:
        super().__init__(backbone.config)
        self.model = backbone
        self.pooling = pooling
        self.layers = layers

    def forward(self, attention_mask: Tensor, **inputs: Any) -> SequenceClassifierOutput:
        """The logit of each row, shape (rows, 1), float32.

        Args:
            attention_mask: shape (rows, tokens); 1 for tokens, then 0 for padding, which stands at the right.
            **inputs: input_ids, and what else the backbone takes.
        """
        hidden = self.model(attention_mask=attention_mask, **inputs).last_hidden_state
        pooled = pool(hidden, attention_mask, self.pooling)
        return SequenceClassifierOutput(logits=self.layers(pooled.to(next(self.layers.parameters()))))


def pool(hidden: Tensor, attention_mask: Tensor, pooling: Pooling) -> Tensor:
    """One state for each row: the first token's, the last one's, or the mean over all.

    Args:
        hidden: shape (rows, tokens, hidden), padded at the right.
        attention_mask: shape (rows, tokens).
        pooling: "cls" for the first, "lasttoken", or "mean".

    Returns:
        Shape (rows, hidden), float32.
    """
    counts = attention_mask.sum(dim=1)
    if pooling == "mean":
        return (hidden.float() * attention_mask.unsqueeze(-1)).sum(dim=1) / counts.unsqueeze(-1)
    places = counts - 1 if pooling == "lasttoken" else torch.zeros_like(counts)
    return hidden[torch.arange(len(hidden), device=hidden.device), places].float()


def position_limit(classifier: PreTrainedModel) -> int | None:
    """How many tokens the model can place; None where it sets no limit.

    RoBERTa's kind begins to count behind the padding index, and so has fewer places than embeddings.
    """
    for name, module in classifier.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            return module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)
    limit = getattr(classifier.config, "max_position_embeddings", None)
    return None if limit is None else int(limit)
