"""`onelogit evaluate` with bad lines, queries that cannot be scored, unusual data, and invalid arguments."""

import logging
import sys
from pathlib import Path

import pytest

from onelogit import DEMO_MODEL
from support.evaluate_command import evaluated, failure, lines_of, means
from support.evaluation_data import list_row, write_lines, write_run

pytestmark = pytest.mark.usefixtures("in_empty_folder")


def test_a_query_that_cannot_be_scored_raises_or_is_skipped(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    rows = [list_row(0), list_row(1, query="long " * 5000), list_row(2)]
    data = write_lines(tmp_path / "data.jsonl", rows)

    message = failure(capsys, DEMO_MODEL, "--data", data)
    assert "demo, query '2': " in message
    assert "--skip-bad" in message
    results = evaluated(DEMO_MODEL, "--data", data, "--skip-bad", "--resume")
    assert results["queries"] == 2
    assert results["skipped"]["queries that a model could not score"]["count"] == 1  # type: ignore[index]
    assert "Skipped (--skip-bad): queries that a model could not score, 1; the first" in capsys.readouterr().out
    assert evaluated(DEMO_MODEL, "--data", data, "--skip-bad", "--resume") == results
    capsys.readouterr()
    assert "demo, query '2': " in failure(capsys, DEMO_MODEL, "--data", data, "--resume")
    write_lines(data, rows[1:2])
    assert "no query could be scored by every model" in failure(
        capsys, DEMO_MODEL, "--data", data, "--skip-bad", "--overwrite"
    )


def test_a_query_that_one_system_cannot_score_is_skipped_for_all_systems(tmp_path: Path):
    rows = [list_row(n, ask="long " * 5000 if n == 1 else "Find it.") for n in range(3)]
    options = ["--instruction", "default", "--instruction", "@ask"]

    results = evaluated(
        DEMO_MODEL, "--data", write_lines(tmp_path / "x.jsonl", rows), *options, "--skip-bad", "--pairwise"
    )

    assert results["queries"] == results["pairings"][0]["query_count"] == 2  # type: ignore[index]
    assert [line["query"] for line in lines_of("evaluation/per-query.jsonl")] == ["1", "3"]
    assert len(lines_of("evaluation/run-01.jsonl")) == 4


def test_truncated_documents_are_counted_without_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
):
    data = write_lines(tmp_path / "x.jsonl", [list_row(n, documents=["word " * 999, "b", "c"]) for n in range(3)])

    with caplog.at_level(logging.WARNING):
        results = evaluated(DEMO_MODEL, "--data", data, "--max-tokens", 200)

    assert results["entries"][2]["documents_cut"] == 3  # type: ignore[index]
    assert "demo: 3 documents were truncated to fit." in capsys.readouterr().out
    assert not caplog.records


def test_skipped_lines_are_reported(folder: Path, capsys: pytest.CaptureFixture[str]):
    for name, line in {"corpus.jsonl": "{", "qrels/test.tsv": "q1\td9\t1"}.items():
        with (folder / name).open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    results = evaluated(DEMO_MODEL, "--data", folder, "--skip-bad")

    assert {kind: each["count"] for kind, each in results["skipped"].items()} == {"documents": 1, "judgements": 1}  # type: ignore[attr-defined]
    printed = capsys.readouterr().out
    assert f"judgements, 1; the first is {folder}/qrels/test.tsv, line 7: the document 'd9' is not in the" in printed


def test_queries_without_candidates_count_as_zero(folder: Path, capsys: pytest.CaptureFixture[str]):
    run = write_run(folder / "run", {"q1": ["d1"]})

    results = evaluated(DEMO_MODEL, "--data", folder, "--run", run)

    assert means(results)["demo"]["MRR@10"] == pytest.approx(1 / 3)
    assert results["queries_without_candidates"] == 2
    assert "The first stage found nothing for 2 of 3 queries" in capsys.readouterr().out


