"""`onelogit recipes`: the known families, and the recipe of one model."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import XLMRobertaConfig

from onelogit import DEMO_MODEL, Reranker
from onelogit.recipes.templates import QWEN3_TEMPLATE
from support.commands import failure, output
from support.tiny import Tiny, native_checkpoint, pair_tokenizer


def test_families_are_listed_as_a_table_and_as_json(capsys: pytest.CaptureFixture[str]):
    assert "ctxl-rerank-v2" in output(capsys, "recipes")
    listed = json.loads(output(capsys, "recipes", "--json"))

    assert "Qwen/Qwen3-Reranker-8B" in next(each for each in listed if each["family"] == "qwen3-reranker")["models"]


def test_the_recipe_of_a_model_is_shown_with_its_origin(capsys: pytest.CaptureFixture[str]):
    result = json.loads(output(capsys, "recipes", DEMO_MODEL, "--json"))

    assert result["because"].startswith("modules.json: Transformer -> LogitScore")
    assert result["chat_template"] == QWEN3_TEMPLATE
    assert "modules.json" in output(capsys, "recipes", DEMO_MODEL)


def test_answer_tokens_are_shown_with_their_texts(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    shown = " ".join(output(capsys, "recipes", DEMO_MODEL).split())
    assert "'yes' (token 480) − 'no' (token 424)" in shown
    assert json.loads(output(capsys, "recipes", DEMO_MODEL, "--json"))["token_texts"] == {"480": "yes", "424": "no"}

    shutil.copytree(DEMO_MODEL, tmp_path / "model")
    (tmp_path / "model" / "tokenizer.json").unlink()
    assert "token 480 − token 424" in " ".join(output(capsys, "recipes", tmp_path / "model").split())


def test_a_model_without_a_known_recipe_is_an_error(
    capsys: pytest.CaptureFixture[str], checkpoint: Callable[..., Tiny]
):
    assert "pass recipe=" in failure(capsys, "recipes", checkpoint("chat").folder)


@pytest.mark.parametrize("further", [(), ("--local-files-only",)])
def test_the_recipe_of_a_model_in_the_table_is_shown_without_its_files(
    further: tuple[str, ...], capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    options = ("--cache-dir", tmp_path, *further)
    result = json.loads(output(capsys, "recipes", "zeroentropy/zerank-2", "--json", *options))

    assert (result["family"], result["read_out"]["scale"]) == ("zerank-2", 0.2)
    assert result["because"].startswith("its id, of the family zerank-2; its files were not read, because the model")
    for model in (("zeroentropy/zerank-2", "--revision", "v9"), ("someone/zerank-2",)):
        assert "neither a local folder nor" in failure(capsys, "recipes", *model, *options)
    assert "there is no folder" in failure(capsys, "recipes", tmp_path / "zerank-2", *options)


@pytest.mark.parametrize("name", ["mxbai-rerank-v2", "Mxbai_Rerank_V2"])
def test_the_recipe_of_a_family_is_shown_by_its_name(name: str, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    result = json.loads(output(capsys, "recipes", name, "--json", "--cache-dir", tmp_path))

    assert (result["family"], result["read_out"]["true"]) == ("mxbai-rerank-v2", "1")
    assert result["because"] == "its name, which is a family's and no model's, so no files were read"
    assert "neither a local folder nor" in failure(capsys, "recipes", "mxbai-rerank-v3", "--cache-dir", tmp_path)


def test_a_name_that_is_too_long_for_a_path_is_an_error(capsys: pytest.CaptureFixture[str]):
    assert "cannot be read: File name too long" in failure(capsys, "recipes", "x" * 3000)


@pytest.mark.parametrize("limit", [500, 100_000])
def test_the_limit_is_that_of_the_loaded_model(
    limit: int, tmp_path: Path, checkpoint: Callable[..., Tiny], capsys: pytest.CaptureFixture[str]
):
    decoder = checkpoint("Qwen3-Reranker-tiny").folder
    config = json.loads((decoder / "config.json").read_text())
    (decoder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": limit}))
    tokenizer = pair_tokenizer("<s>", "</s> </s>", "</s>")
    encoder = native_checkpoint(
        tmp_path / "encoder", XLMRobertaConfig, tokenizer, num_labels=1, max_position_embeddings=min(limit, 900)
    )

    for folder in (decoder, encoder, DEMO_MODEL):
        shown = json.loads(output(capsys, "recipes", folder, "--json"))
        with Reranker.load(folder) as reranker:
            assert shown["max_tokens"] == reranker.max_tokens
            assert shown["default_instruction"] == reranker.recipe.default_instruction


def test_a_models_texts_cannot_affect_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    hostile = "\x1b]0;title\x07\x1b[31m\u202e"
    folder = tmp_path / "model"
    shutil.copytree(DEMO_MODEL, folder)
    (folder / "README.md").write_text(f"---\nlicense: {json.dumps('mine' + hostile)}\n---\n")
    (folder / "chat_template.jinja").write_text(QWEN3_TEMPLATE.replace("Judge whether", f"Judge{hostile}whether"))

    shown = output(capsys, "recipes", folder)

    assert not {"\x1b", "\x07", "\u202e"} & {*shown}
    joined = re.sub(r"[│\s]", "", shown)
    assert "mine]0;title[31m" in joined
    assert r"Judge\x1b]0;title\x07\x1b[31m\u202ewhether" in joined
