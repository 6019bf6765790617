"""The benchmarks run, and their counts are right. No test here reads a clock."""

import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any
from weakref import ref

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerFast, Qwen3Config

from onelogit import DEMO_MODEL, Reranker
from support.prepared import run

FOLDER = Path(__file__).parents[2] / "benchmarks"
CONFIG = Qwen3Config(
    hidden_size=3, intermediate_size=5, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2, head_dim=6
)
ROWS = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6), min_size=1, max_size=12)


MEASUREMENTS = ["ways", "equality", "ceiling", "cold", "cold-short", "end-to-end", "share-small", "cached"]
MEASUREMENTS += ["share-large", "callers", "texts", "profile", "ceiling-after"]


@pytest.fixture(scope="module")
def workload(scripts: None) -> ModuleType:
    import workload

    return workload


@given(rows=ROWS)
def test_distinct_tokens_are_the_distinct_prefixes(workload: ModuleType, rows: list[list[int]]):
    prefixes = {tuple(row[:length]) for row in rows for length in range(1, len(row) + 1)}

    assert workload.count_work(rows, CONFIG).distinct_tokens == len(prefixes)


@given(rows=ROWS)
def test_the_needed_operations_are_those_of_each_distinct_token(workload: ModuleType, rows: list[list[int]]):
    prefixes = {tuple(row[:length]) for row in rows for length in range(1, len(row) + 1)}
    ends = {tuple(row) for row in rows}
    key_value, query_output, mlp = 2 * 3 * 2 * 6, 2 * 3 * 4 * 6, 3 * 3 * 5

    def attention(prefix: tuple[int, ...]) -> int:
        return 2 * 4 * 6 * len(prefix)

    inner = 3 * sum(key_value + query_output + mlp + attention(prefix) for prefix in prefixes)
    last = key_value * len(prefixes) + sum(query_output + mlp + attention(prefix) for prefix in ends)
    assert workload.count_work(rows, CONFIG).flop == 2 * (inner + last)


def test_a_run_compares_all_targets_with_the_causal_model(tmp_path: Path):
    command = [FOLDER / "cpu.py", "--quick", "--shape", "tiny", "--only", "cold", "--rounds", "1"]
    command += ["--dtype", "float32", "--peers", "sentence-transformers", "--out", tmp_path / "run.json"]

    ran = run(command, environment={**os.environ, "OMP_NUM_THREADS": "1"})

    assert ran.returncode == 0, ran.stderr
    part = json.loads((tmp_path / "run.json").read_text())["parts"]["cold"][0]
    assert set(part["contestants"]) == {"onelogit", "Sentence Transformers"}
    for summary in part["contestants"].values():
        assert summary["agreement"]["max_error"] < 1e-4
        assert summary["tokens_computed"] > 0


def test_encoders_are_compared_with_transformers(tmp_path: Path):
    command = [FOLDER / "cpu.py", "--quick", "--shape", "tiny", "--only", "encoders", "--rounds", "1"]

    ran = run([*command, "--out", tmp_path / "run.json"], environment={**os.environ, "OMP_NUM_THREADS": "1"})

    assert ran.returncode == 0, ran.stderr
    result = json.loads((tmp_path / "run.json").read_text())
    errors = {"bfloat16": 0.1, "float32": 1e-5}
    assert [part["dtype"] for part in result["parts"]["encoders"]] == [*errors]
    for part in result["parts"]["encoders"]:
        ours, peer = (part["contestants"][name] for name in ("onelogit", "Sentence Transformers"))
        assert max(each["agreement"]["max_error"] for each in (ours, peer)) < errors[part["dtype"]]
        assert ours["agreement"]["spread_of_truth"] > 1e-3
    assert len(result["bars"]) == 4


