"""The parts of a checkpoint -> a complete classifier with one logit."""

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, PreTrainedModel
from transformers.modeling_layers import GenericForSequenceClassification
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING

from onelogit.checkpoints.bidirectional import POOLING_FIELDS
from onelogit.checkpoints.loader import Checkpoint
from onelogit.checkpoints.module_chain import Pooling
from onelogit.conversion.head import Float32Head, one_logit_head
from onelogit.conversion.own_head import check_head, own_head_modules, use_one_logit
from onelogit.errors import UnsupportedModelError

_CONVERSION_FIELDS = ("classifier_from_token", "method", "is_original_qwen3_reranker")  # make vLLM convert the model


def build_classifier(checkpoint: Checkpoint) -> PreTrainedModel:
    """The classifier of a checkpoint's parts; it contains the checkpoint's backbone itself, not a copy.

    Head rows become a one-logit head, and a chain's layers a head; without either, the model has its own head.

    Raises:
        UnsupportedModelError: transformers has no sequence classifier for this architecture.
        CheckpointError: the head gives every document the same logit, or has weights that are not numbers.
    """
    model = checkpoint.model
    name = str(model.name_or_path)
    if checkpoint.head_rows is not None:
        temperature = 1.0 if checkpoint.pooled is None else checkpoint.pooled.temperature
        head = one_logit_head(*checkpoint.head_rows, checkpoint.recipe.read_out, temperature)
        check_head(name, {_described(checkpoint): head})
        for field in POOLING_FIELDS if checkpoint.pooled is not None else ():  # they are part of the classifier now
            vars(model.config).pop(field, None)
        if checkpoint.pooled is None or checkpoint.pooled.pooling == "lasttoken":
            return sequence_classifier(model, head, checkpoint.pad_token_id)
        return _pooled_classifier(model, checkpoint.pooled.pooling, head, checkpoint.pad_token_id)
    if model.config.pad_token_id is None:
        model.config.pad_token_id = checkpoint.pad_token_id
    if checkpoint.chain is None or checkpoint.layers is None:
        if checkpoint.labels is not None:
            use_one_logit(model, checkpoint.labels)
        check_head(name, own_head_modules(model))
        return model
    modules = {f"layer {index} of its module chain": layer for index, layer in enumerate(checkpoint.layers)}
    check_head(name, modules)
    return _module_chain_classifier(model, checkpoint.chain.pooling, checkpoint.layers.to(model.device))


def _pooled_classifier(
    backbone: PreTrainedModel, pooling: Pooling, head: Float32Head, pad_token_id: int
) -> PreTrainedModel:
    backbone.config.pad_token_id = pad_token_id
    layers = nn.Sequential(head.to(backbone.device))
    return PooledClassifier(backbone, pooling, layers).eval()  # type: ignore[no-any-return, no-untyped-call]


def _described(checkpoint: Checkpoint) -> str:
    read_out = checkpoint.recipe.read_out
    if read_out is None:
        return "score, its classification head,"
    false = "" if read_out.false is None else f" minus that of token {read_out.false}"
    return f"the language-model head's row of token {read_out.true}{false}"


def sequence_classifier(backbone: PreTrainedModel, head: Float32Head, pad_token_id: int) -> PreTrainedModel:
    """The `...ForSequenceClassification` of the backbone's architecture, around the backbone itself.

    Args:
        backbone: a decoder without a head.
        head: with one logit for a reranker, or one for each label. It is moved to the backbone's device.
        pad_token_id: transformers uses it to find the last token.

    Raises:
        UnsupportedModelError: transformers has no sequence classifier for this architecture.
    """
    config = deepcopy(backbone.config)
    config.num_labels = head.out_features
    config.pad_token_id = pad_token_id
    for each in (config, config.get_text_config()):
        for field in _CONVERSION_FIELDS:
            if hasattr(each, field):
                delattr(each, field)
    try:
        classifier = _without_weights(config)
    except ValueError as error:
        raise UnsupportedModelError(f"transformers has no sequence classifier for {config.model_type!r}") from error
    own = getattr(classifier, "score", None)
    if not isinstance(own, nn.Linear):
        raise UnsupportedModelError(
            f"{type(classifier).__name__} of transformers has no linear layer named score, which the head replaces"
        )
    classifier.config.architectures = [type(classifier).__name__]
    setattr(classifier, classifier.base_model_prefix, backbone)
    classifier.score = head.to(backbone.device)
    return classifier.eval()  # type: ignore[no-any-return]


def _without_weights(config: Any) -> Any:
    with torch.device("meta"):
        return AutoModelForSequenceClassification.from_config(config)  # type: ignore[no-untyped-call]


