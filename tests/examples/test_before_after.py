"""The before-and-after examples run with their frameworks and ir_measures."""

import re
import runpy
import sys
from pathlib import Path

import pytest

from onelogit import DEMO_MODEL, open_reranker
from support.tiny import Tiny

EXAMPLES = Path(__file__).parents[2] / "examples"
FRAMEWORKS = {"langchain": "LangChain", "llama_index": "LlamaIndex", "haystack": "Haystack"}


@pytest.fixture(scope="module", autouse=True)
def shared_weights():
    return open_reranker(DEMO_MODEL)  # the examples share it as long as it exists


def run(name: str, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *arguments])
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")


def measures(printed: str, row: str) -> list[float]:
    line = next(line for line in printed.splitlines() if row in line)
    return [float(number) for number in re.findall(r"\d\.\d{3}", line)]


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_pipeline_is_measured_with_and_without_the_reranker(
    framework: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    run(f"{framework}_before_after", monkeypatch)

    printed = capsys.readouterr().out
    before, after = measures(printed, "retriever alone"), measures(printed, "and onelogit")
    assert FRAMEWORKS[framework] in printed
    assert len(before) == len(after) == 3
    assert before != after
    assert min(after) > max(before)  # on these questions, which the demo model was not trained on
    assert "its ranking means nothing" in printed


def test_the_demo_note_is_not_printed_for_another_model(
    tiny_qwen: Tiny, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    run("haystack_before_after", monkeypatch, "--model", str(tiny_qwen.folder))

    printed = capsys.readouterr().out
    assert "means nothing" not in printed
    assert measures(printed, "and onelogit")


def test_the_best_order_has_the_highest_measures_and_the_worst_the_lowest(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    import before_after

    answers = {line["question"]: line["answer"] for line in before_after._read_lines("questions.jsonl")}
    ids = list(before_after.read_passages())

    def first(question: str) -> list[str]:
        return [answers[question], *(id for id in ids if id != answers[question])]

    assert before_after.evaluate(first) == {"nDCG@5": 1.0, "MRR@5": 1.0, "answer on top": 1.0}
    assert before_after.evaluate(lambda question: first(question)[::-1])["MRR@5"] == 0.0
