"""A family by its name as the recipe of a model whose files and name say nothing: fine-tunes and exports."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from onelogit import FAMILIES, InputError, ModelSpec, RecipeError, RemoteReranker, Reranker, recipe_fields
from onelogit.cli.main import main
from support.commands import failure
from support.reference import causal_logit, prompt_ids
from support.tiny import Tiny, causal_checkpoint

QUERY = "What is the capital of China?"
DOCUMENTS = ["The capital of China is Beijing.", "서울", ""]
QWEN3 = replace(next(recipe for recipe in FAMILIES if recipe.family == "qwen3-reranker"), licence=None)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return causal_checkpoint(tmp_path_factory.mktemp("run") / "checkpoint-1000")


def test_a_fine_tune_in_any_folder_is_loaded_by_the_name_of_its_family(checkpoint: Tiny):
    reranker = Reranker.load(checkpoint.folder, recipe="qwen3-reranker", dtype="float32")

    logits = reranker.logits(QUERY, DOCUMENTS)

    assert recipe_fields(reranker.recipe) | {"read_out": None} == recipe_fields(QWEN3) | {"read_out": None}
    expected = [causal_logit(checkpoint, QWEN3.read_out, prompt_ids(checkpoint, QWEN3, QUERY, d)) for d in DOCUMENTS]
    assert logits == pytest.approx(expected, abs=1e-4)


def test_a_family_can_be_named_with_another_instruction(checkpoint: Tiny):
    recipe = {"family": "qwen3-reranker", "default_instruction": "Find the clause."}
    named = Reranker.load(checkpoint.folder, recipe=recipe, dtype="float32")
    plain = Reranker.load(checkpoint.folder, recipe=QWEN3, dtype="float32")

    assert named.logits(QUERY, DOCUMENTS) == plain.logits(QUERY, DOCUMENTS, instruction="Find the clause.")


def test_a_known_family_can_be_named_for_a_converted_model(checkpoint: Tiny, tmp_path: Path):
    original = Reranker.load(checkpoint.folder, recipe="qwen3-reranker", dtype="float32")
    original.save(tmp_path / "export")

    converted = Reranker.load(tmp_path / "export", recipe="qwen3-reranker", dtype="float32")

    assert converted.logits(QUERY, DOCUMENTS) == pytest.approx(original.logits(QUERY, DOCUMENTS), abs=1e-4)
    assert converted.activation == original.activation == "sigmoid"


def test_a_name_stays_a_name_in_a_spec():
    assert dict(ModelSpec("m", options={"recipe": "qwen3-reranker"}).options) == {"recipe": "qwen3-reranker"}


def test_an_unknown_name_is_refused_before_the_model_is_read():
    with pytest.raises(RecipeError, match="did you mean 'qwen3-reranker'"):
        Reranker.load("no/such-model", recipe="qwen3-rerankr")


def test_a_server_of_a_fine_tune_gets_the_prompts_of_the_named_family(checkpoint: Tiny):
    remote = RemoteReranker("http://127.0.0.1:9", str(checkpoint.folder), recipe="qwen3-reranker")

    assert remote.recipe == QWEN3


def test_commands_take_the_name_of_a_family(checkpoint: Tiny, capsys: pytest.CaptureFixture[str]):
    arguments = ["rank", "--model", str(checkpoint.folder), "--json", "--dtype", "float32", QUERY, *DOCUMENTS[:2]]

    assert main([*arguments, "--recipe", "qwen3-reranker"]) == 0

    rows = map(json.loads, capsys.readouterr().out.splitlines())
    logits = {row["text"]: row["logit"] for row in rows}
    reranker = Reranker.load(checkpoint.folder, recipe="qwen3-reranker", dtype="float32")
    assert [logits[text] for text in DOCUMENTS[:2]] == pytest.approx(reranker.logits(QUERY, DOCUMENTS[:2]))


def test_commands_take_a_recipe_from_a_file(checkpoint: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    file = tmp_path / "recipe.json"
    file.write_text(json.dumps({"family": "qwen3-reranker", "default_instruction": "Find the clause."}))
    arguments = ["rank", "--model", str(checkpoint.folder), "--json", "--dtype", "float32", QUERY, *DOCUMENTS[:2]]

    assert main([*arguments, "--recipe", str(file)]) == 0
    of_file = capsys.readouterr().out
    assert main([*arguments, "--recipe", "qwen3-reranker", "--instruction", "Find the clause."]) == 0

    assert of_file == capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        ("not json", "cannot be read"),
        ("[1]", "must be a JSON object"),
        ('{"family": "qwen3"}', "did you mean"),
    ],
)
def test_a_recipe_file_that_is_none_is_refused(
    content: str | None, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    file = tmp_path / "recipe.json"
    if content is not None:
        file.write_text(content)

    assert message in failure(capsys, "rank", "--model", "no/such-model", "--recipe", str(file), QUERY, "a")


def test_a_prompt_without_a_place_for_an_instruction_gets_none(checkpoint: Tiny, template: str, tmp_path: Path):
    own = recipe_fields(QWEN3) | {"chat_template": template, "default_instruction": None}
    plain = Reranker.load(checkpoint.folder, recipe=own)
    forms = [replace(QWEN3, chat_template=template), {"family": "qwen3-reranker", "chat_template": template}]
    (tmp_path / "prompt.jinja").write_text(template)
    arguments = ["rank", "--model", str(checkpoint.folder), "--recipe", "qwen3-reranker"]
    arguments += ["--chat-template", str(tmp_path / "prompt.jinja"), QUERY, *DOCUMENTS]

    for recipe in forms:
        reranker = Reranker.load(checkpoint.folder, recipe=recipe)
        assert reranker.recipe.default_instruction is None
        assert reranker.logits(QUERY, DOCUMENTS) == plain.logits(QUERY, DOCUMENTS)
        with pytest.raises(InputError, match="takes no instruction, but 'Say.' was given"):
            Reranker.load(checkpoint.folder, recipe=recipe, instruction="Say.")
    recipe = replace(QWEN3, chat_template=template, read_out=plain.recipe.read_out)
    direct = Reranker(plain.classifier, checkpoint.tokenizer, recipe)
    assert direct.logits(QUERY, DOCUMENTS) == plain.logits(QUERY, DOCUMENTS)
    with pytest.raises(InputError, match="takes no instruction, but 'Mine.' was given"):
        Reranker.load(checkpoint.folder, recipe={**forms[1], "default_instruction": "Mine."})
    assert main(arguments) == 0
    assert main([*arguments, "--instruction", "Say."]) == 2