def _module_chain_classifier(backbone: PreTrainedModel, pooling: Pooling, layers: nn.Sequential) -> PreTrainedModel:
    """A class of transformers if one computes exactly these layers, because only these can be exported; else ours."""
    match list(layers):
        case [nn.Linear() as row] if pooling == "lasttoken" and _is_decoder(backbone):
            return sequence_classifier(backbone, Float32Head(row.weight, row.bias), backbone.config.pad_token_id)
        case [nn.Linear() as dense, nn.GELU(), nn.LayerNorm() as norm, nn.Linear() as row] if (
            pooling != "lasttoken"
            and backbone.config.model_type == "modernbert"
            and backbone.config.norm_eps == norm.eps
            and dense.in_features == dense.out_features
        ):
            return _modernbert_classifier(backbone, pooling, dense, norm, row)
    return PooledClassifier(backbone, pooling, layers).eval()  # type: ignore[no-any-return, no-untyped-call]


def _is_decoder(backbone: PreTrainedModel) -> bool:
    config = backbone.config
    is_bidirectional = getattr(config, "use_bidirectional_attention", None) or not getattr(config, "is_causal", True)
    kind: Any = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING.get(type(config), object)
    return not is_bidirectional and issubclass(kind, GenericForSequenceClassification)


def _modernbert_classifier(
    backbone: PreTrainedModel, pooling: Pooling, dense: nn.Linear, norm: nn.LayerNorm, row: nn.Linear
) -> PreTrainedModel:
    """A `ModernBertForSequenceClassification` around the backbone, with its head in float32.

    The head's normalisation can have a bias only if the backbone's have one, so the bias is moved to the last layer:
    `row @ (x + norm.bias) + row.bias` is `row @ x + (row @ norm.bias + row.bias)`.
    """
    config = deepcopy(backbone.config)
    config.num_labels = 1
    config.classifier_pooling = pooling
    config.classifier_bias = dense.bias is not None
    config.classifier_activation = "gelu"
    classifier = _without_weights(config)
    bias = row.weight.double() @ norm.bias.double() + (0 if row.bias is None else row.bias)
    classifier.model = backbone
    classifier.head.dense = Float32Head(dense.weight, dense.bias)
    classifier.head.norm.weight = norm.weight
    if config.norm_bias:
        classifier.head.norm.bias = nn.Parameter(torch.zeros_like(norm.bias), requires_grad=False)
    classifier.classifier = Float32Head(row.weight, bias.float())
    return classifier.eval()  # type: ignore[no-any-return]


class PooledClassifier(PreTrainedModel):  # type: ignore[no-untyped-call]
    """A one-logit classifier for a head that no class of transformers has: layers after a pooled hidden state.

    Args:
        backbone: an encoder, or a decoder without a head; any dtype.
        pooling: of the last hidden states.
        layers: from the pooled state to the logit, in float32.
    """

    base_model_prefix = "model"
    # Loading the backbone has checked whether it supports these.
    _supports_sdpa = _supports_flash_attn = _supports_flex_attn = _supports_attention_backend = True

    def __init__(self, backbone: PreTrainedModel, pooling: Pooling, layers: nn.Sequential) -> None:
        super().__init__(backbone.config)
        self.model = backbone
        self.pooling = pooling
        self.layers = layers

    def forward(self, attention_mask: Tensor, **inputs: Any) -> SequenceClassifierOutput:
        """The logit of each row, shape (rows, 1), float32.

        Args:
            attention_mask: shape (rows, tokens): 1 for tokens, 0 for padding, which is at one side of a row.
            **inputs: input_ids, and the backbone's other arguments.
        """
        hidden = self.model(attention_mask=attention_mask, **inputs).last_hidden_state
        pooled = pool(hidden, attention_mask, self.pooling)
        return SequenceClassifierOutput(logits=self.layers(pooled.to(next(self.layers.parameters()))))


def pool(hidden: Tensor, attention_mask: Tensor, pooling: Pooling) -> Tensor:
    """One state for each row: the first token's, the last token's, or the mean over all tokens.

    Args:
        hidden: shape (rows, tokens, hidden).
        attention_mask: shape (rows, tokens): 1 for tokens, 0 for padding, which is at one side of a row.
        pooling: "cls" for the first token, "lasttoken", or "mean".

    Returns:
        Shape (rows, hidden), float32.
    """
    if pooling == "mean":
        counts = attention_mask.sum(dim=1, keepdim=True)
        return (hidden.float() * attention_mask.unsqueeze(-1)).sum(dim=1) / counts
    firsts = attention_mask.argmax(dim=1)
    indices = firsts + attention_mask.sum(dim=1) - 1 if pooling == "lasttoken" else firsts
    return hidden[torch.arange(len(hidden), device=hidden.device), indices].float()


def position_limit(classifier: PreTrainedModel) -> int | None:
    """The number of tokens that the model has positions for; None for no limit.

    RoBERTa and similar models number positions from the one after the padding index, so fewer embeddings are usable.
    """
    for name, module in classifier.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            return module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)
    limit = getattr(classifier.config, "max_position_embeddings", None)
    return None if limit is None or limit < 1 else int(limit)  # XLNet's is -1
