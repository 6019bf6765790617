"""A caller's arguments -> the same, or one clear error: what is wrong, the value, the limit, the way out."""

import os
from collections.abc import Iterable, Mapping, Set
from numbers import Integral, Real
from pathlib import Path
from typing import Any, TypeVar, get_args

from onelogit.errors import InputError
from onelogit.recipes.recipe import Recipe, recipe_from

Choice = TypeVar("Choice", bound=str | None)


def checked_documents(documents: Iterable[str]) -> list[str]:
    """The documents as a list.

    Raises:
        InputError: they have no order, or one is no string.
    """
    if isinstance(documents, str):
        raise InputError("documents must be a list of strings, not one string; pass [document]")
    checked = _checked_list(documents, "documents", "strings")
    for index, document in enumerate(checked):
        check_text(document, f"document {index}")
    return checked


def checked_pairs(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """The pairs as a list.

    Raises:
        InputError: one is no pair of a query, which is not blank, and a document.
    """
    checked = []
    for index, pair in enumerate(_checked_list(pairs, "pairs", "(query, document)")):
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise InputError(f"pair {index} must be a tuple of a query and a document, not {pair!r}")
        query, document = pair
        check_text(query, f"the query of pair {index}", is_blank_allowed=False)
        check_text(document, f"the document of pair {index}")
        checked.append((query, document))
    return checked


def _checked_list(values: Iterable[Any], name: str, content: str) -> list[Any]:
    # A set has no order for an index to mean, and a mapping would give its keys.
    if isinstance(values, str | bytes | Mapping | Set) or not isinstance(values, Iterable):
        raise InputError(f"{name} must be a list of {content}, not a {type(values).__name__}")
    return list(values)


def check_text(text: object, name: str, is_blank_allowed: bool = True) -> None:
    """Refuse what is no text, or blank where that is not allowed.

    Raises:
        InputError: under the `name` that the caller knows it by.
    """
    if not isinstance(text, str):
        raise InputError(f"{name} must be a string, not {type(text).__name__}")
    if not is_blank_allowed and not text.strip():
        raise InputError(f"{name} is empty ({text!r}): there is nothing to rank by")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{name} holds half a character (a lone surrogate) at position {error.start}") from error


def checked_path(path: str | os.PathLike[str]) -> Path:
    """The path, with `~` in front as somebody's home.

    Raises:
        InputError: there is nobody of that name.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise InputError(f"{os.fspath(path)!r} begins with the home of somebody who has none here") from error


def checked_max_tokens(max_tokens: int | None, recipe: Recipe, model_limit: int | None) -> int:
    """The caller's limit, or else the recipe's or the model's, whichever is shorter.

    Raises:
        InputError: it is no count, or more than the model can place.
    """
    checked_count("max_tokens", max_tokens)
    if max_tokens is None:
        return recipe.max_tokens if model_limit is None else min(recipe.max_tokens, model_limit)
    if model_limit is not None and max_tokens > model_limit:
        raise InputError(f"max_tokens={max_tokens} is more than the {model_limit} tokens that the model can place")
    return max_tokens


def checked_count(name: str, value: int | None, least: int = 1) -> int | None:
    """The value itself.

    Raises:
        InputError: it is neither None nor a whole number from `least` up.
    """
    if value is not None and (not isinstance(value, Integral) or isinstance(value, bool) or value < least):
        raise InputError(f"{name} must be a whole number from {least} up, not {value!r}")
    return value


def checked_choice(name: str, value: Choice, choices: object) -> Choice:
    """The value itself, where it is None or one of those that the `Literal` type `choices` lists.

    Raises:
        InputError: with the value, under the `name` that the caller knows it by.
    """
    if value is not None and value not in get_args(choices):
        raise InputError(f"unknown {name} {value!r}; it is one of {', '.join(get_args(choices))}")
    return value


def checked_recipe(recipe: Recipe | Mapping[str, Any] | None) -> Recipe | None:
    """The recipe, made of its plain data where it is given so.

    Raises:
        InputError: it is neither.
        RecipeError: as `recipe_from`.
    """
    if isinstance(recipe, Mapping):
        return recipe_from(recipe)
    if recipe is not None and not isinstance(recipe, Recipe):
        raise InputError(f"recipe must be a Recipe, or its fields as a dictionary, not a {type(recipe).__name__}")
    return recipe


def check_top_n(top_n: object, name: str = "top_n") -> None:
    """Refuse what is neither None nor a whole number from 1 up.

    Raises:
        InputError: with the value, under the `name` that the caller knows it by.
    """
    if top_n is not None and (not isinstance(top_n, Integral) or isinstance(top_n, bool) or top_n < 1):
        raise InputError(f"{name} must be a whole number from 1 up, or None for all, not {top_n!r}")


def check_score_threshold(score_threshold: object) -> None:
    """Refuse what is neither None nor a number.

    Raises:
        InputError: with the value.
    """
    if score_threshold is None:
        return
    is_number = isinstance(score_threshold, Real) and not isinstance(score_threshold, bool)
    if not is_number or score_threshold != score_threshold:  # noqa: PLR0124  only NaN is not itself
        raise InputError(f"score_threshold must be a number, or None for all documents, not {score_threshold!r}")
