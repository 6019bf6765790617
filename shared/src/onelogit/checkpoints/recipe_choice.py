"""A model's name and the texts of its small files -> its recipe, with the reason for it. Reads no disk. No torch."""

import logging
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

from onelogit.checkpoints.card import read_licence
from onelogit.checkpoints.declaration import has_head, read_architecture, read_declaration
from onelogit.checkpoints.known_family import (
    KnownFamily,
    family_of_files,
    family_of_id,
    family_of_name,
    has_own_instruction,
    writes_prompt_of,
)
from onelogit.checkpoints.metadata import RerankerMetadata, SmallFiles, read_vllm_metadata
from onelogit.checkpoints.refusals import (
    ADVICE,
    refuse_architecture,
    refuse_declaration,
    refuse_headless,
    refuse_name,
    unknown_message,
)
from onelogit.errors import CheckpointError, RecipeError, UnsupportedModelError
from onelogit.prompts.template import takes_instruction, usable_default
from onelogit.recipes.families import FAMILIES
from onelogit.recipes.recipe import DEFAULT_MAX_TOKENS, Recipe
from onelogit.recipes.templates import PLAIN_TEMPLATE

logger = logging.getLogger(__name__)


class ResolvedRecipe(NamedTuple):
    """A recipe, and the reason for it, for messages."""

    recipe: Recipe
    because: str


def resolve_recipe(model: str, texts: SmallFiles, recipe: Recipe | None = None) -> ResolvedRecipe:
    """The recipe of a model.

    The first of these that applies: the caller's recipe; the files for Sentence Transformers; the fields for vLLM; the
    checkpoint's own `...ForSequenceClassification` head; the table of families. Template, token ids and default
    instruction are taken from the files if they declare them. The scale of the published score and the longest prompt
    are the family's, because files cannot declare them. The family is known by the model's hub id, or else by its
    files. Its name counts only if its files do not show how to use it, and a warning says so.

    Args:
        model: hub id or path.
        texts: of the checkpoint's small files.
        recipe: the caller's, used unchanged, with two exceptions. A known family's read-out is ignored if the
            checkpoint has a head of its own, as a converted model or a fine-tuned classifier has; and a known family's
            default instruction, if the prompt has no place for one.

    Raises:
        RecipeError: neither the files nor the table have a recipe for the model, or the recipe does not fit it.
        UnsupportedModelError: the model's relevance is not a single logit.
    """
    try:
        if recipe is None:
            refuse_declaration(texts)
        refuse_architecture(texts)
        given = None if recipe is None else ResolvedRecipe(_fitted(recipe, texts), "the caller's recipe")
        found = given or _resolve(model, texts)
        found = found._replace(recipe=_with_usable_default(found.recipe, is_given=given is not None))
    except UnsupportedModelError as error:
        architecture = read_architecture(texts) or "no architecture named"
        raise UnsupportedModelError(f"{model!r} ({architecture}) has no one-logit form: {error}") from error
    except RecipeError as error:
        raise RecipeError(f"{model!r}: {error}") from error
    except CheckpointError as error:
        raise CheckpointError(f"{model!r}: {error}") from error
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{model!r}: a JSON file has an unexpected form: {error}") from error
    _check_read_out(model, found.recipe, texts)
    licence = read_licence(texts)
    return found if licence is None else found._replace(recipe=replace(found.recipe, licence=licence))


def known_recipe(name: str) -> ResolvedRecipe | None:
    """The table's recipe for a model of this name, whose files are not read; None for an unknown name."""
    known = family_of_id(name) or family_of_name(name)
    return None if known is None else ResolvedRecipe(*known)


def _resolve(model: str, texts: SmallFiles) -> ResolvedRecipe:
    metadata = read_declaration(texts)
    by_id = family_of_id(model)
    known = by_id or family_of_files(texts, metadata)
    if metadata is not None and metadata.is_encoder:  # families are decoders, whatever the name says
        known = None
    by_name = None if by_id is not None else family_of_name(model)
    found = _from_files(texts, metadata, known, is_in_table=by_id is not None)
    if found is None:
        return _from_name(model, texts, metadata, by_name)
    if by_name is not None and not writes_prompt_of(by_name.recipe, found.recipe.chat_template):
        _warn_once(
            f"{model!r} is named like the family {by_name.recipe.family}, but its files show another model "
            f"({found.because}); the files are used"
        )
    return found


