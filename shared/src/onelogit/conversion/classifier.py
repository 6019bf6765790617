"""The parts of a checkpoint -> a classifier with one logit, complete."""

from copy import deepcopy
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForSequenceClassification, PreTrainedModel
from transformers.modeling_layers import GenericForSequenceClassification
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING

from onelogit.checkpoints.loader import Checkpoint
from onelogit.checkpoints.module_chain import Pooling
from onelogit.conversion.head import Head, float32_head, one_logit_head, sequence_classifier
from onelogit.conversion.pooled import PooledClassifier


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