def test_a_plot_is_drawn_from_growth_and_lengths(scripts: None, tmp_path: Path):
    from cpu import draw

    calls = [{"documents": count, "document_tokens": 8 * count, "contestants": {}} for count in (2, 8)]
    for call in calls:
        call["contestants"] = {"onelogit": {"pairs_per_s": 9.0 * call["documents"]}}
    options = {"shape": "tiny", "layers": 2, "dtype": "float32"}

    draw(
        {"parts": {"growth": calls, "lengths": calls}, "options": options, "machine": {"cores": 2}}, tmp_path / "a.png"
    )

    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_the_costs_of_models_are_measured_once(tmp_path: Path):
    command = [FOLDER / "model_costs.py", "--quick", "--only", "bge-m3", "--out", tmp_path / "costs.json"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    first = run(command, environment=environment, timeout_s=500)
    assert first.returncode == 0, first.stderr
    found = json.loads((tmp_path / "costs.json").read_text())
    (measured,) = found["rounds"]
    assert (measured["model"], measured["texts"]) == ("bge-m3", "examples/data")
    assert len(measured["seconds"]) == len(measured["reference_seconds"]) == 2

    again = run(command, environment=environment)
    assert "bge-m3: all rounds are in the file\n" in again.stdout
    assert json.loads((tmp_path / "costs.json").read_text()) == found

    other = run([*command, "--documents", "3"], environment=environment)
    assert "has rounds with other settings" in other.stderr


def test_the_cost_of_all_layers_follows_from_two_depths(scripts: None):
    import model_costs

    assert model_costs.whole_time([1.0, 2.5], (2, 5), 20) == pytest.approx(10.0)
    layers = {
        name: model_costs.shape_of(name, is_quick=False).config.num_hidden_layers for name in ("bge-m3", "qwen3-0.6b")
    }
    assert layers == {"bge-m3": 24, "qwen3-0.6b": 28}
    measured = model_costs.Round("bge-m3", "texts", 0, [2.0, 5.0], [1.0, 4.0])
    assert model_costs.relative_cost(measured, (2, 5)) == pytest.approx(24 / 27)


def test_the_shapes_have_the_weights_of_their_models(scripts: None):
    import model_costs
    from transformers import AutoModel

    billions = {}
    for name in model_costs.MODELS:
        with torch.device("meta"):
            model = AutoModel.from_config(model_costs.shape_of(name, is_quick=False).config)
        billions[name] = round(sum(weight.numel() for weight in model.parameters()) / 1e9, 1)
    assert billions == {
        "bge-m3": 0.6,
        "mxbai-base": 0.5,
        "ctxl-1b": 1.0,
        "mxbai-large": 1.5,
        "bge-gemma": 2.5,
        "qwen3-4b": 4.0,
        "qwen3-8b": 7.6,  # 8.2 with a head that is not tied
    }


def test_the_cost_of_a_client_is_measured_for_each_protocol(tmp_path: Path):
    command = [sys.executable, FOLDER / "client_cost.py", "--rounds", "1", "--documents", "3"]
    command += ["--out", tmp_path / "run.json"]

    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True)

    costs = json.loads((tmp_path / "run.json").read_text())
    assert set(costs["whole"]) == {"vllm-tokens", "rerank, client", "rerank, server"}
    assert costs["parts"]["tokens"] > 3
    assert costs["parts"]["bytes sent"] > costs["parts"]["tokens"]


@pytest.fixture(scope="module")
def gpu(scripts: None) -> ModuleType:
    import gpu

    return gpu


@pytest.fixture(scope="module")
def cpu_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    """What gpu.py prints and writes on a CPU."""
    out = tmp_path_factory.mktemp("gpu") / "gpu.json"
    command = [FOLDER / "gpu.py", "--device", "cpu", "--quick", "--dtype", "float32", "--out", out]
    ran = run(command, environment={**os.environ, "OMP_NUM_THREADS": "1"})
    assert ran.returncode == 0, ran.stderr
    return ran.stdout, json.loads(out.read_text())