def _from_files(
    texts: SmallFiles, metadata: RerankerMetadata | None, known: KnownFamily | None, *, is_in_table: bool
) -> ResolvedRecipe | None:
    """The recipe that the files show, perhaps together with a family that is known; None if they do not show enough."""
    if metadata is None:
        return None if known is None else ResolvedRecipe(*known)
    if metadata.read_out is None and not has_head(texts):  # a language model with a template for reranking
        if known is not None and writes_prompt_of(known.recipe, metadata.chat_template):
            return _merge(replace(metadata, read_out=known.recipe.read_out), known)
        if known is not None and is_in_table:
            return ResolvedRecipe(*known)
        raise RecipeError(f"its chat template is a reranker's, but no file names its answer tokens. {ADVICE}")
    if known is None and metadata.chat_template is None and metadata.joins_plainly:
        metadata = replace(metadata, chat_template=PLAIN_TEMPLATE)
    is_complete = metadata.chat_template is not None or metadata.reads_pairs
    return _merge(metadata, known) if is_complete or known is not None else None


def _from_name(
    model: str, texts: SmallFiles, metadata: RerankerMetadata | None, by_name: KnownFamily | None
) -> ResolvedRecipe:
    refuse_name(model, texts)
    has_head_without_prompt = metadata is not None and metadata.read_out is None
    if by_name is None or has_head_without_prompt:
        refuse_headless(texts)
        raise RecipeError(unknown_message(model, texts, metadata, by_name))
    family = by_name.recipe.family
    _warn_once(
        f"{model!r} is used as a model of the family {family} because of its name; nothing in its files says so. If it "
        f"is another model, pass recipe=; if not, write its original as base_model into its README.md"
    )
    return ResolvedRecipe(*by_name) if metadata is None else _merge(metadata, by_name)


@cache
def _warn_once(message: str) -> None:
    logger.warning(message)


def _merge(metadata: RerankerMetadata, known: KnownFamily | None) -> ResolvedRecipe:
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
            source="the model's own files",
        )
        return ResolvedRecipe(recipe, metadata.files)
    table = known.recipe
    changes: dict[str, Any] = {"read_out": metadata.read_out}
    if metadata.chat_template is not None:
        changes["adds_special_tokens"] = metadata.adds_special_tokens
        if has_own_instruction(metadata.chat_template, table):
            changes["default_instruction"] = None
    if metadata.read_out is not None and table.read_out is not None:
        changes["read_out"] = replace(metadata.read_out, scale=table.read_out.scale)
    elif metadata.activation is not None:
        changes["activation"] = metadata.activation  # a converted model declares the activation of its own head
    if metadata.tokenizer_max_tokens is not None:
        changes["max_tokens"] = min(table.max_tokens, metadata.tokenizer_max_tokens)
    for field in ("chat_template", "default_instruction", "max_tokens"):
        if getattr(metadata, field) is not None:
            changes[field] = getattr(metadata, field)
    is_same = known.because.startswith(f"{metadata.files},")
    return ResolvedRecipe(
        replace(table, **changes), known.because if is_same else f"{metadata.files}; the rest by {known.because}"
    )


def _with_usable_default(recipe: Recipe, *, is_given: bool) -> Recipe:
    """The recipe without a default instruction that its prompt has no place for, unless that one is the caller's."""
    has_place = recipe.chat_template is not None and takes_instruction(recipe.chat_template)
    default = recipe.default_instruction if has_place else usable_default(recipe) if is_given else None
    return replace(recipe, default_instruction=default)


def _fitted(recipe: Recipe, texts: SmallFiles) -> Recipe:
    is_known = any((known.family, known.read_out) == (recipe.family, recipe.read_out) for known in FAMILIES)
    return replace(recipe, read_out=None) if is_known and _has_own_head(texts) else recipe


def _has_own_head(texts: SmallFiles) -> bool:
    return has_head(texts) and read_vllm_metadata(texts) is None  # vLLM's fields replace the head


def _check_read_out(model: str, recipe: Recipe, texts: SmallFiles) -> None:
    architecture = read_architecture(texts)
    has_own_head = _has_own_head(texts)
    if has_own_head and recipe.read_out is not None:
        raise RecipeError(f"{model!r} is a {architecture}, which has its own head, so its recipe needs read_out=None")
    if not has_own_head and recipe.read_out is None:
        named = f"{model!r} ({architecture or 'no architecture named'}) has no classification head"
        if any(known.family == recipe.family and known.read_out is None for known in FAMILIES):
            raise RecipeError(f"{named}, which models of the family {recipe.family} have; name another family or model")
        raise RecipeError(
            f"{named}, so its recipe needs a read_out (for a command: --classifier-from-tokens and --method)"
        )
