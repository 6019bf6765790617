"""A score does not depend on the other rows of its batch, within a bound for each dtype; repeated runs are equal.

The bounds are those that docs/reliability.md states, in logits, for rows alone and among others. The models have random
weights, whose logits differ by about 1 from row to row.
"""

import random
from collections.abc import Callable
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import DebertaV2Config, ModernBertConfig, PreTrainedModel, Qwen3Config

from onelogit import Reranker
from onelogit.engine.model_runner import ModelRunner
from onelogit.prompts.token_rows import TokenRow
from onelogit.quantization.processor import INSTRUCTIONS, capabilities
from onelogit.quantization.quantise import quantise_layers
from support.classifiers import classifier_of, encoder_of, recurrent_classifier
from support.faults import DOCUMENTS, QUERY
from support.tiny import Tiny

BOUNDS = {torch.float32: 2e-5, torch.bfloat16: 0.1, torch.float16: 0.02}


def without_sharing(runner: ModelRunner) -> ModelRunner:
    runner.shares_prefixes = False
    return runner


def converted(classifier: PreTrainedModel, dtype: torch.dtype) -> PreTrainedModel:
    classifier.base_model.to(dtype)
    return classifier


def in_8_bits(classifier: PreTrainedModel) -> PreTrainedModel:
    if not any(capabilities().get(name) for name in INSTRUCTIONS):
        pytest.skip("needs VNNI or AMX")
    quantise_layers(classifier)
    return classifier


def bound_of(name: str, dtype: torch.dtype) -> float:
    return 0.2 if "int8" in name else BOUNDS[dtype]


BACKENDS: dict[str, Callable[[torch.dtype], ModelRunner]] = {
    "prefix tree": lambda dtype: ModelRunner(converted(classifier_of(Qwen3Config), dtype), 200),
    "prefix tree, cached": lambda dtype: ModelRunner(converted(classifier_of(Qwen3Config), dtype), 200, 10**6, 10**6),
    "recurrent": lambda dtype: ModelRunner(converted(recurrent_classifier(), dtype), 200),
    "padded decoder": lambda dtype: without_sharing(ModelRunner(converted(classifier_of(Qwen3Config), dtype), 200)),
    "packed decoder": lambda dtype: ModelRunner(converted(classifier_of(Qwen3Config, is_causal=False), dtype), 200),
    "packed encoder": lambda dtype: ModelRunner(encoder_of(ModernBertConfig, local_attention=16).to(dtype), 200),
    "padded encoder": lambda dtype: ModelRunner(encoder_of(DebertaV2Config, relative_attention=True).to(dtype), 200),
    "prefix tree, int8": lambda dtype: ModelRunner(in_8_bits(converted(classifier_of(Qwen3Config), dtype)), 200),
}
CASES = [(name, dtype) for name in BACKENDS for dtype in BOUNDS]


@cache
def runner_of(name: str, dtype: torch.dtype) -> ModelRunner:
    return BACKENDS[name](dtype)


def row_of(seed: int, cacheable: bool) -> TokenRow:
    """A row that shares a prefix with many others."""
    chance = random.Random(seed)
    first = [3, 4, 5, *([10 + seed % 5] * (seed % 9))]
    own = [chance.randrange(3, 400) for _ in range(chance.randint(1, 70))]
    return TokenRow((*first, *own), (), (3, len(first)) if cacheable and len(first) > 3 else ())


ROWS = st.lists(st.integers(0, 10_000), min_size=1, max_size=24, unique=True)


@pytest.mark.parametrize(("name", "dtype"), CASES, ids=[f"{name}-{str(dtype)[6:]}" for name, dtype in CASES])
@settings(max_examples=6)
@given(seed=st.integers(0, 10_000), mates=ROWS, batch_tokens=st.sampled_from([64, 300, 5000]))
def test_a_logit_does_not_depend_on_the_mates_of_its_row(
    name: str, dtype: torch.dtype, seed: int, mates: list[int], batch_tokens: int
):
    runner = runner_of(name, dtype)
    runner.batch_tokens = batch_tokens
    row, others = row_of(seed, "cached" in name), [row_of(mate, "cached" in name) for mate in mates]

    alone = runner.logits([row])[0]
    among = [runner.logits([*others[:place], row, *others[place:]])[place] for place in (0, len(others))]

    for logit in among:
        assert logit == pytest.approx(alone, abs=bound_of(name, dtype))


@pytest.mark.parametrize(("name", "dtype"), CASES, ids=[f"{name}-{str(dtype)[6:]}" for name, dtype in CASES])
def test_the_same_call_gives_the_same_bits(name: str, dtype: torch.dtype):
    """On a CPU, for the same rows in the same order; with a cache, once it is warm."""
    runner = runner_of(name, dtype)
    runner.batch_tokens = 300
    rows = [row_of(seed, "cached" in name) for seed in range(12)]
    runner.logits(rows)

    first, second = runner.logits(rows), runner.logits(rows)

    assert first == second


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_another_load_gives_the_same_bits(dtype: str, tiny_qwen: Tiny):
    runs = []
    for _ in range(2):
        with Reranker.load(tiny_qwen.folder, dtype=dtype) as reranker:
            runs.append(reranker.logits(QUERY, DOCUMENTS))

    assert runs[0] == runs[1]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_ranks_as_float32_where_logits_differ(dtype: str, tiny_qwen: Tiny):
    """Two documents change places only if their logits in float32 are closer than twice the bound."""
    with (
        Reranker.load(tiny_qwen.folder, dtype="float32") as exact,
        Reranker.load(tiny_qwen.folder, dtype=dtype) as half,
    ):
        expected, found = exact.logits(QUERY, DOCUMENTS), half.logits(QUERY, DOCUMENTS)

    error = max(abs(a - b) for a, b in zip(expected, found, strict=True))
    spread = max(expected) - min(expected)
    assert error < 0.2 * spread
    for one in range(len(DOCUMENTS)):
        for other in range(one):
            if abs(expected[one] - expected[other]) > 2 * error:
                assert (expected[one] > expected[other]) == (found[one] > found[other])
