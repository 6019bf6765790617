"""On a CUDA device, all families give the logits of the CPU in float32: shared prefixes, caches, callers, memory.

`GPU_TESTS_DEVICE=cpu` runs them on the CPU, to check that they run.
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from onelogit import Reranker
from onelogit.engine.attention.context import attends_over_prefix_tree
from onelogit.engine.forward import converted_head_logits, padded_hidden
from onelogit.prompts.token_rows import TokenRow
from onelogit.recipes.recipe import Recipe
from support.tiny import Tiny, tiny_parts

DEVICE = os.environ.get("GPU_TESTS_DEVICE", "cuda")
QUERIES = ["What is the capital of China?", "Say: 서울?", "yes no Yes No", "0 1"]
DOCUMENTS = [f"{'The capital of China is Beijing. ' * (1 + number % 7)}{number}" for number in range(40)]
HALVES = [torch.bfloat16, torch.float16]

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(DEVICE == "cuda" and not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.fixture(autouse=True)
def all_memory() -> Iterator[None]:
    yield
    if DEVICE == "cuda":
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()


def load(folder: Path, device: str = DEVICE, dtype: torch.dtype = torch.float32, **options: object) -> Reranker:
    return Reranker.load(folder, device=device, dtype=dtype, **options)  # type: ignore[arg-type]


def all_logits(reranker: Reranker) -> torch.Tensor:
    return torch.tensor([reranker.logits(query, DOCUMENTS) for query in QUERIES])


def padded_logits(reranker: Reranker) -> torch.Tensor:
    """The logits of the same rows without shared prefixes, one query at a time."""
    logits = []
    for query in QUERIES:
        ids = [reranker.prompt(query, document).ids for document in DOCUMENTS]
        hidden = padded_hidden(reranker.classifier, [TokenRow(tuple(row)) for row in ids])
        logits.append(converted_head_logits(reranker.classifier, hidden).cpu())
    return torch.stack(logits)


@pytest.fixture
def expected(tiny_qwen: Tiny) -> torch.Tensor:
    with load(tiny_qwen.folder, "cpu") as reranker:
        return all_logits(reranker)


def test_every_family_gives_the_logits_of_the_cpu(family: Recipe, checkpoint: Callable[..., Tiny]):
    folder = checkpoint("model", **tiny_parts(family), is_tied=False).folder

    with load(folder, "cpu", recipe=family) as on_cpu, load(folder, recipe=family) as on_device:
        assert torch.allclose(all_logits(on_device), all_logits(on_cpu), rtol=0, atol=2e-5)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_half_precision_is_no_further_from_float32_than_padded_rows(
    dtype: torch.dtype, family: Recipe, checkpoint: Callable[..., Tiny]
):
    folder = checkpoint("model", **tiny_parts(family), is_tied=False).folder
    with load(folder, "cpu", recipe=family) as on_cpu:
        expected = all_logits(on_cpu)

    with load(folder, dtype=dtype, recipe=family) as reranker:
        ours, padded = all_logits(reranker), padded_logits(reranker)

    errors = [(logits - expected).square().mean().sqrt() for logits in (ours, padded)]
    assert errors[0] <= 1.5 * errors[1] + 1e-3


def test_prefixes_are_shared_on_this_device(tiny_qwen: Tiny):
    for dtype in (torch.float32, *HALVES):
        with load(tiny_qwen.folder, dtype=dtype) as reranker:
            assert attends_over_prefix_tree(reranker.classifier)


@pytest.mark.parametrize("batch_tokens", [64, 256, 4096])
def test_batches_of_any_size_give_the_same_logits(batch_tokens: int, tiny_qwen: Tiny, expected: torch.Tensor):
    with load(tiny_qwen.folder, batch_tokens=batch_tokens) as reranker:
        assert torch.allclose(all_logits(reranker), expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize(
    "sizes",
    [
        {"document_cache_bytes": 1 << 24},
        {"document_cache_bytes": 60_000},
        {"document_cache_bytes": 60_000, "document_cache_host_bytes": 1 << 24},
    ],
    ids=["all documents", "few documents", "few documents and the rest on the host"],
)
def test_kept_documents_give_the_same_logits(sizes: dict[str, int], checkpoint: Callable[..., Tiny], family: Recipe):
    folder = checkpoint("model", **tiny_parts(family), is_tied=False).folder
    with load(folder, "cpu", recipe=family) as on_cpu:
        expected = all_logits(on_cpu)

    with load(folder, recipe=family, **sizes) as reranker:
        for _ in range(3):
            assert torch.allclose(all_logits(reranker), expected, rtol=0, atol=2e-5)


@pytest.mark.skipif(DEVICE == "cpu", reason="compiling for a CPU has its own tests")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_compiled_layers_give_the_same_logits(dtype: torch.dtype, tiny_qwen: Tiny):
    with load(tiny_qwen.folder, dtype=dtype) as plain, load(tiny_qwen.folder, dtype=dtype, compile=True) as compiled:
        difference = (all_logits(plain) - all_logits(compiled)).abs().max()

    assert any(layer._compiled_call_impl is not None for layer in compiled.classifier.model.layers)
    assert difference < (2e-5 if dtype == torch.float32 else 0.05)


def test_callers_at_once_get_the_logits_of_one_alone(tiny_qwen: Tiny, expected: torch.Tensor):
    with load(tiny_qwen.folder) as reranker, ThreadPoolExecutor(16) as threads:
        calls = [index % len(QUERIES) for index in range(64)]
        results = list(threads.map(lambda index: reranker.logits(QUERIES[index], DOCUMENTS), calls))

    assert torch.allclose(torch.tensor(results), expected[calls], rtol=0, atol=2e-5)


@pytest.mark.skipif(DEVICE == "cpu", reason="a CPU has no limit that a process can set for itself and survive")
def test_a_device_without_enough_memory_halves_the_batches_and_gives_the_same_logits(
    tiny_qwen: Tiny, expected: torch.Tensor
):
    with load(tiny_qwen.folder, batch_tokens=1 << 16) as reranker:
        total = torch.cuda.get_device_properties(0).total_memory
        used = torch.cuda.memory_reserved()
        torch.cuda.set_per_process_memory_fraction((used + (24 << 20)) / total)
        long = [f"{document} " * 40 for document in DOCUMENTS]
        short_of_memory = reranker.logits(QUERIES[0], long)
        torch.cuda.set_per_process_memory_fraction(1.0)

        assert short_of_memory == pytest.approx(reranker.logits(QUERIES[0], long), abs=2e-5)
        assert torch.allclose(all_logits(reranker), expected, rtol=0, atol=2e-5)
