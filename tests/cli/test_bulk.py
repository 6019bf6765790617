"""The command `onelogit bulk`: its output, exit codes and errors."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from onelogit import DEMO_MODEL, InputError
from onelogit.errors import check_packages
from onelogit.options import DEMO_NOTE
from support.bulk_rows import (
    ROWS,
    bulk_command,
    query_rows,
    write_jsonl,
)
from support.tiny import Tiny


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_jsonl(tmp_path / "in.jsonl", ROWS)


@pytest.fixture
def model(tiny_qwen: Tiny) -> str:
    return str(tiny_qwen.folder)


def test_the_command_says_what_it_wrote(source: Path, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert bulk_command(source, tmp_path / "out", "--model", model) == 0
    printed = capsys.readouterr()
    assert printed.out == f"20 pairs written to {tmp_path / 'out'}.\n"
    assert printed.err == ""  # no bar without a terminal

    assert bulk_command(source, tmp_path / "out", "--model", model, "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"folder": str(tmp_path / "out"), "pairs": 20, "errors": 0}


def test_the_command_notes_that_results_are_from_the_demo_model(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert bulk_command(source, tmp_path / "out", "--model", DEMO_MODEL) == 0

    assert capsys.readouterr().err == f"onelogit: {DEMO_NOTE}\n"


def test_the_command_exits_with_1_if_pairs_have_errors(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    source = write_jsonl(tmp_path / "in.jsonl", [ROWS[0], {}])

    assert bulk_command(source, tmp_path / "out", "--model", model) == 1
    printed = capsys.readouterr().out
    assert "5 pairs written to " in printed
    assert "; 1 has an error.\n  1 has an error: in.jsonl, row 2: documents must be a list" in printed


def test_the_commonest_errors_are_printed_with_their_numbers_and_a_second_run_has_nothing_to_do(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    rows = [{**row, "query_id": None} for row in ROWS] + [
        {**ROWS[0], "query_id": "QUERY", "query": "", "documents": [""]}
    ]
    source, out = write_jsonl(tmp_path / "in.jsonl", [*rows, query_rows(1, 1)[0]]), tmp_path / "out"
    errors = [
        "  20 have an error like this: in.jsonl, row 1: this row has no query_id; a row must have",
        "  1 has an error: query 'QUERY': the query is empty",
    ]

    for first_line in (
        f"22 pairs written to {out}; 21 have errors.",
        f"nothing to do: 22 pairs were in {out} already;",
    ):
        assert bulk_command(source, out, "--model", model) == 1
        lines = capsys.readouterr().out.splitlines()
        assert lines[0].startswith(first_line)
        assert all(line.startswith(start) for line, start in zip(lines[1:], errors, strict=True))

    assert bulk_command(source, out, "--model", model, "--json") == 1
    printed = capsys.readouterr()
    assert json.loads(printed.out) == {"folder": str(out), "pairs": 22, "errors": 21}
    assert "20 have an error like this" in printed.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere.jsonl", "out", "--model", "MODEL"), "there is no file or folder 'nowhere.jsonl'"),
        (("SOURCE", "out", "--model", "./no-such-model"), "there is no folder './no-such-model'"),
        (("SOURCE", "out", "--model", "MODEL", "--slice-rows", "0"), "--slice-rows must be a whole number from 1 up"),
        (("SOURCE", "out", "--model", "MODEL", "--workers", "-1"), "--workers must be a whole number from 0 up"),
        (("SOURCE", "out", "--model", "MODEL", "--template", "server"), "'template' is not an option of a local model"),
        (("SOURCE", "out", "--model", "http://a", "--url", "http://b"), "two servers are named"),
        (("SOURCE", "out"), "name a model or a server: --model, --url, or both"),
        (("SOURCE", "out", "--model", "MODEL", "--engine", "remote"), "--engine remote needs --url"),
        (("SOURCE", "out", "--url", "http://127.0.0.1:9", "--engine", "local"), "--engine local does not accept --url"),
        (
            ("SOURCE", "out", "--model", "MODEL", "--url", "http://127.0.0.1:9", "--dtype", "float32"),
            "'dtype' is not an option of a server",
        ),
        (("SOURCE", "SOURCE", "--model", "MODEL"), "is a file; results are written to a folder"),
        (("SOURCE", "out", "--model", "MODEL", "--engine", "vllm"), "this needs vllm: pip install 'ray[llm]'"),
    ],
)
def test_an_error_of_the_command_is_one_line(
    arguments: Sequence[str], message: str, source: Path, model: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
):  # fmt: skip
    monkeypatch.chdir(tmp_path)

    assert bulk_command(*({"SOURCE": source, "MODEL": model}.get(word, word) for word in arguments)) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("package", "workers", "extra"), [("pyarrow", 0, "bulk"), ("pyarrow", 1, "ray"), ("ray", 1, "ray")]
)
def test_a_missing_package_is_named_with_how_to_install_it(
    package: str, workers: int, extra: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("onelogit.errors.find_spec", lambda name: None if name == package else object())

    assert bulk_command("in", "out", "--model", "m", "--workers", workers) == 2
    assert f"this needs {package} (the extra '{extra}'): pip install 'pyarrow>=18'" in capsys.readouterr().err
    with pytest.raises(InputError, match=package):
        check_packages("pyarrow", "ray")


def test_ray_and_pyarrow_are_loaded_only_when_they_are_used():
    program = (
        "import sys, onelogit.cli.main, onelogit.bulk; sys.exit(any(x in sys.modules for x in ('ray', 'pyarrow')))"
    )

    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
