"""`onelogit evaluate`, from the command line to its files: what it compares, what it writes, and how it goes on."""

import json
import logging
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from onelogit import DEMO_MODEL, Reranker
from onelogit.cli.main import main
from onelogit.evaluation import scoring
from onelogit.evaluation.systems import System, systems
from onelogit.io import progress
from onelogit.options import DEMO_NOTE
from support.judged_data import list_row, write_beir, write_lines, write_run
from support.prepared import Process
from support.servers import FakeServer, serving
from support.tiny import Tiny

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    fields = {"q1": {"language": "en", "ask": "Find China."}, "q2": {"language": "de", "ask": "Find fruit."}}
    return write_beir(tmp_path / "data", fields={**fields, "q3": {"language": "en", "ask": "Find Italy."}})


def evaluated(*arguments: object) -> dict[str, object]:
    """The figures that a command writes."""
    given = [str(argument) for argument in arguments]
    assert main(["evaluate", *given]) == 0
    folder = given[given.index("--output") + 1] if "--output" in given else "evaluation"
    found: dict[str, object] = json.loads(Path(folder, "figures.json").read_text("utf-8"))
    return found


def failure(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line of an error."""
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


def test_a_model_is_compared_with_the_first_stage_and_random_order(folder: Path, capsys: pytest.CaptureFixture[str]):
    run = write_run(folder / "run", {"q1": ["d2", "d3", "d1"], "q2": ["d4", "d3"], "q3": ["d6", "d2"]})

    found = evaluated(DEMO_MODEL, "--data", folder, "--run", run)

    with Reranker.load(DEMO_MODEL) as reranker:
        best = reranker.rank("What is the capital of China?", [CORPUS_OF[id] for id in ("d2", "d3", "d1")])
    scores = means(found)
    assert [*scores] == ["first stage", "random order", "demo"]
    assert scores["first stage"]["MRR@10"] == pytest.approx((1 / 3 + 1 / 2 + 1) / 3)
    assert scores["first stage"]["recall@10"] == pytest.approx((1 / 2 + 1 + 1) / 3)
    assert found["candidates_recall"] == pytest.approx((1 / 2 + 1 + 1) / 3)
    first_line = lines_of("evaluation/per-query.jsonl")[0]
    assert first_line["measured"]["demo"]["MRR@10"] == pytest.approx(  # type: ignore[index]
        1 / (1 + [ranked.index for ranked in best].index(2))
    )
    difference = found["entries"][2]["differences_from_first_stage"]["MRR@10"]  # type: ignore[index]
    assert difference["mean"] == pytest.approx(scores["demo"]["MRR@10"] - scores["first stage"]["MRR@10"])
    assert difference["interval_95"][0] <= difference["mean"] <= difference["interval_95"][1]
    printed = capsys.readouterr().out
    assert "data: 3 queries, candidates from the run run" in printed
    assert "The demo model is there to try commands with: its order and its figures mean nothing." in printed
    assert "3 queries say little of others" in printed
    assert "no probability" in printed


CORPUS_OF = {
    "d1": "The capital of China is Beijing.",
    "d2": "Paris is the capital of France.",
    "d3": "Bananas are yellow, and rich in potassium.",
}


def test_the_runs_hold_the_logits_that_the_reranker_gives(folder: Path):
    evaluated(DEMO_MODEL, "--data", folder)

    head, *lines = lines_of("evaluation/run-01.jsonl")
    assert head["onelogit_run"] == 1
    assert str(head["model"]).startswith("demo@")
    assert head["card"]["licence"] == "cc-by-sa-4.0"  # type: ignore[index]
    texts = {row["_id"]: row["text"] for row in lines_of(folder / "corpus.jsonl")}
    queries = {row["_id"]: row["text"] for row in lines_of(folder / "queries.jsonl")}
    with Reranker.load(DEMO_MODEL) as reranker:
        for line in lines:
            documents = [texts[id] for id in line["documents"]]  # type: ignore[attr-defined]
            assert line["logits"] == reranker.logits(queries[line["query"]], documents)  # type: ignore[arg-type]
    assert len(lines) == 3


def test_models_templates_and_instructions_are_all_compared_in_one_table(
    folder: Path, tiny_qwen: Tiny, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    template = tmp_path / "short.jinja"
    template.write_text("{{ messages[0].content }} {{ messages[-2].content }} {{ messages[-1].content }}", "utf-8")
    asked = ["--instruction", "default", "--instruction", "", "--instruction", "@ask"]

    found = evaluated(
        *(DEMO_MODEL, tiny_qwen.folder, "--data", folder, *asked, "--chat-template", template, "--pairwise"),
        *("-k", 1, 5, "--slice", "language", "--plot", "plot.png"),
    )

    names = [*means(found)]
    assert len(names) == 2 + 2 * 3
    assert names[2:5] == ["demo · own instruction", "demo · no instruction", "demo · “@ask”"]
    assert names[5].startswith("Qwen3-Reranker-tiny · ")
    assert found["measures"] == ["nDCG@1", "MRR@1", "recall@1", "nDCG@5", "MRR@5", "recall@5", "MAP"]
    assert [(part["name"], part["queries"]) for part in found["slices"]] == [("de", 1), ("en", 2)]  # type: ignore[attr-defined]
    pairings = found["pairings"]
    assert len(pairings) == 2 * 3  # type: ignore[arg-type]
    assert Path("plot.png").read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    assert "nDCG@1 by language" in printed
    assert max(map(len, printed.splitlines())) <= 160
    assert re.search(
        r"order +┃ nDCG@1 ┃ against the first stage +┃ MRR@1 ┃ recall@1 ┃ +MAP", re.sub(" +", " ", printed)
    )
    assert re.search(r"order +┃ nDCG@5 ┃ against the first stage +┃ MRR@5 ┃ recall@5 ┃\n", re.sub(" +", " ", printed))
    assert "Kendall's tau" in printed
    runs = [lines_of(f"evaluation/run-0{number}.jsonl") for number in range(1, 7)]
    assert len({json.dumps(run[1:]) for run in runs}) == 6
    assert str(runs[0][0]["template"]).startswith("short.jinja@")


@pytest.mark.parametrize("cutoffs", [(10,), (100,), (1000,)])
def test_eighty_columns_are_enough_for_every_figure(
    cutoffs: tuple[int, ...], folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("COLUMNS", "80")
    two = ["--instruction", "default", "--instruction", "Find the documents that answer this question, and no others."]

    found = evaluated(DEMO_MODEL, "--data", folder, *two, "-k", *cutoffs)

    printed = capsys.readouterr().out.splitlines()
    rows = [line for line in printed if line.startswith("│ ")]
    assert max(map(len, (line for line in printed if line[:1] in "┏┃│└"))) <= 80
    assert all(line.endswith("│") for line in rows)
    figures = re.findall(r" (\d\.\d{3}) ", " ".join(rows))
    assert figures == [f"{value:.3f}" for means_of_one in means(found).values() for value in means_of_one.values()]


def test_no_two_contestants_have_one_name(tmp_path: Path):
    long = "Find the documents that answer the question, and "
    models = ["some/model", "other/model", "a/first stage"]
    made = systems(models, ["default", "", long + "a", long + "b"], [], lambda model, template: {})
    (alone,) = systems(["a/random order"], [], [], lambda model, template: {})

    names = [one.name for one in made]
    assert len({*names, "first stage", "random order"}) == 12 + 2
    assert names[0] == "some/model · own instruction"
    assert names[3] == f"{names[2]} (2)"
    assert alone.name == "random order (2)"


def test_an_instruction_from_a_field_is_each_querys_own(folder: Path):
    evaluated(DEMO_MODEL, "--data", folder, "--instruction", "@ask", "--candidates", 2)

    texts = {row["_id"]: row["text"] for row in lines_of(folder / "corpus.jsonl")}
    line = lines_of("evaluation/run-01.jsonl")[1]
    with Reranker.load(DEMO_MODEL) as reranker:
        documents = [texts[id] for id in line["documents"]]  # type: ignore[attr-defined]
        assert line["logits"] == reranker.logits("What is the capital of China?", documents, "Find China.")


def test_changed_labels_give_p_mrr(folder: Path, tmp_path: Path):
    run = write_run(tmp_path / "run", {"q1": ["d1", "d2", "d5"], "q2": ["d3", "d4"]})
    changed = tmp_path / "changed.tsv"
    changed.write_text("q1\td1\t0\nq1\td5\t1\n", "utf-8")
    two = ["--instruction", "default", "--instruction", "Find Paris, France.", "--pairwise"]

    (pairing,) = evaluated(DEMO_MODEL, "--data", folder, "--run", run, "--changed-qrels", changed, *two)["pairings"]  # type: ignore[misc]

    ranks = []
    for number in (1, 2):
        logits = lines_of(f"evaluation/run-0{number}.jsonl")[1]["logits"]
        ranks.append(1 + sum(logit > logits[0] for logit in logits))  # type: ignore[index, attr-defined]
    before, after = ranks
    assert pairing["changed_count"] == 1
    assert pairing["p_mrr"]["mean"] == pytest.approx(after / before - 1 if before >= after else 1 - before / after)


def test_p_mrr_is_of_the_first_instruction_and_another_one(tmp_path: Path):
    data = write_lines(tmp_path / "x.jsonl", [list_row(n, changed_labels=[1, 0, 0]) for n in range(3)])
    template = tmp_path / "own.jinja"
    template.write_text((Path(DEMO_MODEL) / "chat_template.jinja").read_text("utf-8"), "utf-8")
    shorter = tmp_path / "short.jinja"
    shorter.write_text("{{ messages[0].content }} {{ messages[-2].content }} {{ messages[-1].content }}", "utf-8")
    three = ["--instruction", "default", "--instruction", "a", "--instruction", "b", "--pairwise"]

    of_instructions = evaluated(DEMO_MODEL, "--data", data, *three)["pairings"]
    two = ["--chat-template", template, "--chat-template", shorter, "--pairwise", "--output", "templates"]
    (of_templates,) = evaluated(DEMO_MODEL, "--data", data, *two)["pairings"]  # type: ignore[misc]

    assert [each["changed_count"] for each in of_instructions] == [3, 3, 0]  # type: ignore[attr-defined]
    assert [each["p_mrr"] is None for each in of_instructions] == [False, False, True]  # type: ignore[attr-defined]
    assert of_templates["p_mrr"] is None


def test_lists_are_ranked_against_their_own_order(tmp_path: Path):
    data = write_lines(tmp_path / "lists.jsonl", [list_row(n, labels=[1, 0, 0]) for n in range(4)])

    found = evaluated(DEMO_MODEL, "--data", data, "-k", 1)

    assert means(found)["first stage"]["MRR@1"] == 1
    assert means(found)["demo"]["MRR@1"] == 0
    assert found["entries"][2]["differences_from_first_stage"]["MRR@1"] == {"mean": -1, "interval_95": [-1, -1]}  # type: ignore[index]


def test_a_servers_logits_are_those_of_its_model(folder: Path, reranker: Reranker, tiny_qwen: Tiny):
    with serving(FakeServer(reranker=reranker)) as server:
        served = evaluated(tiny_qwen.folder, "--url", server.url, "--data", folder, "--report", "served.html")
        evaluated(tiny_qwen.folder, "--data", folder, "--output", "local")
        asked = ["--protocol", "rerank", "--template", "server", "--output", "texts"]
        found = evaluated(server.url, "--data", folder, *asked)

    lines = [lines_of(f"{name}/run-01.jsonl")[1:] for name in ("evaluation", "local", "texts")]
    for query in range(3):
        mine = lines[1][query]["logits"]
        assert lines[0][query]["logits"] == pytest.approx(mine, abs=1e-4)
        assert lines[2][query]["logits"] == pytest.approx(mine, abs=1e-4)
    assert found["entries"][2]["recipe"] is None  # type: ignore[index]
    assert served["entries"][2]["server"] == server.url  # type: ignore[index]
    assert f"<dt>server</dt><dd>{server.url}</dd>" in Path("served.html").read_text("utf-8")
    assert served["entries"][2]["name"] == "Qwen3-Reranker-tiny"  # type: ignore[index]


def test_a_template_is_for_prompts_that_are_written_here_whoever_scores(
    folder: Path, reranker: Reranker, tiny_qwen: Tiny, tmp_path: Path
):
    template = tmp_path / "short.jinja"
    template.write_text("{{ messages[0].content }} {{ messages[-2].content }} {{ messages[-1].content }}", "utf-8")
    with serving(FakeServer(reranker=reranker)) as server:
        asked = ["--data", folder, "--chat-template", template]
        evaluated(tiny_qwen.folder, *asked, "--url", server.url)
        evaluated(tiny_qwen.folder, *asked, "--output", "local")

    served, local = (lines_of(f"{name}/run-01.jsonl")[1:] for name in ("evaluation", "local"))
    for mine, theirs in zip(local, served, strict=True):
        assert theirs["logits"] == pytest.approx(mine["logits"], abs=1e-4)


def test_servers_and_models_of_this_machine_take_their_own_of_the_options(
    folder: Path, reranker: Reranker, tiny_qwen: Tiny
):
    own = ["--dtype", "float32", "--protocol", "rerank", "--template", "server"]
    with serving(FakeServer(reranker=reranker)) as server:
        evaluated(tiny_qwen.folder, server.url, "--data", folder, *own)

    local, served = (lines_of(f"evaluation/run-0{number}.jsonl")[1:] for number in (1, 2))
    for mine, theirs in zip(local, served, strict=True):
        assert theirs["logits"] == pytest.approx(mine["logits"], abs=1e-4)


def test_a_server_that_never_answered_leaves_no_run(
    folder: Path, reranker: Reranker, tiny_qwen: Tiny, capsys: pytest.CaptureFixture[str]
):
    with serving(FakeServer(reranker=reranker)) as server:
        url = server.url
    asked = [tiny_qwen.folder, "--data", folder]

    assert "does not answer" in failure(capsys, *asked, "--url", url)
    assert [*Path("evaluation").iterdir()] == []
    evaluated(*asked)


def test_another_server_is_not_gone_on_with(
    folder: Path, reranker: Reranker, tiny_qwen: Tiny, capsys: pytest.CaptureFixture[str]
):
    asked = [tiny_qwen.folder, "--data", folder]
    with serving(FakeServer(reranker=reranker)) as server:
        evaluated(*asked, "--url", server.url)
    capsys.readouterr()

    said = failure(capsys, *asked, "--url", "http://127.0.0.1:9", "--resume")
    assert f"holds the run of another server: '{server.url}', not 'http://127.0.0.1:9'" in said


def test_json_is_all_that_is_printed_and_what_stands_in_the_file(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["evaluate", DEMO_MODEL, "--data", str(folder), "--json"]) == 0

    told = json.loads(capsys.readouterr().out)
    assert told == json.loads(Path("evaluation/figures.json").read_text("utf-8"))
    assert told["notes"][0] == DEMO_NOTE


def test_it_goes_on_where_it_stood_and_scores_nothing_again(folder: Path, monkeypatch: pytest.MonkeyPatch):
    whole = evaluated(DEMO_MODEL, "--data", folder)
    run = Path("evaluation/run-01.jsonl")
    written = run.read_bytes()
    torn = written.splitlines(keepends=True)
    run.write_bytes(b"".join(torn[:3]) + torn[3][:20])
    scored: list[str] = []
    score = scoring._scored

    def noted(one: object, query: object, *rest: object) -> object:
        scored.append(query.id)  # type: ignore[attr-defined]
        return score(one, query, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(scoring, "_scored", noted)

    assert evaluated(DEMO_MODEL, "--data", folder, "--resume") == whole
    assert scored == ["q3"]
    assert run.read_bytes() == written
    run.write_bytes(torn[0][:30])
    assert evaluated(DEMO_MODEL, "--data", folder, "--resume") == whole
    assert scored == ["q3", "q1", "q2", "q3"]


def test_a_run_that_is_there_is_reported_without_a_model(
    folder: Path, tiny_qwen: Tiny, monkeypatch: pytest.MonkeyPatch
):
    whole = evaluated(DEMO_MODEL, "--data", folder)
    monkeypatch.setattr(scoring, "open_reranker", None)

    assert evaluated(DEMO_MODEL, "--data", folder, "--resume") == whole


def test_another_contestant_joins_those_that_are_there(folder: Path, tiny_qwen: Tiny):
    alone = evaluated(DEMO_MODEL, "--data", folder)
    both = evaluated(DEMO_MODEL, tiny_qwen.folder, "--data", folder, "--resume")

    assert means(both)["demo"] == means(alone)["demo"]
    assert "Qwen3-Reranker-tiny" in means(both)


def test_a_run_that_was_killed_goes_on_with_equal_results(tmp_path: Path):
    # More than are scored before the signal comes.
    data = write_lines(tmp_path / "lists.jsonl", [list_row(n) for n in range(150)])
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
    assert resumed == evaluated(DEMO_MODEL, "--data", data, "--output", "whole")
    assert run.read_bytes() == Path("whole/run-01.jsonl").read_bytes()


def until(condition: Callable[[], object], timeout_s: float = 60) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


def test_progress_is_shown_on_a_terminal_and_nowhere_else(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    evaluated(DEMO_MODEL, "--data", folder, "--instruction", "[/nonsense]", "--instruction", "b")
    assert capsys.readouterr().err == ""

    terminal = StringIO()
    monkeypatch.setattr(progress, "is_shown", lambda: True)
    monkeypatch.setattr(
        progress, "Console", lambda **_: Console(file=terminal, force_terminal=True, width=120, _environ={})
    )
    evaluated(DEMO_MODEL, "--data", folder, "--instruction", "[/nonsense]", "--instruction", "b", "--overwrite")
    assert "“[/nonsense]”" in terminal.getvalue()
    assert "100%" in terminal.getvalue()
    assert f"loading {DEMO_MODEL}" in re.sub(r"\x1b\[[\d;?]*[a-zA-Z]|\s*\n", "", terminal.getvalue())


def test_an_interrupt_says_how_to_go_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(scoring, "_scored", interrupted)

    assert main(["evaluate", DEMO_MODEL, "--data", str(folder)]) == 130
    assert "the same command with --resume goes on" in capsys.readouterr().err
    assert main(["evaluate", DEMO_MODEL, "--data", str(folder), "--overwrite"]) == 130
    assert "the same command with --resume in place of --overwrite goes on" in capsys.readouterr().err
    monkeypatch.undo()


def test_what_is_there_is_not_written_over_unless_it_is_said(folder: Path, capsys: pytest.CaptureFixture[str]):
    whole = evaluated(DEMO_MODEL, "--data", folder)
    capsys.readouterr()

    said = failure(capsys, DEMO_MODEL, "--data", folder)
    assert "holds runs already: pass --resume to go on with them, --overwrite" in said
    assert "pass one of them" in failure(capsys, DEMO_MODEL, "--data", folder, "--resume", "--overwrite")
    Path("evaluation/run-01.jsonl").write_text('{"onelogit')
    Path("evaluation/run-02.jsonl").write_text("")
    assert evaluated(DEMO_MODEL, "--data", folder, "--overwrite") == whole
    assert sorted(path.name for path in Path("evaluation").iterdir()) == [
        "figures.json",
        "per-query.jsonl",
        "run-01.jsonl",
    ]


def test_what_others_wrote_is_not_removed(folder: Path, capsys: pytest.CaptureFixture[str]):
    before = {path: path.read_bytes() for path in folder.glob("*.jsonl")}
    (folder / "run-bm25.jsonl").write_text("mine")
    evaluated(DEMO_MODEL, "--data", folder, "--output", folder, "--overwrite")
    assert {path: path.read_bytes() for path in before} == before
    assert (folder / "run-bm25.jsonl").read_text() == "mine"
    (folder / "run-02.jsonl").write_text("mine")
    capsys.readouterr()

    said = failure(capsys, DEMO_MODEL, "--data", folder, "--output", folder, "--overwrite")

    assert "run-02.jsonl was not written by onelogit evaluate; remove it, or name another --output" in said
    assert (folder / "run-01.jsonl").exists()


def test_what_others_wrote_is_not_gone_on_with_however_it_ends(folder: Path, capsys: pytest.CaptureFixture[str]):
    Path("evaluation").mkdir()
    for content in ("mine, without a line's end", "mine\n"):
        Path("evaluation/run-01.jsonl").write_text(content)

        said = failure(capsys, DEMO_MODEL, "--data", folder, "--resume")

        assert re.search("run-01.jsonl(, line 1,)? was not written by onelogit evaluate", said)
        assert Path("evaluation/run-01.jsonl").read_text() == content


def test_a_model_that_is_not_found_costs_no_runs_that_are_there(folder: Path, capsys: pytest.CaptureFixture[str]):
    evaluated(DEMO_MODEL, "--data", folder)
    written = Path("evaluation/run-01.jsonl").read_bytes()
    capsys.readouterr()

    assert "neither a folder here nor" in failure(capsys, "no-such/model", "--data", folder, "--overwrite")
    assert Path("evaluation/run-01.jsonl").read_bytes() == written


def test_files_may_be_written_into_the_folder_that_is_made(folder: Path):
    assert main(["evaluate", DEMO_MODEL, "--data", str(folder), "--output", "new", "--report", "new/r.html"]) == 0

    assert Path("new/r.html").is_file()


def change_text(folder: Path) -> None:
    path = folder / "corpus.jsonl"
    path.write_text(path.read_text("utf-8").replace("Bananas", "Plantains"), "utf-8")


def change_label(folder: Path) -> None:
    path = folder / "qrels" / "test.tsv"
    path.write_text(path.read_text("utf-8").replace("q2\td3\t1", "q2\td3\t2"), "utf-8")


@pytest.mark.parametrize("change", [change_text, change_label])
def test_other_data_are_not_gone_on_with(
    change: Callable[[Path], None], folder: Path, capsys: pytest.CaptureFixture[str]
):
    evaluated(DEMO_MODEL, "--data", folder)
    capsys.readouterr()
    change(folder)

    assert "holds the run of other data (texts, labels or candidates)" in failure(
        capsys, DEMO_MODEL, "--data", folder, "--resume"
    )


def test_another_model_option_instruction_or_template_is_not_gone_on_with(
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
    assert "another model, or the same with other options" in refusal(tiny_qwen.folder, *same)
    assert "another model, or the same with other options" in refusal(DEMO_MODEL, *same, "--max-tokens", 99)
    assert "another template: None, not 'own.jinja@" in refusal(DEMO_MODEL, *same, "--chat-template", template)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda lines: [lines[0], b"{}\n", *lines[1:]], "run-01.jsonl, line 2, was not written by onelogit evaluate"),
        (lambda lines: [b"[]\n", *lines[1:]], "run-01.jsonl, line 1, was not written by onelogit evaluate"),
        (lambda lines: [lines[0].replace(b'"onelogit_run": 1', b'"onelogit_run": 2')], "line 1, was not written"),
        (lambda lines: [lines[0], lines[1].replace(b'"d2"', b'"d9"')], "line 2, was not written"),
        (lambda lines: [lines[0], re.sub(rb'"logits": \[[^,]*,', b'"logits": [', lines[1])], "line 2, was not written"),
        (lambda lines: [lines[0], b"\xff\n"], "line 2, was not written"),
    ],
)
def test_a_run_that_something_else_wrote_to_is_not_believed(
    damage: Callable[[list[bytes]], list[bytes]], said: str, folder: Path, capsys: pytest.CaptureFixture[str]
):
    evaluated(DEMO_MODEL, "--data", folder)
    run = Path("evaluation/run-01.jsonl")
    run.write_bytes(b"".join(damage(run.read_bytes().splitlines(keepends=True))))
    capsys.readouterr()

    assert said in failure(capsys, DEMO_MODEL, "--data", folder, "--resume")


def test_a_query_that_cannot_be_scored_is_an_error_or_left_out_for_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    rows = [list_row(0), list_row(1, query="long " * 5000), list_row(2)]
    data = write_lines(tmp_path / "lists.jsonl", rows)

    said = failure(capsys, DEMO_MODEL, "--data", data)
    assert "demo, query '2': " in said
    assert "--skip-bad" in said
    found = evaluated(DEMO_MODEL, "--data", data, "--skip-bad", "--resume")
    assert found["queries"] == 2
    assert found["skipped"]["queries that a model could not score"]["count"] == 1  # type: ignore[index]
    assert "Passed over (--skip-bad): queries that a model could not score, 1; the first" in capsys.readouterr().out
    assert evaluated(DEMO_MODEL, "--data", data, "--skip-bad", "--resume") == found
    capsys.readouterr()
    assert "demo, query '2': " in failure(capsys, DEMO_MODEL, "--data", data, "--resume")
    write_lines(data, rows[1:2])
    assert "no query that every model could score" in failure(
        capsys, DEMO_MODEL, "--data", data, "--skip-bad", "--overwrite"
    )


def test_a_query_that_one_contestant_cannot_score_is_left_out_for_the_others_too(tmp_path: Path):
    rows = [list_row(n, ask="long " * 5000 if n == 1 else "Find it.") for n in range(3)]
    two = ["--instruction", "default", "--instruction", "@ask"]

    found = evaluated(DEMO_MODEL, "--data", write_lines(tmp_path / "x.jsonl", rows), *two, "--skip-bad", "--pairwise")

    assert found["queries"] == found["pairings"][0]["query_count"] == 2  # type: ignore[index]
    assert [line["query"] for line in lines_of("evaluation/per-query.jsonl")] == ["1", "3"]
    assert len(lines_of("evaluation/run-01.jsonl")) == 4


def test_documents_that_were_cut_are_counted_not_warned_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
):
    data = write_lines(tmp_path / "x.jsonl", [list_row(n, documents=["word " * 999, "b", "c"]) for n in range(3)])

    with caplog.at_level(logging.WARNING):
        found = evaluated(DEMO_MODEL, "--data", data, "--max-tokens", 200)

    assert found["entries"][2]["documents_cut"] == 3  # type: ignore[index]
    assert "demo: 3 documents were cut at their end to fit." in capsys.readouterr().out
    assert not caplog.records


def test_what_was_passed_over_is_told(folder: Path, capsys: pytest.CaptureFixture[str]):
    for name, line in {"corpus.jsonl": "{", "qrels/test.tsv": "q1\td9\t1"}.items():
        with (folder / name).open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    found = evaluated(DEMO_MODEL, "--data", folder, "--skip-bad")

    assert {kind: each["count"] for kind, each in found["skipped"].items()} == {"documents": 1, "judgements": 1}  # type: ignore[attr-defined]
    printed = capsys.readouterr().out
    assert f"judgements, 1; the first is {folder}/qrels/test.tsv, line 7: the document 'd9' is not in the" in printed


def test_queries_without_candidates_count_as_nothing(folder: Path, capsys: pytest.CaptureFixture[str]):
    run = write_run(folder / "run", {"q1": ["d1"]})

    found = evaluated(DEMO_MODEL, "--data", folder, "--run", run)

    assert means(found)["demo"]["MRR@10"] == pytest.approx(1 / 3)
    assert found["queries_without_candidates"] == 2
    assert "The first stage found nothing for 2 of 3 queries" in capsys.readouterr().out


def test_empty_documents_and_a_single_query_are_ranked(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    data = write_lines(tmp_path / "x.jsonl", [list_row(documents=["", "", "x"], labels=[0, 0, 1])])

    found = evaluated(DEMO_MODEL, "--data", data, "--slice", "length", "--report", "r.html", "--plot", "p.svg")

    assert found["entries"][2]["means"]["MAP"]["interval_95"] is None  # type: ignore[index]
    assert "One query has no interval" in capsys.readouterr().out
    assert Path("p.svg").read_text("utf-8").startswith("<?xml")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--data", "nowhere"], "there is no nowhere: name a folder in BEIR form, or a JSONL file"),
        (["--data", "data", "-k", "0"], "-k must be an integer of at least 1, not 0"),
        (["--data", "data", "--candidates", "0"], "--candidates must be an integer of at least 1"),
        (["--data", "data", "--seed", "-1"], "--seed must be an integer of at least 0"),
        (["--data", "data", "--plot", "plot.txt"], "--plot plot.txt must end in .png, .svg, .pdf"),
        (["--data", "data", "--plot", "nowhere/x.png"], "--plot nowhere/x.png cannot be written: name a file in a"),
        (["--data", "data", "--report", "data"], "--report data cannot be written"),
        (["--data", "data", "--output", "data/corpus.jsonl"], "data/corpus.jsonl cannot be written"),
        (["--data", "data/corpus.jsonl", "--report", "data/../data/corpus.jsonl"], "would be written over --data"),
        (
            ["--data", "per-query.jsonl", "--output", "."],
            "the per-query.jsonl of --output would be written over --data",
        ),
        (["--data", "data", "--run", "run", "--report", "run"], "--report would be written over --run, run; name"),
        (["--data", "data", "--plot", "x.svg", "--report", "./x.svg"], "--report would be written over --plot, x.svg"),
        (["--data", "data", "--slice", "tongue"], "no query has the field 'tongue'; there are ask, language, length"),
        (["--data", "data", "--instruction", "@tongue"], "the query 'q1' has no field 'tongue'"),
        (["--data", "data", "--pairwise"], "--pairwise compares two instructions or templates of a model"),
        (["--data", "data", "--instruction", "a", "--instruction", "a"], "is named twice; leave one out"),
        (["--data", "data", "--chat-template", "nowhere.jinja"], "the chat template nowhere.jinja cannot be read"),
        (["--data", "data", "--run", "nowhere"], "nowhere cannot be read: No such file"),
        (["--data", "data/queries.jsonl", "--split", "test"], "--split belongs to a folder in BEIR form"),
        (["--data", "data/corpus.jsonl"], 'line 1: "documents" must be a list'),
        (["no-such/model", "--data", "data"], "neither a folder here nor found on the hub"),
        (["no-such/model", "--data", "data", "--revision", "v1"], "--revision is of one model"),
        (["no-such/model", "--data", "data", "--url", "http://127.0.0.1:1"], "--url is of one model"),
        (["--data", "data", "--template", "server"], "'template' is no option of a local model's; give a url, too"),
        (["http://127.0.0.1:1", "--data", "data"], "to write prompts here, the model must be known"),
        (
            ["http://127.0.0.1:1", "--data", "data", "--chat-template", "data/corpus.jsonl"],
            "--chat-template is for prompts that are written here: name the model, too, and the server as --url",
        ),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    arguments: list[str], said: str, folder: Path, capsys: pytest.CaptureFixture[str]
):
    assert said in failure(capsys, DEMO_MODEL, *arguments)


@pytest.mark.parametrize("arguments", [["--slice", "tongue"], ["--pairwise"]])
def test_what_cannot_be_compared_is_refused_before_anything_is_scored(
    arguments: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
):
    failure(capsys, DEMO_MODEL, "--data", folder, *arguments)

    assert not Path("evaluation/run-01.jsonl").exists()


@pytest.mark.parametrize(
    ("package", "extra"), [("ir_measures", "evaluate"), ("scipy", "evaluate"), ("bm25s", "evaluate")]
)
def test_a_package_that_is_missing_is_named_with_its_extra(
    package: str, extra: str, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("onelogit.errors.find_spec", lambda name: None if name == package else object())
    monkeypatch.setitem(sys.modules, package, None)

    assert f"pip install 'onelogit[{extra}]'" in failure(capsys, DEMO_MODEL, "--data", folder)


def test_a_second_process_does_not_write_into_the_same_folder(folder: Path, capsys: pytest.CaptureFixture[str]):
    from onelogit.io.outputs import locked

    with locked(Path("evaluation")):
        assert "another process is writing to evaluation" in failure(capsys, DEMO_MODEL, "--data", folder)


def test_the_korean_and_english_example_runs_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    program = ROOT / "examples" / "instructions.py"
    names: dict[str, object] = {"__name__": "example", "__file__": str(program)}
    exec(compile(program.read_text("utf-8"), str(program), "exec"), names)

    assert names["main"]() == 0  # type: ignore[operator]

    printed = capsys.readouterr().out
    assert printed.startswith("The results of the demo model are meaningless.")
    assert "nDCG@3 by language" in printed
    figures = json.loads(Path("instructions/figures.json").read_text("utf-8"))
    assert [part["name"] for part in figures["slices"]] == ["en", "ko", "ko-en"]
    assert figures["pairings"][0]["changed_count"] == 12
    assert figures["queries"] == 12
    page = Path("instructions/report.html").read_text("utf-8")
    assert "질문에 답하는 문서를 찾으시오" in page
    assert "Only documents written in English count." in page
    shutil.rmtree("instructions")


def test_another_server_of_the_same_model_is_another_contestant(tiny_qwen: Tiny):
    identities = [
        System(name=url, model=url, options={"model": str(tiny_qwen.folder)}).identity("data")
        for url in ("http://a:1", "http://b:1")
    ]

    assert identities[0] != identities[1]