def test_empty_documents_and_a_single_query_are_ranked(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    data = write_lines(tmp_path / "x.jsonl", [list_row(documents=["", "", "x"], labels=[0, 0, 1])])

    results = evaluated(DEMO_MODEL, "--data", data, "--slice", "length", "--report", "r.html", "--plot", "p.svg")

    assert results["entries"][2]["means"]["MAP"]["interval_95"] is None  # type: ignore[index]
    assert "A single query has no confidence interval" in capsys.readouterr().out
    assert Path("p.svg").read_text("utf-8").startswith("<?xml")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "nowhere"], "nowhere does not exist; name a folder in BEIR format, or a JSONL, CSV"),
        (["--data", "data", "-k", "0"], "-k must be whole numbers from 1 up, such as 1,10,100, not '0'"),
        (["--data", "data", "--candidates", "0"], "--candidates must be a whole number from 1 up"),
        (["--data", "data", "--seed", "-1"], "--seed must be a whole number from 0 up"),
        (["--data", "data", "--plot", "plot.txt"], "--plot plot.txt must end in .png, .svg, .pdf"),
        (["--data", "data", "--plot", "nowhere/x.png"], "--plot nowhere/x.png cannot be written; name a file in a"),
        (["--data", "data", "--report", "data"], "--report data cannot be written"),
        (["--data", "data", "--output", "data/corpus.jsonl"], "data/corpus.jsonl cannot be written"),
        (["--data", "data/corpus.jsonl", "--report", "data/../data/corpus.jsonl"], "would overwrite --data"),
        (
            ["--data", "per-query.jsonl", "--output", "."],
            "the per-query.jsonl of --output would overwrite --data",
        ),
        (["--data", "data", "--run", "run", "--report", "run"], "--report would overwrite --run, run; name"),
        (["--data", "data", "--plot", "x.svg", "--report", "./x.svg"], "--report would overwrite --plot, x.svg"),
        (
            ["--data", "data", "--slice", "tongue"],
            "no query has the field 'tongue'; the fields are ask, lang",
        ),
        (["--data", "data", "--instruction", "@tongue"], "the query 'q1' has no field 'tongue'"),
        (["--data", "data", "--pairwise"], "--pairwise compares instructions, templates or quantisations of one model"),
        (
            ["--data", "data", "--instruction", "a", "--instruction", "a"],
            "is given twice with the same template",
        ),
        (["--data", "data", "--chat-template", "nowhere.jinja"], "the chat template nowhere.jinja cannot be read"),
        (["--data", "data", "--run", "nowhere"], "nowhere cannot be read: No such file"),
        (["--data", "data/queries.jsonl", "--split", "test"], "--split needs a folder in BEIR format"),
        (["--data", "data/corpus.jsonl"], 'line 1: "query" is missing'),
        (["no-such/model", "--data", "data"], "neither a local folder nor found on the hub"),
        (["no-such/model", "--data", "data", "--revision", "v1"], "--revision applies to a single model"),
        (["no-such/model", "--data", "data", "--url", "http://127.0.0.1:1"], "--url applies to a single model"),
        (["--data", "data", "--template", "server"], "'template' is not an option of a local model"),
        (["http://127.0.0.1:1", "--data", "data"], "pass the model's hub id or folder as model"),
        (
            ["http://127.0.0.1:1", "--data", "data", "--chat-template", f"{DEMO_MODEL}/chat_template.jinja"],
            "--chat-template needs prompts that the client writes; name the model as well",
        ),
    ],
)
def test_errors_are_one_line(arguments: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str]):
    assert message in failure(capsys, DEMO_MODEL, *arguments)


@pytest.mark.parametrize("arguments", [["--slice", "tongue"], ["--pairwise"]])
def test_impossible_comparisons_are_refused_before_scoring(
    arguments: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
):
    failure(capsys, DEMO_MODEL, "--data", folder, *arguments)

    assert not Path("evaluation/run-01.jsonl").exists()


@pytest.mark.parametrize("package", ["ir_measures", "scipy", "bm25s"])
def test_an_error_about_a_missing_package_names_what_to_install(
    package: str, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("onelogit.errors.find_spec", lambda name: None if name == package else object())
    monkeypatch.setitem(sys.modules, package, None)

    message = failure(capsys, DEMO_MODEL, "--data", folder)

    assert f"this needs {package} (the extra 'evaluate'): pip install 'bm25s>=0.3.16' 'ir-measures>=0.3.7' " in message
