"""A command of `onelogit` -> what it prints."""

import pytest

from onelogit.cli.main import main


def output(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The stdout of a command that succeeds."""
    assert main([str(argument) for argument in arguments]) == 0
    return capsys.readouterr().out


def failure(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one-line error on stderr of a command that fails with exit code 2 and prints nothing else."""
    assert main([str(argument) for argument in arguments]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    return printed.err
