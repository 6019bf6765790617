"""The command `onelogit`: help, wrong arguments, exit codes and terminals."""

import argparse
import os
import subprocess
import sys
from pathlib import Path

import pytest

from onelogit import __version__
from onelogit.cli.main import _COMMANDS, _parser, main
from support.commands import failure

QUERY = "What is the capital of China?"


def test_every_command_has_help(capsys: pytest.CaptureFixture[str]):
    for command in ((), *((name,) for name in _COMMANDS)):
        with pytest.raises(SystemExit) as exit:
            main([*command, "--help"])
        assert exit.value.code == 0
        assert "onelogit" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "the following arguments are required: COMMAND; see onelogit --help"),
        (("rang",), "invalid choice: 'rang'"),
        (("rank", QUERY, "a", "--topn", "2"), "unknown arguments: --topn 2; see onelogit rank --help"),
        (("rank", QUERY, "a", "--top", "2"), "unknown arguments: --top 2; see onelogit rank --help"),
        (
            ("rank", QUERY, "a", "--top-k", "2", "--max-length=9"),
            "unknown arguments: --top-k 2 --max-length=9 (--top-k is --top-n here, --max-length is --max-tokens here); "
            "see onelogit rank --help",
        ),
        (("recipes", "a", "b"), "unknown arguments: b; see onelogit recipes --help"),
        (("bench",), "the following arguments are required: model; see onelogit bench --help"),
        (("bench", "m", "--seconds", "x"), "argument --seconds: invalid float value: 'x'; see onelogit bench --help"),
    ],
)
def test_a_wrong_argument_gives_one_line_that_refers_to_the_help(
    arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
):
    assert message in failure(capsys, *arguments)


MEANINGS = {
    "--json": argparse._StoreTrueAction,
    "--overwrite": argparse._StoreTrueAction,
    "--template": ("client", "server"),
    "--url": None,
    "--plot": Path,
    "--chat-template": Path,
}


def test_an_option_means_the_same_in_every_command():
    (commands,) = (action for action in _parser()._actions if isinstance(action, argparse._SubParsersAction))
    named: dict[str, set[object]] = {}
    for command in commands.choices.values():
        for action in command._actions:
            for name in MEANINGS.keys() & {*action.option_strings}:
                is_flag = isinstance(action, argparse._StoreTrueAction)
                named.setdefault(name, set()).add(type(action) if is_flag else action.choices or action.type)

    assert named == {name: {meaning} for name, meaning in MEANINGS.items()}


def test_it_runs_as_a_module_and_does_not_import_torch_for_a_table():
    program = "import sys; from onelogit.cli.main import main; main(['recipes']); sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", program], capture_output=True, check=False).returncode == 0
    ran = subprocess.run([sys.executable, "-m", "onelogit", "recipes"], capture_output=True, text=True, check=True)
    assert "zerank-2" in ran.stdout


def test_a_terminal_without_unicode_and_a_closed_pipe_are_not_errors():
    ascii_only = {**os.environ, "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "onelogit", "recipes"]
    assert b"zerank-2" in subprocess.run(command, env=ascii_only, capture_output=True, check=True).stdout

    with subprocess.Popen([*command, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""
    assert process.returncode == 0


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"onelogit {__version__}\n"
