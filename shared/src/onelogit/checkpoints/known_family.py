"""A checkpoint's files and its name -> the known family that they show, with the reason. No torch.

Files are evidence: a chat template, the model that this one was made from. A name is only a hint, because anyone can
rename a folder; see `family_of_name`.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

from onelogit.checkpoints.card import read_model_card
from onelogit.checkpoints.declaration import read_architecture
from onelogit.checkpoints.metadata import BASE_CARD, RerankerMetadata, SmallFiles, parse_json
from onelogit.errors import RecipeError
from onelogit.prompts.template import compile_prompt
from onelogit.recipes.families import FAMILIES
from onelogit.recipes.recipe import ReadOut, Recipe, is_non_commercial
from onelogit.validation import checked_path

_FIRST_TOKENS = r"^(<s>|<bos>|<\|begin_of_text\|>|<\|endoftext\|>)+"


class KnownFamily(NamedTuple):
    """A family's recipe, and the reason for it, for messages."""

    recipe: Recipe
    because: str


def family_of_id(model: str) -> KnownFamily | None:
    """The family of a hub id in the table, also if the model is given as its folder in the hub's cache."""
    id = cached_id(model)
    if id is None and os.path.isdir(checked_path(model)):  # noqa: PTH112  False for any string
        return None
    return _family_with_model(model if id is None else id, "its id")


def family_of_files(texts: SmallFiles, metadata: RerankerMetadata | None) -> KnownFamily | None:
    """The family that the files show: by the chat template that they declare, or by the model that this one is made of.

    A family whose read-out differs from the declared one has another scale, so it does not count.
    """
    template = None if metadata is None else metadata.chat_template
    read_out = None if metadata is None else metadata.read_out
    for recipe in FAMILIES if template is not None else ():
        if _agree(recipe.read_out, read_out) and writes_prompt_of(recipe, template):
            # A prompt does not say whose weights these are: only a restriction is assumed.
            licence = recipe.licence if is_non_commercial(recipe.licence) else None
            return KnownFamily(replace(recipe, licence=licence), f"its chat template, of the family {recipe.family}")
    bases = [*_base_models(texts)]
    architecture = read_architecture(texts)
    found = [
        *(_family_with_model(base, because) for base, because in bases),
        *(_family_with_name(base, f"the name of {because}") for base, because in bases),
        *(_of_architecture(recipe, architecture) for recipe in FAMILIES if architecture in recipe.architectures),
    ]
    return next((each for each in found if each is not None and _agree(each.recipe.read_out, read_out)), None)


def family_of_name(model: str) -> KnownFamily | None:
    """The family that the last part of an id or path resembles."""
    return _family_with_name(model, "its name")


def _base_models(texts: SmallFiles) -> Iterator[tuple[str, str]]:
    if base := parse_json(texts, "adapter_config.json").get("base_model_name_or_path"):
        yield str(base), f"the adapter's base model {base}"
    for card in ("README.md", BASE_CARD):
        bases = read_model_card(texts, card).get("base_model") or []
        for base in bases if isinstance(bases, list) else [bases]:
            yield str(base), f"its base model {base}"
    if path := parse_json(texts, "config.json").get("_name_or_path"):
        yield str(path), f"config.json's _name_or_path {path}"


def _family_with_model(id: str, because: str) -> KnownFamily | None:
    for recipe in FAMILIES:
        if id.lower() in map(str.lower, recipe.models):
            return KnownFamily(recipe, f"{because}, of the family {recipe.family}")
    return None


def _of_architecture(recipe: Recipe, architecture: str) -> KnownFamily:
    """The family of a class that its training code saves: the prompt is that code's default, the licence is unknown."""
    return KnownFamily(replace(recipe, licence=None), f"its class {architecture}, of the family {recipe.family}")


def _family_with_name(model: str, because: str) -> KnownFamily | None:
    for recipe in FAMILIES:
        if recipe.name_pattern and re.search(recipe.name_pattern, last_part(model), re.IGNORECASE):
            return KnownFamily(recipe, f"{because}, of the family {recipe.family}")
    return None


def cached_id(model: str) -> str | None:
    """The hub id of a folder in the hub's cache (models--owner--name/snapshots/commit), or None."""
    cached = next((part for part in _parts(model) if part.startswith("models--")), None)
    return None if cached is None else cached.removeprefix("models--").replace("--", "/", 1)


def last_part(model: str) -> str:
    """The model's name without its owner, from an id, a path, or the hub's cache."""
    cached = cached_id(model)
    return _parts(model if cached is None else cached)[-1]


def _parts(model: str) -> list[str]:
    return model.replace("\\", "/").rstrip("/").split("/")


def _agree(known: ReadOut | None, declared: ReadOut | None) -> bool:
    if known is None or declared is None:
        return True
    are_ids = isinstance(known.true, int) and isinstance(declared.true, int)
    return (known.false is None) == (declared.false is None) and (not are_ids or known.true == declared.true)


def writes_prompt_of(recipe: Recipe, template: str | None) -> bool:
    """Whether a template writes the family's prompt, apart from white space, a first token and the instruction."""
    if template == recipe.chat_template or recipe.chat_template is None or template is None:
        return template == recipe.chat_template
    family = [_shape(recipe.chat_template, has_instruction) for has_instruction in (True, False)]
    instruction = re.escape("\0instruction\0")
    patterns = [re.escape(shape).replace(instruction, ".*?") for shape in family if shape is not None]
    shapes = {_shape(template, has_instruction) for has_instruction in (True, False)} - {None}
    return bool(shapes) and all(any(re.fullmatch(each, str(shape)) for each in patterns) for shape in shapes)


def has_own_instruction(template: str, recipe: Recipe) -> bool:
    """Whether a template that is given no instruction writes another prompt than the family's template."""
    return recipe.chat_template is not None and _shape(template, False) != _shape(recipe.chat_template, False)


@lru_cache(maxsize=64)
def _shape(template: str, has_instruction: bool) -> str | None:
    """The prompt without white space and first token, with marks for the caller's texts; None if it is not valid."""
    try:
        parts = compile_prompt(template, has_instruction)
    except RecipeError:
        return None
    text = "".join(part.text if part.field is None else f"\0{part.field}\0" for part in parts)
    return re.sub(_FIRST_TOKENS, "", re.sub(r"\s+", "", text))
