"""`onelogit verify`: agreement and its exit code."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from onelogit import DEMO_MODEL, Reranker
from onelogit.cli.main import main
from onelogit.options import DEMO_NOTE
from support.commands import failure, output
from support.tiny import Tiny

QUERY = "What is the capital of China?"
DOCUMENTS = ["The capital of China is Beijing.", "서울", "yes"]


def test_a_correct_conversion_agrees_with_the_original(
    capsys: pytest.CaptureFixture[str], tiny_qwen: Tiny, tmp_path: Path
):
    Reranker.load(tiny_qwen.folder).save(tmp_path / "converted")
    plot = tmp_path / "parity.png"
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("".join(json.dumps({"query": QUERY, "document": text}) + "\n" for text in DOCUMENTS))

    arguments = ("verify", tiny_qwen.folder, "--pairs", pairs, "--against", tmp_path / "converted")
    result = json.loads(output(capsys, *arguments, "--plot", plot, "--json"))

    assert result["agrees"] is True
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert "agrees" in output(capsys, *arguments)


def test_results_of_the_demo_model_come_with_a_note(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text(json.dumps({"query": QUERY, "document": DOCUMENTS[0]}) + "\n")

    assert main(["verify", DEMO_MODEL, "--pairs", str(pairs)]) == 0

    assert capsys.readouterr().err == f"onelogit: {DEMO_NOTE}\n"


def test_the_exit_code_is_1_if_the_models_differ(
    capsys: pytest.CaptureFixture[str], checkpoint: Callable[..., Tiny], tmp_path: Path
):
    tiny, other = checkpoint("Qwen3-Reranker-one"), checkpoint("Qwen3-Reranker-other", is_tied=False)
    Reranker.load(other.folder).save(tmp_path / "converted")
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text(json.dumps({"query": QUERY, "document": DOCUMENTS[0]}) + "\n")

    code = main(["verify", str(tiny.folder), "--pairs", str(pairs), "--against", str(tmp_path / "converted")])

    assert code == 1
    assert "differs" in capsys.readouterr().out


@pytest.mark.parametrize("plot", ["parity.txt", "nowhere/parity.png"])
def test_a_plot_that_cannot_be_written_is_refused_before_the_model_is_loaded(
    plot: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    assert "--plot" in failure(capsys, "verify", "no-such/model", "--plot", tmp_path / plot)
