"""A model without a recipe -> what it is, why it has none, and what to do instead. No torch.

Its files decide, and its name only where they do not tell.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from onelogit.checkpoints.declaration import has_head, read_architecture
from onelogit.checkpoints.known_family import KnownFamily, last_part
from onelogit.checkpoints.metadata import RerankerMetadata, SmallFiles, parse_json, read_vllm_metadata
from onelogit.checkpoints.text_backbone import has_text_backbone
from onelogit.errors import UnsupportedModelError
from onelogit.recipes.unsupported import (
    CLASSIFIER,
    EMBEDDER,
    ENCODER_DECODER,
    LATE_INTERACTION,
    MULTIMODAL,
    MULTIMODAL_ADAPTER,
    MULTIMODAL_QUANTISED,
    NO_HEAD,
    SPARSE,
    UNSUPPORTED,
    UnsupportedKind,
)

ADVICE = (
    "For a fine-tune of a known family, pass recipe='qwen3-reranker' or another name from `onelogit recipes` (for a "
    "command: --recipe NAME). For any other model, write a recipe: docs/your-own-model.md shows how"
)
# The class of a Sentence Transformers model, which is the only one that its files may name -> what it is.
_MODEL_TYPES = {"SentenceTransformer": EMBEDDER, "SparseEncoder": SPARSE, "MultiVectorEncoder": LATE_INTERACTION}
# A module that only such models have -> what they are. A Pooling also begins a reranker's head: see `module_chain`.
_MODULES = {
    "MultiVectorMask": LATE_INTERACTION,
    "MLMTransformer": SPARSE,
    "SpladePooling": SPARSE,
    "SparseAutoEncoder": SPARSE,
    "SparseStaticEmbedding": SPARSE,
    "StaticEmbedding": EMBEDDER,
    "WordEmbeddings": EMBEDDER,
    "BoW": EMBEDDER,
    "CLIPModel": EMBEDDER,
    "Normalize": EMBEDDER,
}
_REWARD_NAME = re.compile(r"reward|(^|[-_])rm([-_.]|$)", re.IGNORECASE)


def refuse_architecture(texts: SmallFiles) -> None:
    """Raise UnsupportedModelError, with the reason, if the files are those of a model without a one-logit form."""
    config, architecture = parse_json(texts, "config.json"), read_architecture(texts)
    kind = next((each for each in UNSUPPORTED if _matches(each.architecture, architecture)), None)
    if kind in (None, MULTIMODAL) and has_text_backbone(texts):
        kind = _why_not_text(texts)
    if kind in (None, MULTIMODAL) and config.get("is_encoder_decoder"):
        kind = ENCODER_DECODER
    if kind is not None:
        raise UnsupportedModelError(str(kind))
    labels = _labels(config)
    if architecture.endswith("ForSequenceClassification") and len(labels) > 2 and read_vllm_metadata(texts) is None:
        named = ", ".join(labels[:5]) + (", ..." if len(labels) > 5 else "")
        text = str(CLASSIFIER).format(count=len(labels), labels=named, task=_task(labels))
        raise UnsupportedModelError(text)


def _why_not_text(texts: SmallFiles) -> UnsupportedKind | None:
    """Why the known text backbone of a multimodal model is not loaded as a model of its own; None if it is."""
    if "adapter_config.json" in texts:
        return MULTIMODAL_ADAPTER
    return MULTIMODAL_QUANTISED if parse_json(texts, "config.json").get("quantization_config") else None


def refuse_declaration(texts: SmallFiles) -> None:
    """Raise UnsupportedModelError, with the reason, if the files declare an embedding model of any kind.

    Source: sentence_transformers 6.2, base/model.py and the modules of its three other classes; pylate 1.3, models.
    """
    modules = [each for each in parse_json(texts, "modules.json", kind=list) if isinstance(each, dict)]
    types = [str(each.get("type", "")) for each in modules]
    declared = parse_json(texts, "config_sentence_transformers.json").get("model_type")
    if declared == "CrossEncoder":
        return
    kind = _MODEL_TYPES.get(str(declared))
    names = [each.rpartition(".")[2] for each in types]
    if any(each.startswith("pylate.") for each in types) or names == ["Transformer", "Dense"]:
        kind = LATE_INTERACTION
    kind = kind or next((_MODULES[name] for name in names if name in _MODULES), None)
    if kind is not None:
        chain = f" ({' -> '.join(names)} in modules.json)" if names else ""
        raise UnsupportedModelError(f"{kind.reason}{chain}. {kind.instead}")


def refuse_name(model: str, texts: SmallFiles) -> None:
    """Raise UnsupportedModelError, with the reason, if the name is that of a model without a one-logit form.

    Only for a model whose files do not tell what it is: it has no classification head.
    """
    name = f" {last_part(model)}"
    kind = next((each for each in UNSUPPORTED if _matches(each.name, name)), None)
    if kind is not None and not has_head(texts):
        raise UnsupportedModelError(str(kind))


def refuse_headless(texts: SmallFiles) -> None:
    """Raise UnsupportedModelError, with the reason, if a model of no known family has no head that could rank."""
    if not has_head(texts) and _matches(NO_HEAD.architecture, read_architecture(texts)):
        raise UnsupportedModelError(str(NO_HEAD))


def unknown_message(
    model: str, texts: SmallFiles, metadata: RerankerMetadata | None, by_name: KnownFamily | None
) -> str:
    """Why no recipe is known for a model, and what to pass."""
    architecture = read_architecture(texts) or "model"
    if metadata is not None and metadata.read_out is not None:
        return f"{metadata.files}, but no chat template; pass recipe= with the prompt: see docs/your-own-model.md"
    if metadata is not None:
        family = "qwen3-reranker" if by_name is None else by_name.recipe.family
        reward = "its name says that it is a reward model, whose head rates an answer in a chat and not relevance; "
        return (
            f"it is a decoder with its own head ({architecture}), but no file declares the prompt that it was trained "
            f"with; {reward if _REWARD_NAME.search(last_part(model)) else ''}"
            f"pass the family of its base model, such as recipe={family!r}; or recipe=Recipe(family=..., "
            "chat_template=..., read_out=None, source=...) with that prompt, or with chat_template=None if it was "
            "trained on bare pairs of query and document (for a command: --recipe or --chat-template)"
        )
    return f"no recipe is known for this {architecture}: its files do not declare a reranker. {ADVICE}"


def _matches(pattern: str | None, text: str) -> bool:
    return pattern is not None and re.search(pattern, text, re.IGNORECASE) is not None


def _task(labels: Sequence[str]) -> str:
    """What such labels are for, if their names tell."""
    names = " ".join(labels).lower()
    if "entail" in names:
        return ", which is natural language inference"
    is_sentiment = re.search(r"positive|negative|\bstars?\b", names) is not None
    return ", which is sentiment analysis" if is_sentiment else ""


def _labels(config: Mapping[str, Any]) -> list[str]:
    labels = config.get("id2label")
    if isinstance(labels, Mapping):
        return [str(each) for each in labels.values()]
    count = config.get("num_labels")
    return [f"LABEL_{index}" for index in range(count)] if isinstance(count, int) else []
