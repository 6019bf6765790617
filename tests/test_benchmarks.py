"""The benchmarks run, and count what they say they count. Nothing here looks at a clock."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import Qwen3Config

FOLDER = Path(__file__).parent.parent / "benchmarks"
CONFIG = Qwen3Config(
    hidden_size=3, intermediate_size=5, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2, head_dim=6
)
ROWS = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6), min_size=1, max_size=12)


@pytest.fixture(scope="module")
def counting() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        import counting

        yield counting


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
    command = [sys.executable, FOLDER / "cpu.py", "--quick", "--shape", "tiny", "--only", "cold", "--rounds", "1"]
    command += ["--dtype", "float32", "--peers", "sentence-transformers", "--out", tmp_path / "run.json"]

    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True)

    part = json.loads((tmp_path / "run.json").read_text())["parts"]["cold"][0]
    assert set(part["contestants"]) == {"onelogit", "Sentence Transformers"}
    for figures in part["contestants"].values():
        assert figures["agreement"]["max_error"] < 1e-4
        assert figures["tokens_computed"] > 0


def test_what_a_client_costs_is_measured_for_each_way_to_ask(tmp_path: Path):
    command = [sys.executable, FOLDER / "wire.py", "--rounds", "1", "--documents", "3", "--out", tmp_path / "run.json"]

    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True)

    figures = json.loads((tmp_path / "run.json").read_text())
    assert set(figures["whole"]) == {"vllm-tokens", "rerank, client", "rerank, server"}
    assert figures["parts"]["tokens"] > 3
    assert figures["parts"]["bytes sent"] > figures["parts"]["tokens"]
