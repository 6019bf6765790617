"""The benchmarks run, and count what they say they count. Nothing here looks at a clock."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
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


PARTS = ["ceiling", "cold", "cold-short", "end-to-end", "equality", "share-small", "cached", "share-large"]
PARTS += ["texts", "profile", "ceiling-after"]


@pytest.fixture(scope="module")
def scripts() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        yield


@pytest.fixture(scope="module")
def counting(scripts: None) -> ModuleType:
    import counting

    return counting


@given(rows=ROWS)
def test_distinct_tokens_are_the_distinct_prefixes(counting: ModuleType, rows: list[list[int]]):
    prefixes = {tuple(row[:length]) for row in rows for length in range(1, len(row) + 1)}

    assert counting.count_work(rows, CONFIG).distinct_tokens == len(prefixes)


@given(rows=ROWS)
def test_the_needed_arithmetic_is_what_each_distinct_token_meets(counting: ModuleType, rows: list[list[int]]):
    prefixes = {tuple(row[:length]) for row in rows for length in range(1, len(row) + 1)}
    ends = {tuple(row) for row in rows}
    key_value, query_output, mlp = 2 * 3 * 2 * 6, 2 * 3 * 4 * 6, 3 * 3 * 5

    def attention(prefix: tuple[int, ...]) -> int:
        return 2 * 4 * 6 * len(prefix)

    inner = 3 * sum(key_value + query_output + mlp + attention(prefix) for prefix in prefixes)
    last = key_value * len(prefixes) + sum(query_output + mlp + attention(prefix) for prefix in ends)
    assert counting.count_work(rows, CONFIG).flop == 2 * (inner + last)


def test_a_run_holds_everyone_against_the_causal_model(tmp_path: Path):
    command = [FOLDER / "cpu.py", "--quick", "--shape", "tiny", "--only", "cold", "--rounds", "1"]
    command += ["--dtype", "float32", "--peers", "sentence-transformers", "--out", tmp_path / "run.json"]

    ran = run(command, environment={**os.environ, "OMP_NUM_THREADS": "1"})

    assert ran.returncode == 0, ran.stderr
    part = json.loads((tmp_path / "run.json").read_text())["parts"]["cold"][0]
    assert set(part["contestants"]) == {"onelogit", "Sentence Transformers"}
    for figures in part["contestants"].values():
        assert figures["agreement"]["max_error"] < 1e-4
        assert figures["tokens_computed"] > 0


def test_what_a_client_costs_is_measured_for_each_way_to_ask(tmp_path: Path):
    command = [sys.executable, FOLDER / "client_cost.py", "--rounds", "1", "--documents", "3"]
    command += ["--out", tmp_path / "run.json"]

    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True)

    figures = json.loads((tmp_path / "run.json").read_text())
    assert set(figures["whole"]) == {"vllm-tokens", "rerank, client", "rerank, server"}
    assert figures["parts"]["tokens"] > 3
    assert figures["parts"]["bytes sent"] > figures["parts"]["tokens"]


@pytest.fixture(scope="module")
def gpu(scripts: None) -> ModuleType:
    import gpu

    return gpu


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    """What the run for a GPU says when it is tried on a CPU, and what it writes."""
    out = tmp_path_factory.mktemp("gpu") / "gpu.json"
    command = [FOLDER / "gpu.py", "--device", "cpu", "--quick", "--dtype", "float32", "--out", out]
    ran = run(command, environment={**os.environ, "OMP_NUM_THREADS": "1"})
    assert ran.returncode == 0, ran.stderr
    return ran.stdout, json.loads(out.read_text())


def test_the_run_for_a_gpu_can_be_tried_on_a_cpu_and_says_that_it_measures_nothing(
    tried: tuple[str, dict[str, Any]],
):
    said, result = tried

    assert said.startswith("NOTHING HERE IS A GPU'S FIGURE")
    assert not result["is_gpu"]
    assert [*result["parts"]] == [part for part in PARTS if part != "texts"]
    assert result["not_measured"] == [{"part": "texts", "reason": "no --data"}]
    assert [line["measured"].startswith("not measured") for line in result["bars"]] == [False] * 8
    assert all(line["what"].startswith("tiny shapes") for line in result["bars"])
    assert result["without"]["qwen3-0.6b: onelogit, compiled"] == "--no-compile"
    assert result["ways"]["qwen3-0.6b: onelogit"] == "forests, segment by segment"
    assert "flash" in result["without"]["qwen3-0.6b: Sentence Transformers, unpadded"].lower()


def test_a_profile_sees_what_each_launches_in_whichever_thread_it_computes(tried: tuple[str, dict[str, Any]]):
    profiles = tried[1]["parts"]["profile"]

    assert set(profiles) == {"onelogit", "Sentence Transformers"}
    for each in profiles.values():
        assert each["launches"] > 100
        assert each["busy_s"] > 0
        assert "aten::mm" in [kernel["name"] for kernel in each["kernels"]]


def test_a_run_for_a_gpu_holds_everyone_against_the_causal_model(tried: tuple[str, dict[str, Any]]):
    parts = tried[1]["parts"]

    peers = {"Sentence Transformers", "Sentence Transformers, head alone", "model card's loop"}
    equality, cached = parts["equality"], parts["cached"]
    assert set(parts["cold"]["entrants"]) == {"onelogit", *peers}
    assert all(figures["max_difference"] < 1e-5 for figures in parts["cold"]["entrants"].values())
    assert set(equality["entrants"]) == {"onelogit", "onelogit, float32", *peers}
    for figures in equality["entrants"].values():
        assert figures["max_error"] < 1e-5 < equality["median_gap_in_top"]
        assert figures["top_kept"] == equality["queries"] == 2
    assert cached["max_difference"] < 1e-5
    computed = {name: figures["tokens"] for name, figures in cached["entrants"].items()}
    assert 0 < computed["onelogit, documents kept"] < computed["onelogit"]


def test_a_run_whose_time_is_over_says_what_it_did_not_measure(gpu: ModuleType, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--device", "cpu", "--quick"])
    options = gpu.parse()

    result = gpu.run(gpu.open_bench(options, gpu.Budget(0)), PARTS)

    assert result["parts"] == {}
    assert [each["part"] for each in result["not_measured"]] == PARTS
    bars = gpu.bars({**result, "options": vars(options)})
    assert [line["measured"].startswith("not measured: 0 s are left") for line in bars] == [True] * 8


def test_a_budget_of_time_ends_whatever_takes_longer(gpu: ModuleType):
    with pytest.raises(gpu.OutOfTime), gpu.Budget(0.05).enforced():
        time.sleep(60)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")
def test_without_a_gpu_the_run_for_one_says_so_in_one_line(
    gpu: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--out", "gpu.json"])

    with pytest.raises(SystemExit) as ended:
        gpu.parse()

    said = capsys.readouterr()
    assert ended.value.code == 2
    assert said.out == ""
    assert said.err == "PyTorch sees no CUDA device here; --device cpu --quick tries the code, and measures no GPU\n"


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return AutoTokenizer.from_pretrained(DEMO_MODEL)


def test_random_texts_are_of_exactly_so_many_tokens(scripts: None, tokenizer: PreTrainedTokenizerFast):
    from random_texts import RandomTexts

    texts, before = RandomTexts(tokenizer), "<Document>:"

    for tokens in range(1, 200, 7):
        ids = tokenizer.encode(f"{before} {texts.text(tokens)}")
        assert len(ids) == len(tokenizer.encode(before)) + tokens


@given(length=st.integers(1, 50))
def test_the_floor_counts_what_the_rows_themselves_would(scripts: None, counting: ModuleType, length: int):
    from floors import DOCUMENTS, PREFIX, SUFFIX, prefix_tree_floor
    from shapes import SHAPES, config_of

    shape = SHAPES["tiny"]
    own = length + SUFFIX
    rows = [[*[0] * PREFIX, *[1 + row] * own] for row in range(DOCUMENTS)]

    floor = prefix_tree_floor(shape, length)

    work = counting.count_work(rows, config_of(shape, shape.layers, is_tied=True))
    assert (floor.tokens, floor.flop) == (work.distinct_tokens, work.flop)


def test_a_part_that_takes_too_long_or_fails_is_listed_and_not_dropped(
    gpu: ModuleType, monkeypatch: pytest.MonkeyPatch
):
    def fail(_: object) -> None:
        raise RuntimeError("no such kernel")

    parts = {"cold": fail, "equality": lambda _: [], "cached": lambda _: time.sleep(60), "texts": lambda _: []}
    for name, measure in parts.items():
        monkeypatch.setitem(gpu.PARTS, name, gpu.PARTS[name]._replace(measure=measure))
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--device", "cpu", "--quick"])

    result = gpu.run(gpu.open_bench(gpu.parse(), gpu.Budget(1)), [*parts])

    assert result["parts"] == {"equality": []}
    assert {each["part"]: each["reason"] for each in result["not_measured"]} == {
        "cold": "failed: RuntimeError: no such kernel",
        "cached": "the time was over before it was done",
        "texts": "the time was over before it began",
    }


def test_a_lineup_computes_with_real_weights_where_they_are(scripts: None, tokenizer: PreTrainedTokenizerFast):
    from lineup import Lineup
    from shapes import shape_of

    config = AutoConfig.from_pretrained(DEMO_MODEL)
    shape = shape_of(config, "qwen3-reranker")
    lineup = Lineup(shape, shape.layers, tokenizer, torch.device("cpu"), torch.float32, weights=DEMO_MODEL)
    asked = "What is the capital of China?", ["Beijing is the capital of China.", "Bananas are yellow."]

    with Reranker.load(DEMO_MODEL, device="cpu", dtype="float32") as reranker:
        assert lineup.reranker().logits(*asked) == pytest.approx(reranker.logits(*asked), abs=1e-5)


def test_a_peer_that_fails_leaves_the_others_to_race(gpu: ModuleType, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object) -> None:
        raise RuntimeError("out of\nmemory")

    monkeypatch.setattr(sys, "argv", ["gpu.py", "--device", "cpu", "--quick"])
    bench = gpu.open_bench(gpu.parse(), gpu.Budget(600))
    names = ("onelogit", "model card's loop")
    card = bench.entrants("qwen3-0.6b", names)[names[1]]
    bench._entrants["qwen3-0.6b", names[1]] = card._replace(tokenised=fail)

    raced = bench.race("qwen3-0.6b", names, [("What is it?", ["It is 1.", "Two."])] * 2, 60)

    assert [*raced["entrants"]] == ["onelogit"]
    assert bench.without == {"qwen3-0.6b: model card's loop": "RuntimeError: out of"}
    assert [*bench.entrants("qwen3-0.6b", names)] == ["onelogit"]


def test_a_shape_that_is_let_go_leaves_its_memory_to_the_next(gpu: ModuleType, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--device", "cpu", "--quick"])
    bench = gpu.open_bench(gpu.parse(), gpu.Budget(600))
    bench.entrants("qwen3-4b", ("onelogit", "Sentence Transformers"))
    weight = ref(bench.lineup("qwen3-4b").model.model.norm.weight)

    bench.let_go("qwen3-4b")

    assert weight() is None