def test_the_gpu_benchmark_runs_on_a_cpu_and_says_that_it_measures_no_gpu(
    cpu_run: tuple[str, dict[str, Any]],
):
    printed, result = cpu_run

    assert printed.startswith("NO GPU IS MEASURED")
    assert not result["is_gpu"]
    assert [*result["parts"]] == [name for name in MEASUREMENTS if name != "texts"]
    assert result["not_measured"] == [{"part": "texts", "reason": "no --data"}]
    assert [line["measured"].startswith("not measured") for line in result["bars"]] == [False] * 8
    assert all(line["what"].startswith("tiny shapes") for line in result["bars"])
    assert result["without"]["qwen3-0.6b: onelogit, compiled"] == "--no-compile"
    assert result["ways"]["qwen3-0.6b: onelogit"] == "prefix trees, SdpaAttention"
    assert "flash" in result["without"]["qwen3-0.6b: Sentence Transformers, unpadded"].lower()


def test_a_profile_has_the_launches_of_all_threads(cpu_run: tuple[str, dict[str, Any]]):
    profiles = cpu_run[1]["parts"]["profile"]

    assert set(profiles) == {"onelogit", "Sentence Transformers"}
    for each in profiles.values():
        assert each["launches"] > 100
        assert each["busy_s"] > 0
        assert "aten::mm" in [kernel["name"] for kernel in each["kernels"]]


def test_the_gpu_benchmark_compares_all_targets_with_the_causal_model(cpu_run: tuple[str, dict[str, Any]]):
    parts = cpu_run[1]["parts"]

    peers = {"Sentence Transformers", "Sentence Transformers, head alone", "model card's loop"}
    equality, cached = parts["equality"], parts["cached"]
    assert set(parts["cold"]["entrants"]) == {"onelogit", *peers}
    assert all(summary["max_difference"] < 1e-5 for summary in parts["cold"]["entrants"].values())
    assert set(equality["entrants"]) == {"onelogit", "onelogit, float32", *peers}
    for summary in equality["entrants"].values():
        assert summary["max_error"] < 1e-5 < equality["median_gap_in_top"]
        assert summary["top_kept"] == equality["queries"] == 2
    assert cached["max_difference"] < 1e-5
    computed = {name: summary["tokens"] for name, summary in cached["entrants"].items()}
    assert 0 < computed["onelogit, documents kept"] < computed["onelogit"]


