"""A caller's recipe in any form, such as the name of a family -> a Recipe."""

from collections.abc import Mapping
from dataclasses import MISSING, fields, replace
from difflib import get_close_matches
from typing import Any

from onelogit.errors import InputError, RecipeError
from onelogit.recipes.families import FAMILIES
from onelogit.recipes.recipe import Recipe, is_non_commercial, recipe_fields, recipe_from

_REQUIRED = {field.name for field in fields(Recipe) if field.default is MISSING} - {"family"}


def family_recipe(name: str) -> Recipe:
    """The recipe of a family.

    Args:
        name: such as "qwen3-reranker"; upper and lower case, spaces and underscores make no difference.

    Raises:
        RecipeError: no family has this name; the message names the closest and lists all of them.
    """
    wanted = name.strip().lower().replace("_", "-").replace(" ", "-")
    for recipe in FAMILIES:
        if wanted in (recipe.family, *map(str.lower, recipe.models)):
            return recipe
    names = [recipe.family for recipe in FAMILIES]
    near = [each for each in names if wanted and each.startswith(wanted)] or get_close_matches(wanted, names)
    close = f" (did you mean {near[0]!r}?)" if near else ""
    raise RecipeError(f"no family is called {name!r}{close}; the known families are {', '.join(names)}")


def recipe_of(given: object) -> Recipe | None:
    """The recipe that a caller gives in any form.

    Args:
        given: a Recipe; all its fields as a dictionary; the name of a family; a dictionary of a family's name and the
            fields that differ, such as `{"family": "qwen3-reranker", "default_instruction": "..."}`; or None.

    Raises:
        InputError: it is of another type.
        RecipeError: the family is unknown, or a field is missing, unknown or of the wrong type.
    """
    if given is None or isinstance(given, Recipe):
        return given
    if isinstance(given, str):
        return _of_a_fine_tune(family_recipe(given))
    if not isinstance(given, Mapping):
        kind = type(given).__name__
        raise InputError(f"recipe must be a family's name, a Recipe, or its fields as a dictionary, not a {kind}")
    return recipe_from(_completed(given))


def _of_a_fine_tune(recipe: Recipe) -> Recipe:
    """The recipe without the licence of the family's own models, unless that restricts what is made from them."""
    return recipe if is_non_commercial(recipe.licence) else replace(recipe, licence=None)


def _completed(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """The fields, with those of the named family for the rest. A recipe that is complete is unchanged."""
    missing = _REQUIRED - given.keys()
    name = given.get("family")
    if not missing or not isinstance(name, str):
        return given
    try:
        return {**recipe_fields(_of_a_fine_tune(family_recipe(name))), **given}
    except RecipeError as error:
        raise RecipeError(
            f"the recipe lacks {', '.join(sorted(missing))}, which only a recipe of a known family may omit: {error}"
        ) from error


def is_of_family(recipe: Recipe) -> bool:
    """Whether a recipe has the template and the read-out of a known family."""
    return any((known.chat_template, known.read_out) == (recipe.chat_template, recipe.read_out) for known in FAMILIES)
