"""The help texts of `onelogit`: each command's help ends in two examples, which parse and run."""

import shlex
from pathlib import Path

import pytest

from onelogit import DEMO_MODEL
from onelogit.cli.main import _COMMANDS, _parse_arguments, main
from support.evaluation_data import list_row, write_lines

REAL_MODEL = "Qwen/Qwen3-Reranker-0.6B"
# Options that only shorten the runs; the last value of an option counts.
SHORTENED = {"bench": ["--candidates", "1,2", "--seconds", "1"], "verify": ["--pairs", "pairs.jsonl"]}


def examples_of(command: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    with pytest.raises(SystemExit):
        main([*([command] if command else []), "--help"])
    _, heading, rest = capsys.readouterr().out.partition("\nexamples:\n")
    assert heading
    return [line.strip() for line in rest.splitlines()]


@pytest.mark.parametrize("columns", ["40", "80", "200"])
@pytest.mark.parametrize("command", ["", *_COMMANDS])
def test_help_ends_in_two_examples_that_parse(
    command: str, columns: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("COLUMNS", columns)
    examples = examples_of(command, capsys)

    assert len(examples) == 2
    for example in examples:
        program, *arguments = shlex.split(example)
        assert program == "onelogit"
        assert command in ("", arguments[0])
        _parse_arguments(arguments)


@pytest.mark.parametrize("command", [each for each in _COMMANDS if each != "serve"])  # which does not end by itself
def test_examples_run_with_the_demo_model(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.chdir(tmp_path)
    write_lines(tmp_path / "texts.jsonl", [{"text": "Bananas are yellow."}, {"text": "Rome is old."}])
    write_lines(tmp_path / "pairs.jsonl", [{"query": "which?", "document": "this"}])
    write_lines(tmp_path / "questions.jsonl", [list_row(n, language="ab"[n % 2]) for n in range(3)])
    row = {"query_id": "1", "document_id": "2", "query": "which?", "document": "this"}
    write_lines(tmp_path / "rows.jsonl", [row])
    if command == "verify":
        assert main(["convert", DEMO_MODEL, "--output", "qwen3-reranker-classifier"]) == 0
    examples = [example for example in examples_of(command, capsys) if "--url" not in example]

    for example in examples:
        arguments = [DEMO_MODEL if each == REAL_MODEL else each for each in shlex.split(example)[1:]]
        assert main([*arguments, *SHORTENED.get(command, [])]) == 0, example
        assert capsys.readouterr().out
    assert examples
