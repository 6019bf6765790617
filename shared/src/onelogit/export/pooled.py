"""A classifier whose head reads a pooled state -> what an export of it needs: a plain classifier, fields and files.

The folder is a module chain of Sentence Transformers (Transformer, Pooling, Dense). vLLM reads the pooling from it, and
the head from the model's own weights, where it is stored a second time.
"""

from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GenericForSequenceClassification
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING

from onelogit.checkpoints.module_chain import Pooling
from onelogit.conversion.classifier import PooledClassifier, sequence_classifier
from onelogit.conversion.head import Float32Head
from onelogit.errors import UnsupportedModelError

_DENSE = "2_Dense/model.safetensors"


def plain_classifier(pooled: PooledClassifier) -> PreTrainedModel:
    """The sequence classifier of transformers around the same backbone and head; it reads the last token instead.

    Raises:
        UnsupportedModelError: the head has more than one layer, or the backbone is not a decoder of transformers.
    """
    kind: Any = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING.get(type(pooled.config), object)
    match list(pooled.layers):
        case [nn.Linear() as row] if issubclass(kind, GenericForSequenceClassification):
            return sequence_classifier(pooled.model, Float32Head(row.weight, row.bias), pooled.config.pad_token_id)
    raise UnsupportedModelError(
        "no class of transformers has a head like this module chain, so it cannot be exported; "
        "sentence_transformers.CrossEncoder can run the original"
    )


def pooled_fields(classifier: PreTrainedModel, pooling: Pooling) -> dict[str, Any]:
    """The fields of config.json by which vLLM knows a Llama that attends in both directions.

    Source: vllm 0.33, model_executor/models/config.py, LlamaBidirectionalConfig.
    """
    config = classifier.config
    if config.model_type != "llama" or getattr(config, "is_causal", True):
        return {}
    names: dict[Pooling, str] = {"mean": "avg", "cls": "cls", "lasttoken": "last"}
    return {"architectures": ["LlamaBidirectionalForSequenceClassification"], "pooling": names[pooling]}


def write_head(classifier: PreTrainedModel, folder: Path) -> None:
    """Write the head as the weights of the chain's last module."""
    score: Any = classifier.score
    save_file({"linear.weight": score.weight.detach().cpu().contiguous()}, folder / _DENSE, {"format": "pt"})
