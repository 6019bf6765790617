"""The three options of a recipe on the command line: which one is missing, and which answer comes first."""

from collections.abc import Callable
from pathlib import Path

import pytest

from onelogit.cli.main import main
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

    assert 'of two the false one first: \'["no", "yes"]\'' in capsys.readouterr().out


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
