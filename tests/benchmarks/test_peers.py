"""The peers of the CPU benchmark: servers are started and ended, and a peer that is not there is left out."""

import json
import os
import socket
import sys
from pathlib import Path
from types import ModuleType

import pytest

from onelogit import OnelogitError
from support.prepared import run

FOLDER = Path(__file__).parents[2] / "benchmarks"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def peer_server(scripts: None) -> ModuleType:
    import peer_server

    return peer_server


def is_open(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def test_a_server_answers_until_it_is_closed(peer_server: ModuleType, tmp_path: Path):
    port = peer_server.free_port()
    command = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1"]

    server = peer_server.PeerServer("a server", command, {}, f"http://127.0.0.1:{port}/", tmp_path / "log")

    assert is_open(port)
    server.close()
    assert not is_open(port)


def test_a_server_that_ends_shows_the_end_of_its_log(peer_server: ModuleType, tmp_path: Path):
    command = [sys.executable, "-c", "import os; print(os.environ['REASON']); raise SystemExit(3)"]

    with pytest.raises(OnelogitError, match=r"(?s)a server ended with code 3; the end of .*no such model"):
        peer_server.PeerServer(
            "a server", command, {"REASON": "no such model"}, "http://127.0.0.1:9/", tmp_path / "log"
        )


def test_a_server_that_does_not_answer_is_ended(
    peer_server: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    port = peer_server.free_port()
    command = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1"]
    monkeypatch.setattr(peer_server, "START_S", 0)

    with pytest.raises(OnelogitError, match="a server did not start within 0 s"):
        peer_server.PeerServer("a server", command, {}, f"http://127.0.0.1:{port}/", tmp_path / "log")

    assert not is_open(port)


def test_a_run_leaves_out_a_peer_that_does_not_start(tmp_path: Path):
    command = [FOLDER / "cpu.py", "--quick", "--shape", "tiny", "--only", "cold,long", "--rounds", "1"]
    command += ["--peers", "vllm", "--vllm-python", tmp_path / "none" / "python", "--out", tmp_path / "run.json"]

    ran = run(command, environment=ENVIRONMENT, timeout_s=400)

    assert ran.returncode == 0, ran.stderr
    result = json.loads((tmp_path / "run.json").read_text())
    assert "vLLM ended with code 127" in result["without"]["vLLM"]
    assert set(result["parts"]["cold"][0]["contestants"]) == {"onelogit"}
    assert result["allowed"]["onelogit"] == {"threads": 1}
    assert result["allowed"]["vLLM"]["settings"]["VLLM_CPU_NUM_OF_RESERVED_CPU"] == "0"
    assert result["date"] >= "2026-11-29"
    for part in result["parts"]["long"]["chunks"]:
        assert part["chunks"] > part["documents"]
        assert 1 <= part["computed_over_distinct"] < 1.05 < part["prompt_over_distinct"]


@pytest.mark.parametrize("kind", ["BF16", "Q8_0"])
def test_llama_cpp_gives_the_logits_of_the_causal_model(scripts: None, tmp_path: Path, kind: str):
    pytest.importorskip("gguf", reason="pip install gguf llama-cpp-python")
    pytest.importorskip("llama_cpp", reason="pip install gguf llama-cpp-python")
    import torch
    from llama_cpp_target import load_llama_cpp
    from shapes import SHAPES
    from targets import reference_logits
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from workload import prompt_rows

    from checkpoints import write_checkpoint

    checkpoint = write_checkpoint(tmp_path / "model", SHAPES["tiny"])
    query, documents = "What is it?", ["It is 1.", "Two.", "Bananas are yellow."]
    rows = prompt_rows(AutoTokenizer.from_pretrained(checkpoint.folder), checkpoint.recipe, query, documents)
    model = AutoModelForCausalLM.from_pretrained(checkpoint.folder, dtype=torch.float32)

    logits = load_llama_cpp(checkpoint, kind).score(query, documents)

    truth = reference_logits(model, rows, checkpoint.recipe.read_out)
    assert logits == pytest.approx(truth, abs={"BF16": 0.02, "Q8_0": 0.1}[kind])


def test_the_commands_of_all_goals_are_valid(
    scripts: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    import bars
    import cpu
    import loading

    options = ["--folder", str(tmp_path), "--data", str(tmp_path), "--vllm-python", "python", "--quick"]
    lines = {name: [{"what": f"{name}: speed", "bar": "2", "measured": "3"}] for name in bars.RUNS}
    for name in bars.RUNS:
        result = {"bars": lines[name], "without": {"vLLM": "no server\nits log"}}
        (tmp_path / f"{name}.json").write_text(json.dumps(result))

    bars.main(options)

    printed = capsys.readouterr().out
    assert all(f"| {name}: speed | 2 | 3 |" in printed for name in bars.RUNS)
    assert "| cold, not measured |  | vLLM: no server |" in printed
    parsers = {"cpu.py": cpu.parse, "loading.py": loading.parse}
    for name in bars.RUNS:
        _, script, *arguments = bars.command(name, bars.parse(options))
        monkeypatch.setattr(sys, "argv", [script, *arguments])
        assert parsers[Path(script).name]().out == tmp_path / f"{name}.json"


def test_loading_is_measured_in_fresh_processes(scripts: None, tmp_path: Path):
    import loading
    from shapes import SHAPES

    from checkpoints import write_checkpoint

    write_checkpoint(tmp_path / "model", SHAPES["tiny"])

    measured = {way: [loading.measure(way, tmp_path / "model")] for way in (loading.LEAST, loading.ONELOGIT)}

    result = loading.summarize(measured)
    assert set(result["seconds"][loading.ONELOGIT]) == {"import", "load", "first rank", "second rank", "total"}
    assert result["onelogit_over"][loading.LEAST]["median"] > 0
    assert [goal["bar"] for goal in result["bars"]] == ["at most 1.3"]


def test_a_trace_is_summed_without_what_an_event_calls(scripts: None):
    import vllm_operations

    def event(name: str, start: float, duration: float, thread: int = 1) -> dict[str, object]:
        return {"ph": "X", "cat": "cpu_op", "name": name, "ts": start, "dur": duration, "tid": thread}

    events = [
        event("## Call CompiledFxGraph None ##", 0, 1e6),
        event("_C::onednn_mm", 1e5, 6e5),
        event("aten::empty", 2e5, 1e5),
        event("_C::cpu_attention_with_kv_cache", 0, 5e5, thread=2),
        {"ph": "M", "name": "process_name"},
    ]

    kinds = vllm_operations.by_kind(vllm_operations.self_seconds(events))

    expected = {vllm_operations.PRODUCTS: 0.5, vllm_operations.ELEMENT_WISE: 0.4, vllm_operations.ATTENTION: 0.5}
    assert kinds == pytest.approx({vllm_operations.OTHER: 0.1, vllm_operations.CACHE: 0, **expected})
