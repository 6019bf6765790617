"""The run files of `onelogit evaluate`: resumed, protected from other runs, and overwritten only on request."""

import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from onelogit import DEMO_MODEL, ModelSpec, Reranker
from onelogit.cli.main import main
from onelogit.evaluation import scoring
from onelogit.evaluation.systems import System
from support.evaluate_command import evaluated, failure, lines_of, means
from support.evaluation_data import list_row, write_lines
from support.prepared import Process
from support.servers import FakeServer, serving
from support.tiny import Tiny

pytestmark = pytest.mark.usefixtures("in_empty_folder")


def test_a_run_is_not_resumed_with_another_server(
    folder: Path, reranker: Reranker, tiny_qwen: Tiny, capsys: pytest.CaptureFixture[str]
):
    arguments = [tiny_qwen.folder, "--data", folder]
    with serving(FakeServer(reranker=reranker)) as server:
        evaluated(*arguments, "--url", server.url)
    capsys.readouterr()

    message = failure(capsys, *arguments, "--url", "http://127.0.0.1:9", "--resume")
    assert f"contains the run of another server: '{server.url}', not 'http://127.0.0.1:9'" in message


def test_a_resumed_run_scores_only_what_is_missing(folder: Path, monkeypatch: pytest.MonkeyPatch):
    whole = evaluated(DEMO_MODEL, "--data", folder)
    run = Path("evaluation/run-01.jsonl")
    written = run.read_bytes()
    lines = written.splitlines(keepends=True)
    run.write_bytes(b"".join(lines[:3]) + lines[3][:20])
    scored: list[str] = []
    score = scoring._score_query

    def record(one: object, query: object, *rest: object) -> object:
        scored.append(query.id)  # type: ignore[attr-defined]
        return score(one, query, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(scoring, "_score_query", record)

    assert without_times(evaluated(DEMO_MODEL, "--data", folder, "--resume")) == without_times(whole)
    assert scored == ["q3"]
    assert run.read_bytes().startswith(b"".join(lines[:3]))
    assert without_times(lines_of(run)) == without_times([*map(json.loads, lines)])
    run.write_bytes(lines[0][:30])
    assert without_times(evaluated(DEMO_MODEL, "--data", folder, "--resume")) == without_times(whole)
    assert scored == ["q3", "q1", "q2", "q3"]


def test_the_bar_of_a_resumed_run_starts_where_the_work_stands(folder: Path, monkeypatch: pytest.MonkeyPatch):
    bars: list[tuple[object, ...]] = []

    @contextmanager
    def record(*arguments: object) -> Iterator[Callable[[float], None]]:
        bars.append(arguments)
        yield lambda amount: None

    monkeypatch.setattr(scoring, "progress_bar", record)
    evaluated(DEMO_MODEL, "--data", folder)
    run = Path("evaluation/run-01.jsonl")
    run.write_bytes(b"".join(run.read_bytes().splitlines(keepends=True)[:3]))
    evaluated(DEMO_MODEL, "--data", folder, "--resume")

    assert bars == [("demo", 3, 0), ("demo", 3, 2)]


def test_a_complete_run_is_reported_without_loading_the_model(
    folder: Path, tiny_qwen: Tiny, monkeypatch: pytest.MonkeyPatch
):
    whole = evaluated(DEMO_MODEL, "--data", folder)
    monkeypatch.setattr(scoring, "open_spec", None)

    assert evaluated(DEMO_MODEL, "--data", folder, "--resume") == whole


def test_a_system_can_be_added_to_existing_runs(folder: Path, tiny_qwen: Tiny):
    alone = evaluated(DEMO_MODEL, "--data", folder)
    both = evaluated(DEMO_MODEL, tiny_qwen.folder, "--data", folder, "--resume")

    assert means(both)["demo"] == means(alone)["demo"]
    assert "Qwen3-Reranker-tiny" in means(both)


def test_a_killed_run_is_resumed_with_equal_results(tmp_path: Path):
    # More queries than are scored before the signal arrives.
    data = write_lines(tmp_path / "data.jsonl", [list_row(n) for n in range(150)])
    command = ["-m", "onelogit", "evaluate", DEMO_MODEL, "--data", data, "--output", "killed"]
    run = Path("killed/run-01.jsonl")

    with Process(command) as process:
        until(lambda: run.exists() and run.read_bytes().count(b"\n") > 5)
        os.kill(process.pid, signal.SIGKILL)
    left = run.read_bytes()
    whole_lines = left[: left.rindex(b"\n") + 1]
    resumed = evaluated(DEMO_MODEL, "--data", data, "--output", "killed", "--resume")

    assert process.returncode == -signal.SIGKILL
    assert 5 < whole_lines.count(b"\n") < 151
    assert run.read_bytes().startswith(whole_lines)
    assert len(lines_of(run)) == 151
    assert without_times(resumed) == without_times(evaluated(DEMO_MODEL, "--data", data, "--output", "whole"))
    assert without_times(lines_of(run)) == without_times(lines_of("whole/run-01.jsonl"))


def without_times(found: object) -> object:
    """JSON data without the seconds that scoring took."""
    if isinstance(found, dict):
        return {name: without_times(value) for name, value in found.items() if name != "seconds"}
    return [without_times(each) for each in found] if isinstance(found, list) else found


def until(condition: Callable[[], object], timeout_s: float = 60) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


def test_an_interrupt_says_how_to_resume(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(scoring, "_score_query", interrupted)

    assert main(["evaluate", DEMO_MODEL, "--data", str(folder)]) == 130
    assert "run the same command with --resume to continue" in capsys.readouterr().err
    assert main(["evaluate", DEMO_MODEL, "--data", str(folder), "--overwrite"]) == 130
    assert "run the same command with --resume instead of --overwrite to continue" in capsys.readouterr().err
    monkeypatch.undo()


def test_existing_runs_are_overwritten_only_on_request(folder: Path, capsys: pytest.CaptureFixture[str]):
    whole = evaluated(DEMO_MODEL, "--data", folder)
    capsys.readouterr()

    message = failure(capsys, DEMO_MODEL, "--data", folder)
    assert "contains runs already: pass --resume to continue them, --overwrite" in message
    assert "pass only one of them" in failure(capsys, DEMO_MODEL, "--data", folder, "--resume", "--overwrite")
    Path("evaluation/run-01.jsonl").write_text('{"onelogit')
    Path("evaluation/run-02.jsonl").write_text("")
    assert without_times(evaluated(DEMO_MODEL, "--data", folder, "--overwrite")) == without_times(whole)
    assert sorted(path.name for path in Path("evaluation").iterdir()) == [
        "figures.json",
        "per-query.jsonl",
        "run-01.jsonl",
    ]


def test_files_of_other_programs_are_not_deleted(folder: Path, capsys: pytest.CaptureFixture[str]):
    before = {path: path.read_bytes() for path in folder.glob("*.jsonl")}
    (folder / "run-bm25.jsonl").write_text("mine")
    evaluated(DEMO_MODEL, "--data", folder, "--output", folder, "--overwrite")
    assert {path: path.read_bytes() for path in before} == before
    assert (folder / "run-bm25.jsonl").read_text() == "mine"
    (folder / "run-02.jsonl").write_text("mine")
    capsys.readouterr()

    message = failure(capsys, DEMO_MODEL, "--data", folder, "--output", folder, "--overwrite")

    assert "run-02.jsonl was not written by onelogit evaluate; remove it, or name another --output" in message
    assert (folder / "run-01.jsonl").exists()


def test_a_line_of_strange_values_is_not_resumed(folder: Path, capsys: pytest.CaptureFixture[str]):
    evaluated(DEMO_MODEL, "--data", folder)
    capsys.readouterr()
    run = Path("evaluation/run-01.jsonl")
    first, second, *_ = run.read_text("utf-8").splitlines()
    logits = json.loads(second)["logits"]
    harmed = [{"logits": [float("nan"), *logits[1:]]}, {"logits": [float("inf"), *logits[1:]]}, {"cut": "x"}]
    lines = [json.dumps({**json.loads(second), **each}) for each in [*harmed, {"seconds": [1]}, {"fault": {"a": 1}}]]
    for line in [*lines, "[" * 100_000 + "]" * 100_000]:
        run.write_text(f"{first}\n{line}\n", "utf-8")
        message = failure(capsys, DEMO_MODEL, "--data", folder, "--resume")

        assert "run-01.jsonl, line 2, was not written by onelogit evaluate" in message


def test_files_of_other_programs_are_not_resumed(folder: Path, capsys: pytest.CaptureFixture[str]):
    Path("evaluation").mkdir()
    for content in ("mine, without a line's end", "mine\n"):
        Path("evaluation/run-01.jsonl").write_text(content)

        message = failure(capsys, DEMO_MODEL, "--data", folder, "--resume")

        assert re.search("run-01.jsonl(, line 1,)? was not written by onelogit evaluate", message)
        assert Path("evaluation/run-01.jsonl").read_text() == content


def test_existing_runs_survive_if_a_model_is_not_found(folder: Path, capsys: pytest.CaptureFixture[str]):
    evaluated(DEMO_MODEL, "--data", folder)
    written = Path("evaluation/run-01.jsonl").read_bytes()
    capsys.readouterr()

    assert "neither a local folder nor" in failure(capsys, "no-such/model", "--data", folder, "--overwrite")
    assert Path("evaluation/run-01.jsonl").read_bytes() == written


def test_the_report_may_be_in_the_new_output_folder(folder: Path):
    assert main(["evaluate", DEMO_MODEL, "--data", str(folder), "--output", "new", "--report", "new/r.html"]) == 0

    assert Path("new/r.html").is_file()


def change_text(folder: Path) -> None:
    path = folder / "corpus.jsonl"
    path.write_text(path.read_text("utf-8").replace("Bananas", "Plantains"), "utf-8")


def change_label(folder: Path) -> None:
    path = folder / "qrels" / "test.tsv"
    path.write_text(path.read_text("utf-8").replace("q2\td3\t1", "q2\td3\t2"), "utf-8")


@pytest.mark.parametrize("change", [change_text, change_label])
def test_a_run_is_not_resumed_with_other_data(
    change: Callable[[Path], None], folder: Path, capsys: pytest.CaptureFixture[str]
):
    evaluated(DEMO_MODEL, "--data", folder)
    capsys.readouterr()
    change(folder)

    assert "contains the run of other data (texts, labels or candidates)" in failure(
        capsys, DEMO_MODEL, "--data", folder, "--resume"
    )


def test_a_run_is_not_resumed_with_another_model_option_instruction_or_template(
    folder: Path, tiny_qwen: Tiny, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    template = tmp_path / "own.jinja"
    template.write_text((Path(DEMO_MODEL) / "chat_template.jinja").read_text("utf-8"), "utf-8")
    evaluated(DEMO_MODEL, "--data", folder, "--instruction", "Find it.")
    capsys.readouterr()

    def refusal(*arguments: object) -> str:
        return failure(capsys, *arguments, "--data", folder, "--resume")

    same = ["--instruction", "Find it."]
    assert "another instruction: 'Find it.', not 'Find her.'" in refusal(DEMO_MODEL, "--instruction", "Find her.")
    assert "another instruction: 'Find it.', not None" in refusal(DEMO_MODEL)
    assert "another model, or the same model with other options" in refusal(tiny_qwen.folder, *same)
    assert "another model, or the same model with other options" in refusal(DEMO_MODEL, *same, "--max-tokens", 99)
    assert "another template: None, not 'own.jinja@" in refusal(DEMO_MODEL, *same, "--chat-template", template)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda lines: [lines[0], b"{}\n", *lines[1:]], "run-01.jsonl, line 2, was not written by onelogit evaluate"),
        (lambda lines: [b"[]\n", *lines[1:]], "run-01.jsonl, line 1, was not written by onelogit evaluate"),
        (lambda lines: [lines[0].replace(b'"onelogit_run": 1', b'"onelogit_run": 2')], "line 1, was not written"),
        (lambda lines: [lines[0], lines[1].replace(b'"d2"', b'"d9"')], "line 2, was not written"),
        (lambda lines: [lines[0], re.sub(rb'"logits": \[[^,]*,', b'"logits": [', lines[1])], "line 2, was not written"),
        (lambda lines: [lines[0], b"\xff\n"], "line 2, was not written"),
    ],
)
def test_a_run_file_changed_by_another_program_is_refused(
    damage: Callable[[list[bytes]], list[bytes]], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
):
    evaluated(DEMO_MODEL, "--data", folder)
    run = Path("evaluation/run-01.jsonl")
    run.write_bytes(b"".join(damage(run.read_bytes().splitlines(keepends=True))))
    capsys.readouterr()

    assert message in failure(capsys, DEMO_MODEL, "--data", folder, "--resume")


def test_a_second_process_does_not_write_into_the_same_folder(folder: Path, capsys: pytest.CaptureFixture[str]):
    from onelogit.io.outputs import locked

    with locked(Path("evaluation")):
        assert "another process is writing to evaluation" in failure(capsys, DEMO_MODEL, "--data", folder)


def test_two_servers_of_the_same_model_have_different_identities(tiny_qwen: Tiny):
    identities = [
        System(name=url, spec=ModelSpec(str(tiny_qwen.folder), url)).identity("data")
        for url in ("http://a:1", "http://b:1")
    ]

    assert identities[0] != identities[1]


def test_a_server_that_never_answered_leaves_no_run_file(
    folder: Path, reranker: Reranker, tiny_qwen: Tiny, capsys: pytest.CaptureFixture[str]
):
    with serving(FakeServer(reranker=reranker)) as server:
        url = server.url
    arguments = [tiny_qwen.folder, "--data", folder]

    assert "does not answer" in failure(capsys, *arguments, "--url", url)
    assert [*Path("evaluation").iterdir()] == []
    evaluated(*arguments)
