"""`--quantization int8` and its comparisons in the commands, and the same option of the adapters."""

import json
from pathlib import Path

import pytest

from onelogit import DEMO_MODEL
from onelogit.cli.main import main
from onelogit.quantization.processor import INSTRUCTIONS, capabilities
from support.adapters import ADAPTERS, Adapter
from support.commands import failure, output
from support.evaluate_command import evaluated
from support.evaluate_command import failure as evaluation_failure
from support.evaluation_data import list_row, write_lines

QUERY = "What is the capital of China?"
DOCUMENTS = ["The capital of China is Beijing.", "Paris is in France.", "No."]
INT8 = ("--quantization", "int8", "--device", "cpu")

needs_vnni = pytest.mark.skipif(not any(capabilities().get(name) for name in INSTRUCTIONS), reason="needs VNNI or AMX")


@needs_vnni
def test_rank_says_how_far_logits_move(capsys: pytest.CaptureFixture[str]):
    assert main(["rank", QUERY, *DOCUMENTS, *INT8, "--json"]) == 0
    printed = capsys.readouterr()
    quantised = [json.loads(line) for line in printed.out.splitlines()]
    exact = [json.loads(line) for line in output(capsys, "rank", QUERY, *DOCUMENTS, "--json").splitlines()]

    assert "onelogit: int8 is approximate: on " in printed.err
    assert [each["index"] for each in quantised] == [each["index"] for each in exact]
    for ours, theirs in zip(quantised, exact, strict=True):
        assert 0 < abs(ours["logit"] - theirs["logit"]) < 0.3


@needs_vnni
def test_verify_compares_with_the_exact_original_and_sets_no_limit(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    pairs = write_lines(tmp_path / "pairs.jsonl", [{"query": QUERY, "document": each} for each in DOCUMENTS])

    result = json.loads(output(capsys, "verify", DEMO_MODEL, "--pairs", pairs, *INT8, "--json"))

    assert (result["agrees"], result["quantization"], result["dtype"]) == (True, "int8", "float32")
    assert result["converted"]["largest_difference"] > result["tolerance"]
    printed = " ".join(output(capsys, "verify", DEMO_MODEL, "--pairs", pairs, *INT8).split())
    assert "demo, quantised to int8, reads the prompts of the original; its logits are approximate" in printed
    assert "(int8: no limit)" in printed
    assert "at most" not in printed


@needs_vnni
def test_evaluate_compares_quantised_weights_with_exact_ones(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    data = write_lines(tmp_path / "questions.jsonl", [list_row(number) for number in range(2)])

    both = ("--quantization", "none", "--quantization", "int8")
    results = evaluated(DEMO_MODEL, "--data", data, *both, "--device", "cpu", "--pairwise")

    assert [entry["name"] for entry in results["entries"]][-2:] == ["unquantised", "int8"]  # type: ignore[attr-defined]
    heads = [json.loads(path.read_text().splitlines()[0]) for path in sorted(Path("evaluation").glob("run-*.jsonl"))]
    assert len({head["model"] for head in heads}) == 2
    assert "int8" in capsys.readouterr().out


def test_evaluate_refuses_a_quantisation_twice_or_of_a_server(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    data = write_lines(tmp_path / "questions.jsonl", [list_row(0)])

    twice = evaluation_failure(capsys, DEMO_MODEL, "--data", data, *INT8, "--quantization", "int8")
    remote = evaluation_failure(capsys, "http://127.0.0.1:9", "--data", data, "--quantization", "int8")

    assert "is given twice with the same template, quantisation and instruction" in twice
    assert "--quantization is for models on this machine" in remote


@needs_vnni
def test_bench_compares_quantised_weights_with_exact_ones(capsys: pytest.CaptureFixture[str]):
    arguments = ("--candidates", 2, "--repeats", 2, "--seconds", 60, "--device", "cpu", "--json")
    result = json.loads(output(capsys, "bench", DEMO_MODEL, "--compare", "int8", *arguments))

    (case,) = result["cases"]
    assert [each["name"] for each in case["contestants"]] == ["onelogit", "onelogit, int8"]
    assert 0 < case["largest_difference"] < 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("bench", DEMO_MODEL, "--compare", "int8", *INT8), "compares with exact weights; leave --quantization out"),
        (("bench", DEMO_MODEL, "--compare", "int8", "--device", "cuda"), "computes on a CPU, not on device='cuda'"),
        (("rank", QUERY, "a", "--quantization", "int4"), "invalid choice: 'int4'"),
        (("rank", QUERY, "a", "--url", "http://127.0.0.1:9", "--quantization", "int8"), "is not an option of a server"),
        (("convert", DEMO_MODEL, "-o", "out", "--quantization", "int8"), "unknown arguments: --quantization int8"),
        (("rank", QUERY, "a", *INT8[:2], "--device", "mps"), "computes on a CPU, not on device='mps'"),
    ],
)
def test_what_it_excludes_is_one_sentence(arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]):
    assert message in failure(capsys, *arguments)


@needs_vnni
@pytest.mark.parametrize("framework", ADAPTERS, ids=lambda adapter: type(adapter).__name__)
def test_adapters_take_it_as_a_parameter_and_in_the_options(framework: Adapter):
    exact = framework.kind(model=DEMO_MODEL)
    adapter = framework.kind(model=DEMO_MODEL, quantization="int8", device="cpu")
    other = framework.kind(model=DEMO_MODEL, options={"quantization": "int8", "device": "cpu"})
    documents = framework.documents(DOCUMENTS)

    found = [result.logit for result in framework.run(adapter, QUERY, documents)]

    assert found == [result.logit for result in framework.run(other, QUERY, documents)]
    expected = [result.logit for result in framework.run(exact, QUERY, documents)]
    assert found != expected
    assert found == pytest.approx(expected, abs=0.3)
    assert adapter._handle._held.quantization_report is not None
    assert framework.loaded(framework.dumped(adapter)).quantization == "int8"
