"""`onelogit recipes`: the known families, and the recipe of one model."""

import json
from collections.abc import Callable

import pytest

from onelogit import DEMO_MODEL
from onelogit.recipes.templates import QWEN3_TEMPLATE
from support.commands import failure, output
from support.tiny import Tiny


def test_families_are_listed_as_a_table_and_as_json(capsys: pytest.CaptureFixture[str]):
    assert "ctxl-rerank-v2" in output(capsys, "recipes")
    listed = json.loads(output(capsys, "recipes", "--json"))

    assert "Qwen/Qwen3-Reranker-8B" in next(each for each in listed if each["family"] == "qwen3-reranker")["models"]


def test_the_recipe_of_a_model_is_shown_with_its_origin(capsys: pytest.CaptureFixture[str]):
    result = json.loads(output(capsys, "recipes", DEMO_MODEL, "--json"))

    assert result["because"].startswith("modules.json: Transformer -> LogitScore")
    assert result["chat_template"] == QWEN3_TEMPLATE
    assert "modules.json" in output(capsys, "recipes", DEMO_MODEL)


def test_a_model_without_a_known_recipe_is_an_error(
    capsys: pytest.CaptureFixture[str], checkpoint: Callable[..., Tiny]
):
    assert "pass recipe=" in failure(capsys, "recipes", checkpoint("chat").folder)
