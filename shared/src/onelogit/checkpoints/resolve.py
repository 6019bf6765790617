"""A ModelSpec -> the model's folder, the texts of its small files, and its recipe with the reason for it. No torch."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from onelogit.checkpoints.hub import find_folder, read_texts
from onelogit.checkpoints.metadata import (
    RerankerMetadata,
    SmallFiles,
    parse_json,
    read_activation,
    read_licence,
    read_model_card,
    read_sentence_transformers_metadata,
    read_vllm_metadata,
    tokenizer_max_tokens,
)
from onelogit.checkpoints.module_chain import read_module_chain
from onelogit.errors import RecipeError, UnsupportedModelError
from onelogit.model_spec import ModelSpec
from onelogit.prompts.template import check_template
from onelogit.recipes.families import FAMILIES, UNSUPPORTED
from onelogit.recipes.recipe import DEFAULT_MAX_TOKENS, Recipe
from onelogit.recipes.templates import PLAIN_TEMPLATE
from onelogit.validation import checked_path, checked_recipe

_HEAD_SUFFIX = "ForSequenceClassification"


class ResolvedRecipe(NamedTuple):
    """A recipe, and the reason for it, for messages."""

    recipe: Recipe
    because: str


class ResolvedModel(NamedTuple):
    """A model that was found, with its small files and its recipe.

    Attributes:
        spec: the model's name and options.
        folder: contains at least the small files; see `fetch_weights`.
        texts: of the small files.
        recipe: how to use the model.
        because: the reason for the recipe, for messages.
    """

    spec: ModelSpec
    folder: Path
    texts: SmallFiles
    recipe: Recipe
    because: str

    @property
    def name(self) -> str:
        """The hub id or path."""
        return str(self.spec.model)


def resolve_model(spec: ModelSpec) -> ResolvedModel:
    """Find a model, read its small files, and resolve its recipe.

    Raises:
        CheckpointError: the model is not found, or its files are damaged.
        RecipeError: as `resolve_recipe`.
        InputError: the recipe in the options is invalid, or a local folder is given a revision.
    """
    given = checked_recipe(spec.options.get("recipe"))
    folder = find_folder(str(spec.model), spec.options, with_weights=False)
    texts = read_texts(folder)
    return ResolvedModel(spec, folder, texts, *resolve_recipe(str(spec.model), texts, given))


def fetch_weights(model: ResolvedModel) -> ResolvedModel:
    """The same model with its weights on this machine: downloaded from the hub, unless it is a local folder."""
    if model.folder == checked_path(model.name):
        return model
    return model._replace(folder=find_folder(model.name, model.spec.options, with_weights=True))


def resolve_recipe(model: str, texts: SmallFiles, recipe: Recipe | None = None) -> ResolvedRecipe:
    """The recipe of a model.

    The first of these that applies: the caller's recipe; the files for Sentence Transformers; the fields for vLLM; the
    checkpoint's own `...ForSequenceClassification` head; the table of families, by id, by base model, by name.
    Template, token ids and default instruction are taken from the files if they declare them. The scale of the
    published score and the longest prompt come from the table, because files cannot declare them.

    Args:
        model: hub id or path.
        texts: of the checkpoint's small files.
        recipe: the caller's, used unchanged.

    Raises:
        RecipeError: neither the files nor the table have a recipe for the model, or the recipe does not fit it.
        UnsupportedModelError: the model's relevance is not a single logit.
    """
    _refuse_unsupported(model, texts)
    try:
        found = ResolvedRecipe(recipe, "the caller's recipe") if recipe is not None else _resolve(model, texts)
        if found.recipe.chat_template is not None:
            check_template(found.recipe.chat_template)
    except UnsupportedModelError as error:
        raise UnsupportedModelError(f"{model!r} has no one-logit form: {error}") from error
    except RecipeError as error:
        raise RecipeError(f"{model!r}: {error}") from error
    _check_read_out(model, found.recipe, texts)
    licence = read_licence(texts)
    return found if licence is None else found._replace(recipe=replace(found.recipe, licence=licence))


def _check_read_out(model: str, recipe: Recipe, texts: SmallFiles) -> None:
    architecture = _architecture(texts)
    has_own_head = _has_head(texts) and read_vllm_metadata(texts) is None  # vLLM's fields replace the head
    if has_own_head and recipe.read_out is not None:
        raise RecipeError(f"{model!r} is a {architecture}, which has its own head, so its recipe needs read_out=None")
    if not has_own_head and recipe.read_out is None:
        raise RecipeError(f"{model!r} ({architecture or 'no architecture named'}) has no classification head")


def _resolve(model: str, texts: SmallFiles) -> ResolvedRecipe:
    known = _from_table(model, texts)
    has_head = _has_head(texts)
    metadata = read_sentence_transformers_metadata(texts)
    if metadata is None:
        metadata = _without_template_for_chat(read_vllm_metadata(texts))
    if metadata is not None and (metadata.chat_template is not None or known is not None or has_head):
        return _merge(model, metadata, known)
    if metadata is not None:
        raise RecipeError(f"{metadata.files}, but no chat template; pass recipe=Recipe(...)")
    if has_head:
        declared = _head_metadata(texts)
        return _merge(model, declared if known is None else replace(declared, chat_template=None), known)
    if known is not None:
        return known
    raise RecipeError(_unknown_message(_architecture(texts)))


def _without_template_for_chat(metadata: RerankerMetadata | None) -> RerankerMetadata | None:
    """The metadata without its chat template, if that is a language model's and not a reranker's."""
    if metadata is None or metadata.chat_template is None:
        return metadata
    try:
        check_template(metadata.chat_template)
    except RecipeError:
        return replace(metadata, chat_template=None)
    return metadata


def _head_metadata(texts: SmallFiles) -> RerankerMetadata:
    config = parse_json(texts, "config.json")
    joins_plainly = config.get("use_sep_token", config.get("use_pad_token")) is False
    return RerankerMetadata(
        files=f"config.json: {_architecture(texts)}",
        read_out=None,
        chat_template=PLAIN_TEMPLATE if joins_plainly else None,
        activation=read_activation(texts),
        tokenizer_max_tokens=tokenizer_max_tokens(texts),
    )


def _merge(model: str, metadata: RerankerMetadata, known: ResolvedRecipe | None) -> ResolvedRecipe:
    """The metadata, completed from the table, or for a model that is not in it, by Sentence Transformers' defaults."""
    if known is None:
        limits = (metadata.max_tokens, metadata.tokenizer_max_tokens, DEFAULT_MAX_TOKENS)
        recipe = Recipe(
            family="declared",
            chat_template=metadata.chat_template,
            read_out=metadata.read_out,
            activation="sigmoid" if metadata.activation is None else metadata.activation,
            default_instruction=metadata.default_instruction,
            max_tokens=next(limit for limit in limits if limit is not None),
            adds_special_tokens=metadata.adds_special_tokens,
            source=f"the files of {model}",
        )
        return ResolvedRecipe(recipe, metadata.files)
    table = known.recipe
    changes: dict[str, Any] = {"read_out": metadata.read_out}
    if metadata.chat_template is not None:
        changes["adds_special_tokens"] = metadata.adds_special_tokens
    if metadata.read_out is not None and table.read_out is not None:
        changes["read_out"] = replace(metadata.read_out, scale=table.read_out.scale)
    elif metadata.activation is not None:
        changes["activation"] = metadata.activation  # a converted model declares the activation of its own head
    for field in ("chat_template", "default_instruction", "max_tokens"):
        if getattr(metadata, field) is not None:
            changes[field] = getattr(metadata, field)
    return ResolvedRecipe(replace(table, **changes), f"{metadata.files}; the rest by {known.because}")


