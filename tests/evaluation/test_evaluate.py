"""`onelogit evaluate`: the systems that it compares, and the results that it prints and writes."""

import json
import re
import shutil
from io import StringIO
from itertools import combinations
from pathlib import Path

import pytest
from rich.console import Console

from onelogit import DEMO_MODEL, ModelSpec, Reranker
from onelogit.cli.main import main
from onelogit.evaluation.bootstrap import estimate_means
from onelogit.evaluation.systems import build_systems
from onelogit.io import progress
from onelogit.options import DEMO_NOTE
from support.evaluate_command import evaluated, failure, lines_of, means
from support.evaluation_data import CORPUS, list_row, write_lines, write_run
from support.servers import FakeServer, serving
from support.tiny import Tiny

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.usefixtures("in_empty_folder")


def test_a_model_is_compared_with_the_first_stage_and_random_order(folder: Path, capsys: pytest.CaptureFixture[str]):
    run = write_run(folder / "run", {"q1": ["d2", "d3", "d1"], "q2": ["d4", "d3"], "q3": ["d6", "d2"]})

    results = evaluated(DEMO_MODEL, "--data", folder, "--run", run)

    with Reranker.load(DEMO_MODEL) as reranker:
        best = reranker.rank("What is the capital of China?", [CORPUS[id] for id in ("d2", "d3", "d1")])
    scores = means(results)
    assert [*scores] == ["first stage", "random order", "demo"]
    assert scores["first stage"]["MRR@10"] == pytest.approx((1 / 3 + 1 / 2 + 1) / 3)
    assert scores["first stage"]["recall@10"] == pytest.approx((1 / 2 + 1 + 1) / 3)
    assert results["candidates_recall"] == pytest.approx((1 / 2 + 1 + 1) / 3)
    first_line = lines_of("evaluation/per-query.jsonl")[0]
    assert first_line["measured"]["demo"]["MRR@10"] == pytest.approx(  # type: ignore[index]
        1 / (1 + [ranked.index for ranked in best].index(2))
    )
    difference = results["entries"][2]["differences_from_first_stage"]["MRR@10"]  # type: ignore[index]
    assert difference["mean"] == pytest.approx(scores["demo"]["MRR@10"] - scores["first stage"]["MRR@10"])
    assert difference["interval_95"][0] <= difference["mean"] <= difference["interval_95"][1]
    printed = capsys.readouterr().out
    assert "data: 3 queries, candidates from the run run" in printed
    assert DEMO_NOTE.partition(".")[0] in printed
    assert "3 queries say little about other queries" in printed
    assert "not a probability" in printed


def test_run_files_contain_the_logits_of_the_reranker(folder: Path):
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
    arguments = ["--instruction", "default", "--instruction", "", "--instruction", "@ask"]

    results = evaluated(
        *(DEMO_MODEL, tiny_qwen.folder, "--data", folder, *arguments, "--chat-template", template, "--pairwise"),
        *("-k", 1, 5, "--slice", "language", "--plot", "plot.png"),
    )

    names = [*means(results)]
    assert len(names) == 2 + 2 * 3
    assert names[2:5] == ["demo · default instruction", "demo · no instruction", "demo · “@ask”"]
    assert names[5].startswith("Qwen3-Reranker-tiny · ")
    assert results["measures"] == ["nDCG@1", "MRR@1", "recall@1", "nDCG@5", "MRR@5", "recall@5", "MAP"]
    assert [(part["name"], part["queries"]) for part in results["slices"]] == [("de", 1), ("en", 2)]  # type: ignore[attr-defined]
    pairings = results["pairings"]
    assert len(pairings) == 2 * 3  # type: ignore[arg-type]
    assert Path("plot.png").read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    assert "nDCG@1 by language" in printed
    assert max(map(len, printed.splitlines())) <= 160
    headings = [" ".join(line.split()) for line in printed.splitlines()]
    assert "order nDCG@1 against the first stage MRR@1 recall@1 MAP" in headings
    assert "order nDCG@5 against the first stage MRR@5 recall@5" in headings
    assert "Kendall's tau" in printed
    runs = [lines_of(f"evaluation/run-0{number}.jsonl") for number in range(1, 7)]
    assert len({json.dumps(run[1:]) for run in runs}) == 6
    assert str(runs[0][0]["template"]).startswith("short.jinja@")


