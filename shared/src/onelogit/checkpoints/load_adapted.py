"""A model with an adapter -> the parts of its merged checkpoint: backbone or classifier, head rows, whole head."""

from typing import Any, NamedTuple, cast

from torch import nn
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PretrainedConfig,
    PreTrainedModel,
)

from onelogit.checkpoints.adapter_tensors import AdapterTensors
from onelogit.checkpoints.head_weights import HeadRows, WholeHead
from onelogit.checkpoints.lora import load_merged
from onelogit.checkpoints.resolve import ResolvedModel
from onelogit.checkpoints.weights import check_label_count
from onelogit.errors import UnsupportedModelError
from onelogit.options import LoadOptions


class MergedParts(NamedTuple):
    """The parts of a merged model.

    Attributes:
        model: a backbone; or a whole classifier if there is no head.
        head: the head that gives the logits of all tokens or labels, or None.
        whole_head: of a language model, or None.
    """

    model: PreTrainedModel
    head: nn.Linear | None
    whole_head: WholeHead | None

    def rows(self, ids: list[int]) -> HeadRows:
        """Copies of some rows of the head, which must not be None."""
        head = cast("nn.Linear", self.head)
        bias = None if head.bias is None else head.bias[ids].detach().clone()
        return HeadRows(head.weight[ids].detach().clone(), bias)


def whole_class(found: ResolvedModel, *, is_chain: bool) -> Any:
    """The class of transformers for the whole base model of an adapter."""
    if is_chain:
        return AutoModel
    return AutoModelForSequenceClassification if found.recipe.read_out is None else AutoModelForCausalLM


def load_merged_parts(
    found: ResolvedModel, options: LoadOptions, config: PretrainedConfig, *, is_chain: bool, is_decoder: bool
) -> MergedParts:
    """Load the base model, merge the adapter, and take the result apart.

    Args:
        found: the model, with its weights.
        options: as in `load_model`.
        config: of the base model.
        is_chain: whether a module chain gives the logit, so that the base model has no head.
        is_decoder: whether a linear head reads the backbone's hidden states; else the model is kept as a whole.

    Raises:
        UnsupportedModelError: the head is not a linear layer, or has more than two labels.
        OnelogitError: as `load_merged`.
    """
    adapter = found.adapter
    if adapter is None:
        raise TypeError(f"{found.name!r} has no adapter")
    model: Any = load_merged(found.folder, adapter, config, options, whole_class(found, is_chain=is_chain))
    if is_chain:
        return MergedParts(model, None, None)
    is_language_model = found.recipe.read_out is not None
    if not is_language_model:
        check_label_count(found.folder, model.config.num_labels)
        if not is_decoder:
            return MergedParts(model, None, None)
    head: Any = model.get_output_embeddings() if is_language_model else getattr(model, "score", None)
    if not isinstance(head, nn.Linear):
        raise UnsupportedModelError(f"{type(model).__name__} of transformers has no linear head that gives the logit")
    backbone = model.base_model
    if not is_language_model:
        return MergedParts(backbone, head, None)
    whole = WholeHead(found.folder, bool(config.tie_word_embeddings))
    if AdapterTensors.read(adapter).touches_embeddings:
        whole = whole._replace(merged=(head.weight.detach().to(backbone.dtype), head.bias))
    return MergedParts(backbone, head, whole)