def test_a_run_without_time_lists_what_it_did_not_measure(gpu: ModuleType, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--device", "cpu", "--quick"])
    options = gpu.parse()

    result = gpu.run(gpu.open_bench(options, gpu.TimeLimit(0)), MEASUREMENTS)

    assert result["parts"] == {}
    assert [each["part"] for each in result["not_measured"]] == MEASUREMENTS
    goals = gpu.gpu_goals({**result, "options": vars(options)})
    assert [goal["measured"].startswith("not measured: 0 s are left") for goal in goals] == [True] * 8


def test_a_time_limit_ends_anything_that_takes_longer(gpu: ModuleType):
    with pytest.raises(gpu.OutOfTime), gpu.TimeLimit(0.05).enforced():
        time.sleep(60)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")
def test_without_a_gpu_the_gpu_benchmark_ends_with_one_line(
    gpu: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--out", "gpu.json"])

    with pytest.raises(SystemExit) as ended:
        gpu.parse()

    printed = capsys.readouterr()
    assert ended.value.code == 2
    assert printed.out == ""
    assert printed.err.startswith("PyTorch finds no CUDA device; --device cpu --quick checks that the code runs")
    assert printed.err.count("\n") == 1


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return AutoTokenizer.from_pretrained(DEMO_MODEL)


def test_random_texts_have_the_exact_number_of_tokens(scripts: None, tokenizer: PreTrainedTokenizerFast):
    from texts import RandomTexts

    texts, before = RandomTexts(tokenizer), "<Document>:"

    for tokens in range(1, 200, 7):
        ids = tokenizer.encode(f"{before} {texts.text(tokens)}")
        assert len(ids) == len(tokenizer.encode(before)) + tokens


@given(length=st.integers(1, 50))
def test_the_roofline_counts_the_same_work_as_the_rows(scripts: None, workload: ModuleType, length: int):
    from roofline import DOCUMENTS, PREFIX, SUFFIX, prefix_tree_minimum
    from shapes import SHAPES

    config = SHAPES["tiny"].config
    own = length + SUFFIX
    rows = [[*[0] * PREFIX, *[1 + row] * own] for row in range(DOCUMENTS)]

    minimum = prefix_tree_minimum(config, length)

    work = workload.count_work(rows, config)
    assert (minimum.tokens, minimum.flop) == (work.distinct_tokens, work.flop)


def test_a_measurement_that_fails_or_takes_too_long_is_listed(gpu: ModuleType, monkeypatch: pytest.MonkeyPatch):
    def fail(_: object) -> None:
        raise RuntimeError("no such kernel")

    measurements = {"cold": fail, "equality": lambda _: [], "cached": lambda _: time.sleep(60), "texts": lambda _: []}
    for name, measure in measurements.items():
        monkeypatch.setitem(gpu.MEASUREMENTS, name, gpu.MEASUREMENTS[name]._replace(measure=measure))
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--device", "cpu", "--quick"])

    result = gpu.run(gpu.open_bench(gpu.parse(), gpu.TimeLimit(1)), [*measurements])

    assert result["parts"] == {"equality": []}
    assert {each["part"]: each["reason"] for each in result["not_measured"]} == {
        "cold": "failed: RuntimeError: no such kernel",
        "cached": "the time was over before it finished",
        "texts": "the time was over before it started",
    }


def test_a_shared_model_computes_with_real_weights_if_they_are_named(scripts: None, tokenizer: PreTrainedTokenizerFast):
    from gpu_targets import SharedModel

    config = AutoConfig.from_pretrained(DEMO_MODEL)
    device = torch.device("cpu")
    shared = SharedModel("qwen3-reranker", config, tokenizer, device, torch.float32, weights=DEMO_MODEL)
    call = "What is the capital of China?", ["Beijing is the capital of China.", "Bananas are yellow."]

    with Reranker.load(DEMO_MODEL, device="cpu", dtype="float32") as reranker:
        assert shared.reranker().logits(*call) == pytest.approx(reranker.logits(*call), abs=1e-5)


def test_the_comparison_goes_on_without_a_peer_that_fails(gpu: ModuleType, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object) -> None:
        raise RuntimeError("out of\nmemory")

    monkeypatch.setattr(sys, "argv", ["gpu.py", "--device", "cpu", "--quick"])
    bench = gpu.open_bench(gpu.parse(), gpu.TimeLimit(600))
    names = ("onelogit", "model card's loop")
    card = bench.targets("qwen3-0.6b", names)[names[1]]
    bench._targets["qwen3-0.6b", names[1]] = card._replace(tokenize=fail)

    compared = bench.compare("qwen3-0.6b", names, [("What is it?", ["It is 1.", "Two."])] * 2, 60)

    assert [*compared["entrants"]] == ["onelogit"]
    assert bench.without == {"qwen3-0.6b: model card's loop": "RuntimeError: out of"}
    assert [*bench.targets("qwen3-0.6b", names)] == ["onelogit"]


def test_releasing_a_shape_frees_its_memory(gpu: ModuleType, monkeypatch: pytest.MonkeyPatch):
    # peft, which Sentence Transformers imports while it loads a model, imports bitsandbytes, which logs an exception.
    # pytest keeps it with its frames, in which the benchmark's model would be alive.
    with suppress(ImportError):
        import_module("peft")
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--device", "cpu", "--quick"])
    bench = gpu.open_bench(gpu.parse(), gpu.TimeLimit(600))
    bench.targets("qwen3-4b", ("onelogit", "Sentence Transformers"))
    weight = ref(bench.model("qwen3-4b").model.model.norm.weight)

    bench.release("qwen3-4b")

    assert weight() is None