@pytest.mark.parametrize("cutoffs", [(10,), (100,), (1000,)])
def test_all_numbers_fit_in_eighty_columns(
    cutoffs: tuple[int, ...], folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("COLUMNS", "80")
    long = "Find the documents that answer this question, and no others."
    options = ["--instruction", "default", "--instruction", long]

    results = evaluated(DEMO_MODEL, "--data", folder, *options, "-k", *cutoffs)

    table = capsys.readouterr().out.partition("in brackets")[0]
    assert max(map(len, table.splitlines())) <= 80
    numbers = re.findall(r" (\d\.\d{3}) ", table)
    assert sorted(numbers) == sorted(f"{value:.3f}" for row in means(results).values() for value in row.values())


def test_all_systems_have_different_names(tmp_path: Path):
    long = "Find the documents that answer the question, and "
    models = ["some/model", "other/model", "a/first stage"]
    instructions = ["default", "", long + "a", long + "b"]
    systems = build_systems(models, instructions, [], lambda model, template: ModelSpec(model))
    (alone,) = build_systems(["a/random order"], [], [], lambda model, template: ModelSpec(model))

    names = [system.name for system in systems]
    assert len({*names, "first stage", "random order"}) == 12 + 2
    assert names[0] == "some/model · default instruction"
    assert names[3] == f"{names[2]} (2)"
    assert alone.name == "random order (2)"


def test_only_the_first_queries_are_evaluated_with_a_limit(folder: Path, capsys: pytest.CaptureFixture[str]):
    limited = evaluated(DEMO_MODEL, "--data", folder, "--limit", 2, "--candidates", 2)

    assert [line["query"] for line in lines_of("evaluation/per-query.jsonl")] == ["q1", "q2"]
    assert [line["query"] for line in lines_of("evaluation/run-01.jsonl")[1:]] == ["q1", "q2"]
    assert limited["queries"] == 2
    assert limited["candidates_per_query"] == {"least": 2, "greatest": 2}
    assert limited["left_out"] == {"after the first 2 (--limit)": 1}
    assert "1 query was excluded: after the first 2 (--limit)." in capsys.readouterr().out
    assert evaluated(DEMO_MODEL, "--data", folder, "--limit", 3, "--output", "all")["left_out"] == {}
    capsys.readouterr()
    assert "contains the run of other data" in failure(capsys, DEMO_MODEL, "--data", folder, "--resume")


@pytest.mark.parametrize("limit", ["0", "-1"])
def test_a_limit_below_one_is_refused(limit: str, folder: Path, capsys: pytest.CaptureFixture[str]):
    assert "--limit must be a whole number from 1 up" in failure(capsys, DEMO_MODEL, "--data", folder, "--limit", limit)


def test_systems_are_compared_query_by_query(folder: Path, tiny_qwen: Tiny, capsys: pytest.CaptureFixture[str]):
    results = evaluated(DEMO_MODEL, tiny_qwen.folder, "--data", folder, "--instruction", "default", "--instruction", "")

    names = [*means(results)][2:]
    differences: list[dict[str, object]] = results["system_differences"]  # type: ignore[assignment]
    assert [(each["system"], each["less"]) for each in differences] == [*combinations(names, 2)]
    per_query = [line["measured"] for line in lines_of("evaluation/per-query.jsonl")]
    printed = " ".join(capsys.readouterr().out.split())
    for each in differences:
        values = [line[each["system"]]["MRR@10"] - line[each["less"]]["MRR@10"] for line in per_query]  # type: ignore[index]
        (expected,) = estimate_means([values], seed=0)
        assert each["differences"]["MRR@10"]["mean"] == pytest.approx(expected.value)  # type: ignore[index]
        assert each["differences"]["MRR@10"]["interval_95"] == pytest.approx(expected.interval)  # type: ignore[index]
        main = each["differences"]["nDCG@10"]  # type: ignore[index]
        low, high = main["interval_95"]
        assert f"{main['mean']:+.3f} ({low:+.3f} to {high:+.3f})" in printed
    alone = evaluated(DEMO_MODEL, "--data", folder, "--output", "alone")
    assert alone["system_differences"] == []
    assert "A less B" not in capsys.readouterr().out


def test_small_slices_come_with_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    rows = [list_row(n, language="en" if n < 50 else "ko", all="all") for n in range(52)]
    data = write_lines(tmp_path / "x.jsonl", rows)
    results = evaluated(DEMO_MODEL, "--data", data, "--slice", "language")
    printed = capsys.readouterr().out
    evaluated(DEMO_MODEL, "--data", data, "--slice", "all", "--resume")

    assert [part["has_few_queries"] for part in results["slices"]] == [False, True]  # type: ignore[attr-defined]
    assert "The slice ko has fewer than 50 queries" in " ".join(results["notes"])  # type: ignore[arg-type]
    assert "2 slices were looked at" in " ".join(printed.split())
    assert "ko: 2 queries, the intervals are wide" in printed
    assert "en: 50 queries\n" in re.sub(" +\n", "\n", printed)
    assert "slice" not in capsys.readouterr().out


def test_an_instruction_from_a_field_differs_by_query(folder: Path):
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
    options = ["--instruction", "default", "--instruction", "Find Paris, France.", "--pairwise"]

    (pairing,) = evaluated(DEMO_MODEL, "--data", folder, "--run", run, "--changed-qrels", changed, *options)["pairings"]  # type: ignore[misc]

    ranks = []
    for number in (1, 2):
        logits = lines_of(f"evaluation/run-0{number}.jsonl")[1]["logits"]
        ranks.append(1 + sum(logit > logits[0] for logit in logits))  # type: ignore[index, attr-defined]
    before, after = ranks
    assert pairing["changed_count"] == 1
    assert pairing["p_mrr"]["mean"] == pytest.approx(after / before - 1 if before >= after else 1 - before / after)


def test_p_mrr_compares_the_first_instruction_with_another_one(tmp_path: Path):
    data = write_lines(tmp_path / "x.jsonl", [list_row(n, changed_labels=[1, 0, 0]) for n in range(3)])
    template = tmp_path / "own.jinja"
    template.write_text((Path(DEMO_MODEL) / "chat_template.jinja").read_text("utf-8"), "utf-8")
    shorter = tmp_path / "short.jinja"
    shorter.write_text("{{ messages[0].content }} {{ messages[-2].content }} {{ messages[-1].content }}", "utf-8")
    options = ["--instruction", "default", "--instruction", "a", "--instruction", "b", "--pairwise"]

    of_instructions = evaluated(DEMO_MODEL, "--data", data, *options)["pairings"]
    options = ["--chat-template", template, "--chat-template", shorter, "--pairwise", "--output", "templates"]
    (of_templates,) = evaluated(DEMO_MODEL, "--data", data, *options)["pairings"]  # type: ignore[misc]

    assert [each["changed_count"] for each in of_instructions] == [3, 3, 0]  # type: ignore[attr-defined]
    assert [each["p_mrr"] is None for each in of_instructions] == [False, False, True]  # type: ignore[attr-defined]
    assert of_templates["p_mrr"] is None


def test_jsonl_documents_are_compared_with_their_given_order(tmp_path: Path):
    data = write_lines(tmp_path / "data.jsonl", [list_row(n, labels=[1, 0, 0]) for n in range(4)])

    results = evaluated(DEMO_MODEL, "--data", data, "-k", 1)

    assert means(results)["first stage"]["MRR@1"] == 1
    assert means(results)["demo"]["MRR@1"] == 0
    assert results["entries"][2]["differences_from_first_stage"]["MRR@1"] == {"mean": -1, "interval_95": [-1, -1]}  # type: ignore[index]


def test_a_server_gives_the_logits_of_its_model(folder: Path, reranker: Reranker, tiny_qwen: Tiny):
    with serving(FakeServer(reranker=reranker)) as server:
        from_server = evaluated(tiny_qwen.folder, "--url", server.url, "--data", folder, "--report", "served.html")
        evaluated(tiny_qwen.folder, "--data", folder, "--output", "local")
        arguments = ["--protocol", "rerank", "--template", "server", "--output", "texts"]
        results = evaluated(server.url, "--data", folder, *arguments)

    lines = [lines_of(f"{name}/run-01.jsonl")[1:] for name in ("evaluation", "local", "texts")]
    for query in range(3):
        expected = lines[1][query]["logits"]
        assert lines[0][query]["logits"] == pytest.approx(expected, abs=1e-4)
        assert lines[2][query]["logits"] == pytest.approx(expected, abs=1e-4)
    assert results["entries"][2]["recipe"] is None  # type: ignore[index]
    assert from_server["entries"][2]["server"] == server.url  # type: ignore[index]
    assert f"<dt>server</dt><dd>{server.url}</dd>" in Path("served.html").read_text("utf-8")
    assert from_server["entries"][2]["name"] == "Qwen3-Reranker-tiny"  # type: ignore[index]


def test_a_template_is_used_for_local_models_and_servers(
    folder: Path, reranker: Reranker, tiny_qwen: Tiny, tmp_path: Path
):
    template = tmp_path / "short.jinja"
    template.write_text("{{ messages[0].content }} {{ messages[-2].content }} {{ messages[-1].content }}", "utf-8")
    with serving(FakeServer(reranker=reranker)) as server:
        arguments = ["--data", folder, "--chat-template", template]
        evaluated(tiny_qwen.folder, *arguments, "--url", server.url)
        evaluated(tiny_qwen.folder, *arguments, "--output", "local")

    from_server, local = (lines_of(f"{name}/run-01.jsonl")[1:] for name in ("evaluation", "local"))
    for expected, actual in zip(local, from_server, strict=True):
        assert actual["logits"] == pytest.approx(expected["logits"], abs=1e-4)


def test_servers_and_local_models_each_take_their_own_options(folder: Path, reranker: Reranker, tiny_qwen: Tiny):
    own = ["--dtype", "float32", "--protocol", "rerank", "--template", "server"]
    with serving(FakeServer(reranker=reranker)) as server:
        evaluated(tiny_qwen.folder, server.url, "--data", folder, *own)

    local, from_server = (lines_of(f"evaluation/run-0{number}.jsonl")[1:] for number in (1, 2))
    for expected, actual in zip(local, from_server, strict=True):
        assert actual["logits"] == pytest.approx(expected["logits"], abs=1e-4)


def test_json_output_is_the_content_of_the_results_file(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["evaluate", DEMO_MODEL, "--data", str(folder), "--json"]) == 0

    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads(Path("evaluation/figures.json").read_text("utf-8"))
    assert printed["notes"][0] == DEMO_NOTE


def test_progress_is_shown_only_on_a_terminal(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    evaluated(DEMO_MODEL, "--data", folder, "--instruction", "[/nonsense]", "--instruction", "b")
    assert capsys.readouterr().err == ""

    terminal = StringIO()
    monkeypatch.setattr(progress, "is_shown", lambda: True)
    monkeypatch.setattr(
        progress, "console", lambda **_: Console(file=terminal, force_terminal=True, width=120, _environ={})
    )
    evaluated(DEMO_MODEL, "--data", folder, "--instruction", "[/nonsense]", "--instruction", "b", "--overwrite")
    assert "“[/nonsense]”" in terminal.getvalue()
    assert "100%" in terminal.getvalue()
    assert f"loading {DEMO_MODEL}" in re.sub(r"\x1b\[[\d;?]*[a-zA-Z]|\s*\n", "", terminal.getvalue())


def test_the_korean_and_english_example_runs_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    program = ROOT / "examples" / "instructions.py"
    names: dict[str, object] = {"__name__": "example", "__file__": str(program)}
    exec(compile(program.read_text("utf-8"), str(program), "exec"), names)

    assert names["main"]() == 0  # type: ignore[operator]

    printed = capsys.readouterr().out
    assert printed.startswith("The results of the demo model are meaningless.")
    assert "nDCG@3 by language" in printed
    results = json.loads(Path("build/instructions/figures.json").read_text("utf-8"))
    assert [part["name"] for part in results["slices"]] == ["en", "ko", "ko-en"]
    assert results["pairings"][0]["changed_count"] == 12
    assert results["queries"] == 12
    page = Path("build/instructions/report.html").read_text("utf-8")
    assert "질문에 답하는 문서를 찾으시오" in page
    assert "Only documents written in English count." in page
    shutil.rmtree("build/instructions")
