"""A caller's recipe in any form, such as the name of a family -> a Recipe."""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import MISSING, fields, replace
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeGuard

from onelogit.errors import InputError, RecipeError
from onelogit.recipes.families import FAMILIES
from onelogit.recipes.recipe import Recipe, is_non_commercial, recipe_fields, recipe_from

_REQUIRED = {field.name for field in fields(Recipe) if field.default is MISSING} - {"family"}


def family_recipe(name: str) -> Recipe:
    """The recipe of a family.

    Args:
        name: such as "qwen3-reranker", or the hub id of a known model; case, spaces and underscores make no difference.

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
    if not close and re.search(r"[/\\]|\.[a-z]{3,6}$", wanted):
        close = " (and there is no such file)"
    raise RecipeError(f"no family is called {name!r}{close}; the known families are {', '.join(names)}")


def recipe_of(given: object) -> Recipe | None:
    """The recipe that a caller gives in any form.

    Args:
        given: a Recipe; all its fields as a dictionary; the name of a family; a dictionary of a family's name and the
            fields that differ, such as `{"family": "qwen3-reranker", "default_instruction": "..."}`; the path of a JSON
            file with such a dictionary; or None.

    Raises:
        InputError: it is of another type, or a file that cannot be read.
        RecipeError: the family is unknown, or a field is missing, unknown or of the wrong type.
    """
    if given is None or isinstance(given, Recipe):
        return given
    if is_recipe_file(given):
        return recipe_of(read_recipe_file(given))
    if isinstance(given, str):
        return _of_a_fine_tune(family_recipe(given))
    if not isinstance(given, Mapping):
        kind = type(given).__name__
        raise InputError(
            f"recipe must be a family's name, a Recipe, or its fields as a dictionary, not a {kind}; a JSON file with "
            "the fields is given by its path"
        )
    text = _json_of(given)
    return recipe_from(_completed(given)) if text is None else _recipe_of_json(text)


def is_recipe_file(given: object) -> TypeGuard[str | os.PathLike[str]]:
    """Whether a recipe is given as the path of a file, not as the name of a family."""
    if not isinstance(given, str):
        return isinstance(given, os.PathLike)
    is_path = os.path.isabs(given) or os.path.isfile(given)  # noqa: PTH113, PTH117  False for any string
    return is_path or given.lower().endswith(".json")


def read_recipe_file(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The fields in a JSON file, as they are written there.

    Raises:
        InputError: there is no such file, or it contains no JSON object.
    """
    name = os.fspath(path)
    try:
        content = json.loads(Path(path).expanduser().read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise InputError(f"the recipe {name} is not UTF-8; save it as UTF-8") from error
    except json.JSONDecodeError as error:
        raise InputError(f"the recipe {name} cannot be read, because it is not JSON: {error}") from error
    except (OSError, RuntimeError, ValueError) as error:  # there is no such user, or the name contains NUL
        raise InputError(f"the recipe {name} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if not isinstance(content, dict):
        raise InputError(f"the recipe {name} must be a JSON object with the fields of a recipe")
    return content


def _json_of(given: Mapping[str, Any]) -> str | None:
    """The dictionary as JSON; None if it would not be the same when it is read."""
    try:
        text = json.dumps(given)
    except (TypeError, ValueError):
        return None
    return text if json.loads(text) == given else None


@lru_cache(maxsize=16)
def _recipe_of_json(text: str) -> Recipe:
    """The recipe of a dictionary that is checked in several places, so that a warning about it is given once."""
    return recipe_from(_completed(json.loads(text)))


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
