"""Runs `onelogit evaluate`, and reads what it writes."""

import json
from pathlib import Path

import pytest

from onelogit.cli.main import main


def evaluated(*arguments: object) -> dict[str, object]:
    """Run the command; returns the results that it writes."""
    given = [str(argument) for argument in arguments]
    assert main(["evaluate", *given]) == 0
    folder = given[given.index("--output") + 1] if "--output" in given else "evaluation"
    found: dict[str, object] = json.loads(Path(folder, "figures.json").read_text("utf-8"))
    return found


def failure(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Run the command, which must fail; returns its error message of one line."""
    assert main(["evaluate", *map(str, arguments)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    return printed.err


def lines_of(path: Path | str) -> list[dict[str, object]]:
    return [json.loads(line) for line in Path(path).read_text("utf-8").splitlines()]


def means(found: dict[str, object]) -> dict[str, dict[str, float]]:
    return {
        entry["name"]: {name: mean["mean"] for name, mean in entry["means"].items()}
        for entry in found["entries"]  # type: ignore[attr-defined]
    }
