"""A caller's recipe: by the name of a family, whole, or as a family's name and what differs."""

import re
from dataclasses import replace

import pytest

from onelogit import FAMILIES, InputError, Recipe, RecipeError, recipe_fields
from onelogit.recipes.lookup import family_recipe, recipe_of

QWEN3 = next(recipe for recipe in FAMILIES if recipe.family == "qwen3-reranker")
WHOLE = {"family": "mine", "chat_template": None, "read_out": None, "source": "this test"}


@pytest.mark.parametrize("name", ["qwen3-reranker", "Qwen3-Reranker", " qwen3_reranker ", "Qwen/Qwen3-Reranker-0.6B"])
def test_a_family_is_found_by_its_name(name: str):
    assert family_recipe(name) is QWEN3


def test_every_family_is_found_by_its_name_and_by_its_models():
    for recipe in FAMILIES:
        assert all(family_recipe(name) is recipe for name in (recipe.family, *recipe.models))


@pytest.mark.parametrize("name", ["qwen3-reranke", "qwen-reranker", "qwen3"])
def test_an_unknown_family_is_refused_with_the_nearest_and_all_known_ones(name: str):
    with pytest.raises(RecipeError, match="did you mean 'qwen3-reranker'") as error:
        family_recipe(name)

    assert all(recipe.family in str(error.value) for recipe in FAMILIES)


def test_an_unknown_family_that_is_close_to_none_has_no_suggestion():
    with pytest.raises(RecipeError, match="no family is called 'bm25'; the known families are qwen3-reranker"):
        family_recipe("bm25")


def test_the_fields_of_a_family_can_be_changed():
    recipe = recipe_of({"family": "qwen3-reranker", "default_instruction": "Find the clause."})

    assert recipe is not None
    assert recipe.default_instruction == "Find the clause."
    changed = recipe_fields(QWEN3) | {"default_instruction": "Find the clause."}
    assert recipe_fields(recipe) == {name: value for name, value in changed.items() if name != "licence"}


def test_a_fine_tune_inherits_a_licence_only_if_it_restricts_use():
    ctxl = recipe_of("ctxl-rerank-v2")

    assert recipe_of("qwen3-reranker") == replace(QWEN3, licence=None)
    assert ctxl is not None
    assert ctxl.licence == family_recipe("ctxl-rerank-v2").licence is not None


@pytest.mark.parametrize("given", [None, QWEN3, Recipe(**WHOLE)])  # type: ignore[arg-type]
def test_a_recipe_is_unchanged(given: Recipe | None):
    assert recipe_of(given) is given


def test_all_fields_of_a_recipe_need_no_known_family():
    assert recipe_of(WHOLE) == Recipe(**WHOLE)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"family": "mine"}, "lacks chat_template, read_out, source, which only a recipe of a known family may omit"),
        ({"family": "qwen3-rerank", "read_out": None}, "did you mean 'qwen3-reranker'"),
        ({"family": "qwen3-reranker", "colour": 1}, "it has unknown fields, 'colour'. The fields of a recipe are"),
        (
            {"family": "a", "read_out": None, "chat_template": None, "source": "", **dict.fromkeys("vwxyz")},
            "'x' and 2 more",
        ),
        ({"family": "qwen3-reranker", "max_tokens": "512"}, "max_tokens cannot be '512'"),
        ({"default_instruction": "Find."}, "it lacks family, chat_template, read_out, source"),
    ],
)
def test_an_invalid_recipe_is_refused(given: object, message: str):
    with pytest.raises(RecipeError, match=re.escape(message)):
        recipe_of(given)


def test_a_recipe_of_another_type_is_refused():
    with pytest.raises(InputError, match="must be a family's name, a Recipe, or its fields as a dictionary, not a int"):
        recipe_of(3)
