"""A recipe on the command line: files that cannot be read, which option is missing, and which answer comes first."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from onelogit.cli.main import main
from onelogit.recipes.families import FAMILIES
from onelogit.recipes.recipe import recipe_fields
from support.commands import failure, output
from support.tiny import Tiny

TOKENS, METHOD, TEMPLATE = "--classifier-from-tokens", "--method", "--chat-template"
TWO = (TOKENS, '["no", "yes"]')
SOFTMAX = (METHOD, "from_2_way_softmax")


@pytest.fixture
def folder(checkpoint: Callable[..., Tiny]) -> Path:
    return checkpoint("model").folder


@pytest.fixture
def file(tmp_path: Path, template: str) -> Path:
    (tmp_path / "own.jinja").write_text(template)
    return tmp_path / "own.jinja"


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ((*TWO, *SOFTMAX), "the prompt is missing: add --chat-template FILE, or --recipe NAME"),
        ((TEMPLATE, "own.jinja", *SOFTMAX), '--method from_2_way_softmax needs --classifier-from-tokens: \'["no"'),
        ((TEMPLATE, "own.jinja", *TWO), "needs a --method: from_2_way_softmax or no_post_processing; here --method fr"),
        ((TEMPLATE, "own.jinja", TOKENS, '["yes"]'), "here --method no_post_processing"),
        ((TEMPLATE, "own.jinja"), "--classifier-from-tokens and --method"),
        (SOFTMAX, "needs --classifier-from-tokens"),
        (TWO, "needs a --method"),
        ((TEMPLATE, "own.jinja", TOKENS, '["yes"]', *SOFTMAX), "takes two, the false one first"),
    ],
)
@pytest.mark.parametrize("command", ["rank", "prompt"])
def test_the_missing_option_is_named(
    command: str,
    given: tuple[str, ...],
    missing: str,
    capsys: pytest.CaptureFixture[str],
    folder: Path,
    file: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.chdir(file.parent)
    model = ("a", "b", "--model", folder) if command == "rank" else (folder,)

    assert missing in failure(capsys, command, *model, *given)


def test_the_help_says_which_answer_comes_first(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit):
        main(["rank", "--help"])

    assert 'of two, the false one first: \'["no", "yes"]\'' in capsys.readouterr().out


@pytest.mark.parametrize(("tokens", "count"), [('["yes", "no"]', 1), ('["no", "yes"]', 0)])
def test_answers_the_wrong_way_round_are_questioned_once(
    tokens: str,
    count: int,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    folder: Path,
    file: Path,
):
    output(capsys, "rank", "q", "d", "--model", folder, TEMPLATE, file, TOKENS, tokens, *SOFTMAX)

    warnings = [each for each in caplog.messages if "--classifier-from-tokens takes the false token first" in each]
    assert len(warnings) == count


@pytest.mark.parametrize("command", [("rank", "a", "b", "--model"), ("prompt",), ("verify",), ("bench",)], ids="-".join)
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "mine.json cannot be read: No such file or directory\n"),
        (b'{"family": }', "mine.json cannot be read, because it is not JSON: Expecting value: line 1 column 12"),
        (b"[]", "mine.json must be a JSON object with the fields of a recipe"),
        (b"\xff\xfe{", "mine.json is not UTF-8; save it as UTF-8"),
        (b'{"model_type": "x", "dtype": 1}', "it has unknown fields, 'model_type', 'dtype'. The fields of a"),
    ],
)
def test_a_recipe_file_that_cannot_be_used_is_one_sentence(
    content: bytes | None,
    message: str,
    command: tuple[str, ...],
    capsys: pytest.CaptureFixture[str],
    folder: Path,
    tmp_path: Path,
):
    if content is not None:
        (tmp_path / "mine.json").write_bytes(content)

    said = failure(capsys, *command, folder, "--recipe", tmp_path / "mine.json")

    assert message in said
    assert "Errno" not in said


def test_a_template_that_cannot_be_read_is_one_sentence(
    capsys: pytest.CaptureFixture[str], folder: Path, tmp_path: Path
):
    given = (*TWO, *SOFTMAX)
    for name, reason in ((tmp_path / "no.jinja", "No such file or directory"), (tmp_path, "Is a directory")):
        said = failure(capsys, "prompt", folder, TEMPLATE, name, *given)
        assert said.endswith(f"the chat template {name} cannot be read: {reason}\n")


def test_a_recipe_file_needs_no_particular_ending(
    capsys: pytest.CaptureFixture[str], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    Path("mine").write_text(json.dumps(recipe_fields(FAMILIES[0])))

    for name in ("mine", "./mine", tmp_path / "mine", "qwen3-reranker", FAMILIES[0].models[0]):
        assert f"givenby--recipe{name}" in "".join(output(capsys, "prompt", folder, "--recipe", name).split())


def test_a_prompt_says_which_options_gave_its_recipe(capsys: pytest.CaptureFixture[str], folder: Path, file: Path):
    printed = "".join(output(capsys, "prompt", folder, TEMPLATE, file, *TWO, *SOFTMAX).split())  # lines are folded

    assert f"givenby--chat-template{file},--classifier-from-tokens,--method" in printed
    assert "thecaller" not in printed


@pytest.mark.parametrize("command", [("rank", "a", "b", "--model"), ("prompt",), ("recipes",)], ids="-".join)
def test_a_model_without_a_recipe_gets_a_short_way_out(
    command: tuple[str, ...], capsys: pytest.CaptureFixture[str], folder: Path
):
    said = failure(capsys, *command, folder).removeprefix(f"onelogit: '{folder}': ")

    assert len(said) < 320
    assert said.startswith("no recipe is known for this Qwen3ForCausalLM: its files do not declare a reranker. ")
    assert "--recipe NAME" in said
    assert "docs/your-own-model.md" in said