def known_recipe(name: str) -> Recipe | None:
    """The table's recipe for a model of this name, whose files are not read; None for an unknown name."""
    found = _from_table(name, {})
    return None if found is None else found.recipe


def _from_table(model: str, texts: SmallFiles) -> ResolvedRecipe | None:
    base_models = read_model_card(texts).get("base_model") or []
    bases = [str(base) for base in (base_models if isinstance(base_models, list) else [base_models])]
    for name, because in [(model, "its id"), *((base, f"its base model {base}") for base in bases)]:
        for recipe in FAMILIES:
            if name.lower() in map(str.lower, recipe.models):
                return ResolvedRecipe(recipe, f"{because}, of the family {recipe.family}")
    for name, because in [(model, "its name"), *((base, f"the name of its base model {base}") for base in bases)]:
        for recipe in FAMILIES:
            if recipe.name_pattern and re.search(recipe.name_pattern, _last_part(name), re.IGNORECASE):
                return ResolvedRecipe(recipe, f"{because}, of the family {recipe.family}")
    return None


def _last_part(name: str) -> str:
    """The model's name without its owner, from an id, a path, or the hub's cache (models--org--name/snapshots/...)."""
    parts = name.replace("\\", "/").rstrip("/").split("/")
    cached = next((part for part in parts if part.startswith("models--")), None)
    return parts[-1] if cached is None else cached.rpartition("--")[2]


def _architecture(texts: SmallFiles) -> str:
    architectures = parse_json(texts, "config.json").get("architectures") or []
    return str(architectures[0]) if architectures else ""


def _has_head(texts: SmallFiles) -> bool:
    """Whether the checkpoint has a classification head: in its architecture, or as modules after it."""
    return _architecture(texts).endswith(_HEAD_SUFFIX) or read_module_chain(texts) is not None


def _refuse_unsupported(model: str, texts: SmallFiles) -> None:
    config, architecture = parse_json(texts, "config.json"), _architecture(texts)
    for pattern, reason in UNSUPPORTED.items():
        if re.search(pattern, f"{architecture} {_last_part(model)}", re.IGNORECASE):
            raise UnsupportedModelError(
                f"{model!r} ({architecture or 'no architecture named'}) has no one-logit form: {reason}"
            )
    if config.get("is_encoder_decoder"):
        raise UnsupportedModelError(f"{model!r} ({architecture}) has no one-logit form: it is an encoder-decoder")


def _unknown_message(architecture: str) -> str:
    families = ", ".join(recipe.family for recipe in FAMILIES)
    return (
        f"no recipe is known for this {architecture or 'model'}: its files do not declare a reranker, and it is none "
        f"of {families}. Pass recipe=Recipe(family=..., chat_template=..., "
        "read_out=ReadOut(true='yes', false='no'), source=...), with the prompt and the answer tokens of its model "
        "card (for a command: --chat-template, --classifier-from-tokens and --method)"
    )
