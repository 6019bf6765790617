"""`compile=True`: the same logits from few compiled graphs, and a clear error if compiling is not possible."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch._dynamo.utils import counters
from transformers import PreTrainedModel, Qwen3Config

from onelogit.engine import optimize
from onelogit.engine.model_runner import ModelRunner
from onelogit.engine.optimize import compile_layers
from support.classifiers import classifier_of, random_rows

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit")  # PyTorch's own, when it loads its compiler
needs_a_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="PyTorch compiles for a CPU with g++")


@pytest.fixture
def qwen() -> PreTrainedModel:
    return classifier_of(Qwen3Config)


@needs_a_compiler
def test_compiled_layers_give_the_same_logits_from_few_graphs(qwen: PreTrainedModel):
    batches = [random_rows(count) for count in (40, 1, 2, 3, 7, 20)]
    plain = [ModelRunner(classifier_of(Qwen3Config)).logits(rows) for rows in batches]
    counters.clear()

    compiled = ModelRunner(qwen, 100, 10**6, is_compiled=True)
    logits = [compiled.logits(rows) for rows in batches]

    assert compiled.shares_prefixes
    for mine, expected in zip(logits, plain, strict=True):
        assert mine == pytest.approx(expected, abs=1e-5)
    assert 0 < counters["stats"]["unique_graphs"] <= 8
    assert qwen.model.layers[0]._compiled_call_impl is not None


@needs_a_compiler
def test_more_layers_need_no_more_graphs_in_bfloat16_either():
    """On a CPU, norms and MLPs are fused: PyTorch would compile each of their forward functions separately."""
    deep, plain = (classifier_of(Qwen3Config, num_hidden_layers=12) for _ in range(2))
    for classifier in (deep, plain):
        classifier.base_model.to(torch.bfloat16)
    counters.clear()

    compiled = ModelRunner(deep, is_compiled=True)

    assert 0 < counters["stats"]["unique_graphs"] <= 4
    logits, expected = (torch.tensor(each.logits(random_rows(20))) for each in (compiled, ModelRunner(plain)))
    assert (logits - expected).norm() < 0.1 * expected.norm()
    assert deep.model.layers[0]._compiled_call_impl is not None


@needs_a_compiler
def test_a_document_cache_needs_no_further_compilation():
    """The size of a token is measured by a forward pass, for whose length PyTorch must not compile again."""

    def graphs(**options: int) -> int:
        torch._dynamo.reset()
        counters.clear()
        ModelRunner(classifier_of(Qwen3Config), is_compiled=True, **options)
        return counters["stats"]["unique_graphs"]

    assert graphs(document_cache_bytes=10**6) == graphs() > 0


@needs_a_compiler
def test_compiling_is_undone_if_hidden_states_differ(qwen: PreTrainedModel, monkeypatch: pytest.MonkeyPatch):
    def compile_wrongly(model: PreTrainedModel) -> None:
        compile_layers(model)
        for layer in model.model.layers:
            layer.mlp.down_proj.weight.data.mul_(1.5)

    monkeypatch.setattr(optimize, "compile_layers", compile_wrongly)

    ModelRunner(qwen, is_compiled=True)

    assert all(layer._compiled_call_impl is None for layer in qwen.model.layers)


def test_a_missing_compiler_is_named_in_the_error(tmp_path: Path):
    environment = {**os.environ, "CXX": str(tmp_path / "no-compiler"), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    code = "from onelogit import DEMO_MODEL, Reranker; Reranker.load(DEMO_MODEL, device='cpu', compile=True)"

    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)

    said = done.stderr.splitlines()[-1]
    assert re.search(r"OnelogitError: PyTorch cannot compile Qwen3\w* here: .+; on a CPU it needs a C\+\+", said)


def test_a_model_that_computes_padded_rows_is_not_compiled(caplog: pytest.LogCaptureFixture):
    classifier = classifier_of(Qwen3Config)
    classifier.set_attn_implementation("eager")

    runner = ModelRunner(classifier, is_compiled=True)

    assert not runner.shares_prefixes
    assert "is not compiled" in caplog.text
    assert runner.logits(random_rows(3)) == pytest.approx(
        ModelRunner(classifier_of(Qwen3Config)).logits(random_rows(3)), abs=1e-5
    )
