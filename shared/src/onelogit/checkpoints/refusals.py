"""A model without a recipe -> why it has none, and what to do instead. No torch."""

import re

from onelogit.checkpoints.declaration import read_architecture
from onelogit.checkpoints.known_family import KnownFamily, last_part
from onelogit.checkpoints.metadata import RerankerMetadata, SmallFiles, parse_json
from onelogit.errors import UnsupportedModelError
from onelogit.recipes.families import UNSUPPORTED

ADVICE = (
    "For a fine-tune of a known family, pass recipe='qwen3-reranker' or another name from `onelogit recipes` (for a "
    "command: --recipe NAME). For any other model, write a recipe: docs/your-own-model.md shows how"
)


def refuse_architecture(texts: SmallFiles) -> None:
    """Raise UnsupportedModelError, with the reason, if the architecture has no one-logit form."""
    config, architecture = parse_json(texts, "config.json"), read_architecture(texts)
    reason = _why_unsupported(f"{architecture} ")
    if reason is None and config.get("is_encoder_decoder"):
        reason = "it is an encoder-decoder"
    if reason is not None:
        raise UnsupportedModelError(reason)


def refuse_name(model: str) -> None:
    """Raise UnsupportedModelError, with the reason, if the name is that of a model without a one-logit form."""
    reason = _why_unsupported(f" {last_part(model)}")
    if reason is not None:
        raise UnsupportedModelError(reason)


def unknown_message(texts: SmallFiles, metadata: RerankerMetadata | None, by_name: KnownFamily | None) -> str:
    """Why no recipe is known for a model, and what to pass."""
    architecture = read_architecture(texts) or "model"
    if metadata is not None and metadata.read_out is not None:
        return f"{metadata.files}, but no chat template; pass recipe= with the prompt: see docs/your-own-model.md"
    if metadata is not None:
        family = "qwen3-reranker" if by_name is None else by_name.recipe.family
        return (
            f"it is a decoder with its own head ({architecture}), but no file declares the prompt that it was trained "
            f"with. Pass the family of its base model, such as recipe={family!r}; or recipe=Recipe(family=..., "
            "chat_template=..., read_out=None, source=...) with that prompt, or with chat_template=None if it was "
            "trained on bare pairs of query and document (for a command: --recipe or --chat-template)"
        )
    return f"no recipe is known for this {architecture}: its files do not declare a reranker. {ADVICE}"


def _why_unsupported(description: str) -> str | None:
    """Why a model cannot be converted, if its "architecture " or " name" is that of an unsupported one; or None."""
    reasons = (why for pattern, why in UNSUPPORTED.items() if re.search(pattern, description, re.IGNORECASE))
    return next(reasons, None)
