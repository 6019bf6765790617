"""The tables of all commands: every label and every figure is printed whole, in terminals of any width."""

import io
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from rich.text import Text

from onelogit import DEMO_MODEL, Reranker
from onelogit.benchmarking.report import tables_of
from onelogit.benchmarking.runner import Case
from onelogit.cli.main import main
from onelogit.io.tables import FigureTable
from support.benchmark_targets import FakeTarget, result, runner
from support.evaluation_data import list_row, write_lines
from support.terminal import in_terminal

WIDTHS = (40, 60, 80, 120)
WIDE = 400
_FIGURE = re.compile(r"[-+]?\d[\w.,%+-]*")
_LONG = "Find the documents that answer this question."


def _shown(print_table: Callable[[], str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Check that narrow tables have all words and figures of a wide one."""
    monkeypatch.setenv("COLUMNS", str(WIDE))
    wide = print_table()
    assert _FIGURE.search(wide)
    for width in WIDTHS:
        monkeypatch.setenv("COLUMNS", str(width))
        narrow = print_table()
        rows = [line for line in narrow.splitlines() if line.startswith(" ")]

        assert "\x1b" not in narrow
        assert "\u2026" not in narrow
        assert max(map(len, rows)) <= width
        assert {*_FIGURE.findall(wide)} <= {*_FIGURE.findall(narrow)}
        if width >= 60:
            assert {*wide.split()} - {*narrow.split()} <= {word for word in wide.split() if set(word) == {"─"}}


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    with Reranker.load(DEMO_MODEL) as reranker:
        reranker.save(tmp_path / "demo-classifier")
    return tmp_path / "demo-classifier"


def _printed(capsys: pytest.CaptureFixture[str], *arguments: object) -> Callable[[], str]:
    def run() -> str:
        assert main([*map(str, arguments)]) == 0
        return capsys.readouterr().out

    return run


def test_verify(exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text(json.dumps({"query": "which?", "document": "this"}) + "\n")

    run = _printed(capsys, "verify", DEMO_MODEL, "--pairs", pairs, "--against", exported)
    _shown(run, monkeypatch)

    printed = run()
    assert printed.startswith("demo-classifier agrees with demo\n")
    assert re.search(r"largest difference \(at most 1\.0e-04\) +\d\.\de[-+]\d\d +\d\.\de[-+]\d\d", printed)
    assert "(3) demo-classifier by transformers" in printed


def test_rank_names_the_columns_that_it_leaves_out(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    run = _printed(capsys, "rank", "which?", "a", "b")
    for width, left_out in ((40, "index, score"), (60, "index"), (80, None), (120, None)):
        monkeypatch.setenv("COLUMNS", str(width))
        printed = run()

        assert len(re.findall(r" [+-]\d\.\d{3} ", printed)) == 2
        assert ("Left out" in printed) == (left_out is not None)
        assert ("Bars show" in printed) == ("█" in printed or "#" in printed) == (width > 40)
        assert left_out is None or f"Left out at this width: {left_out}" in " ".join(printed.split())


def test_recipes(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    _shown(_printed(capsys, "recipes"), monkeypatch)


@pytest.mark.parametrize("width", WIDTHS)
def test_the_recipe_of_a_model(width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setenv("COLUMNS", str(width))

    lines = _printed(capsys, "recipes", DEMO_MODEL)().splitlines()

    labels = [line.split("│")[1].strip() for line in lines if line.startswith("│")]
    values = "".join(line.split("│")[2].strip() for line in lines if line.startswith("│"))
    expected = "family, recognised by, logit, score, instruction, max tokens, licence, source, chat template"
    assert ", ".join(filter(None, labels)) == expected
    assert max(map(len, lines)) <= width
    assert "4,096" in values
    assert "https://huggingface.co/Qwen/Qwen3-Reranker-0.6B" in values


def test_evaluate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    data = write_lines(tmp_path / "x.jsonl", [list_row(n, language="ab"[n % 2]) for n in range(4)])
    options = ["--slice", "language", "--pairwise", "--instruction", "default", "--instruction", _LONG]
    run = _printed(capsys, "evaluate", DEMO_MODEL, "--data", data, "--output", tmp_path / "o", "--resume", *options)

    _shown(run, monkeypatch)


def test_bench(monkeypatch: pytest.MonkeyPatch):
    targets = FakeTarget("onelogit", 1.0), FakeTarget("Sentence Transformers", 3.0)
    cases = tuple(runner(*targets, repeats=100).measure([Case(2), Case(1000)]))
    with_lengths = tuple(replace(case, document_tokens=4096) for case in cases)

    def run() -> str:
        console = Console(file=io.StringIO(), record=True)
        for measured in (cases, with_lengths):
            for table in tables_of(result(cases=measured)):
                console.print(table)
        return console.export_text()

    _shown(run, monkeypatch)


@pytest.mark.parametrize("given", [{"NO_COLOR": "1"}, {"NO_COLOR": "1", "FORCE_COLOR": "1"}])
def test_no_color_leaves_no_control_sequences_in_a_table_on_a_terminal(given: dict[str, str]):
    ran = in_terminal(["-m", "onelogit", "recipes"], environment=given)

    assert ran.code == 0
    assert "zerank-2" in ran.screen
    assert "\x1b" not in ran.screen
    assert "\x1b" in in_terminal(["-m", "onelogit", "recipes"]).screen


def test_an_empty_no_color_does_not_count():
    assert "\x1b" in in_terminal(["-m", "onelogit", "recipes"], environment={"NO_COLOR": ""}).screen


def test_markup_and_wide_characters_in_labels_are_text():
    table = FigureTable(["order", "nDCG"], title="[red]title[/]", caption="[b]caption")
    table.add_row("[bold]서울[/]" * 9, "0.500")
    table.add_row("empty", Text())
    console = Console(file=io.StringIO(), record=True, width=40)

    console.print(table)

    lines = console.export_text().splitlines()
    assert lines[0] == "[red]title[/]"
    assert lines[-1] == "[b]caption"
    assert "".join(line[:30].strip() for line in lines[4:-2]).count("서울") == 9
    assert all("0.500" not in line or line.rstrip().endswith("0.500") for line in lines)
