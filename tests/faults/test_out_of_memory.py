"""Memory that runs out at any operation of a call, of loading, or of a cache: right results, or one clear error."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import pytest
import torch
from transformers import ModernBertConfig, PreTrainedModel, Qwen3Config

from onelogit import CheckpointError, DeviceMemoryError, Reranker
from onelogit.engine.model_runner import ModelRunner
from onelogit.local import reranker as local_reranker
from onelogit.local import scorer as local_scorer
from onelogit.prompts.token_rows import TokenRow
from support.classifiers import classifier_of, encoder_of, random_rows, recurrent_classifier
from support.faults import DOCUMENTS, QUERY, MemoryRunsOut, chosen
from support.tiny import Tiny

START, QUERY_START = (5, 6, 7), (8, 9)


def document_first() -> list[TokenRow]:
    """Rows whose documents are kept between calls."""
    return [
        TokenRow((*START, *([100 + document] * (10 + document)), *QUERY_START, 50 + query), (), (3, 13 + document))
        for query in range(2)
        for document in range(6)
    ]


@cache
def encoder() -> PreTrainedModel:
    return encoder_of(ModernBertConfig, local_attention=16)


def padded(runner: ModelRunner) -> ModelRunner:
    runner.shares_prefixes = False
    return runner


RUNNERS: dict[str, tuple[Callable[[], ModelRunner], Callable[[], list[TokenRow]]]] = {
    "prefix tree": (lambda: ModelRunner(classifier_of(Qwen3Config), 200), lambda: random_rows(14)),
    "prefix tree, cached": (lambda: ModelRunner(classifier_of(Qwen3Config), 200, 10**6, 10**6), document_first),
    "prefix tree, overflowing": (lambda: ModelRunner(classifier_of(Qwen3Config), 100, 100_000, 10**5), document_first),
    "recurrent": (lambda: ModelRunner(recurrent_classifier(), 200), lambda: random_rows(14)),
    "recurrent, cached": (lambda: ModelRunner(recurrent_classifier(), 200, 10**7), document_first),
    "padded": (lambda: padded(ModelRunner(classifier_of(Qwen3Config), 400)), lambda: random_rows(14)),
    "packed": (lambda: ModelRunner(encoder(), 400), lambda: random_rows(14)),
}


def measured(name: str) -> tuple[ModelRunner, list[TokenRow], list[float], int]:
    """A runner, rows, their logits from another runner, and how many operations computing them takes."""
    make, rows_of = RUNNERS[name]
    runner, rows = make(), rows_of()
    expected = make().logits(rows)
    with MemoryRunsOut() as counted:
        runner.logits(rows)
    return runner, rows, expected, counted.count


@pytest.mark.parametrize("name", RUNNERS)
def test_memory_that_runs_out_once_loses_nothing(name: str):
    """At every kind of operation: of a batch, of the head, of reading a cache and of writing to it."""
    runner, rows, expected, operations = measured(name)
    batch_tokens = runner.batch_tokens

    for at in {*chosen(operations, few=5, many=400), operations}:  # also at the last
        runner.batch_tokens = batch_tokens
        with MemoryRunsOut(at):
            logits = runner.logits(rows)
        assert logits == pytest.approx(expected, abs=2e-5), at
        assert runner.logits(rows) == pytest.approx(expected, abs=2e-5), at


@pytest.mark.parametrize("name", RUNNERS)
def test_memory_that_stays_short_is_one_clear_error_and_the_next_call_works(name: str):
    runner, rows, expected, operations = measured(name)
    batch_tokens = runner.batch_tokens

    refused = 0
    for at in {*chosen(operations, few=2, many=60, seed=1), operations}:
        try:
            with MemoryRunsOut(at, lasts=True):
                logits = runner.logits(rows)
        except DeviceMemoryError as error:
            refused += 1
            assert "not even the smallest batch fits" in str(error)
            assert "lower max_tokens" in str(error)
            assert runner.batch_tokens == batch_tokens
        else:  # only what is kept for later calls was left to do
            assert logits == pytest.approx(expected, abs=2e-5), at
        assert runner.logits(rows) == pytest.approx(expected, abs=2e-5), at
    assert refused


@pytest.fixture
def in_one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Load in this thread, in which memory runs out."""

    def at_once(work: Callable[[], Any]) -> Any:
        return work()

    monkeypatch.setattr(local_reranker, "in_temporary_thread", at_once)
    monkeypatch.setattr(local_scorer, "in_temporary_thread", at_once)
    yield


@pytest.mark.usefixtures("in_one_thread")
@pytest.mark.parametrize("lasts", [False, True])
@pytest.mark.parametrize("options", [{}, {"document_cache_bytes": 10**6}], ids=["plain", "cached"])
def test_memory_that_runs_out_while_loading_is_one_clear_error(options: dict[str, int], lasts: bool, tiny_qwen: Tiny):
    with Reranker.load(tiny_qwen.folder) as plain:
        expected = plain.logits(QUERY, DOCUMENTS)
    with MemoryRunsOut() as counted:
        Reranker.load(tiny_qwen.folder, **options).close()

    outcomes = set()
    for at in chosen(counted.count, few=4, many=200, seed=2):
        try:
            with MemoryRunsOut(at, lasts=lasts):
                reranker = Reranker.load(tiny_qwen.folder, **options)
        except (CheckpointError, DeviceMemoryError, ValueError) as error:
            outcomes.add("refused")
            assert "memory" in str(error), at
            assert "\n" not in str(error), at
            continue
        outcomes.add("loaded")
        with reranker:
            assert reranker.logits(QUERY, DOCUMENTS) == pytest.approx(expected, abs=2e-5), at
    assert "refused" in outcomes
    with Reranker.load(tiny_qwen.folder, **options) as again:
        assert again.logits(QUERY, DOCUMENTS) == pytest.approx(expected, abs=2e-5)


def test_a_prompt_too_large_for_the_memory_is_an_error_of_its_caller_only(tiny_qwen: Tiny):
    """A model that computes whole rows, of which one is too long; with a prefix tree, its parts would fit."""

    def allocate(module: object, args: tuple[torch.Tensor, ...]) -> None:
        if args[0].numel() > 400:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    with Reranker.load(tiny_qwen.folder, attn_implementation="eager") as reranker:
        expected = reranker.logits(QUERY, DOCUMENTS[2:8])
        embeddings = reranker.classifier.get_submodule("model.embed_tokens")
        hook = embeddings.register_forward_pre_hook(allocate)
        with ThreadPoolExecutor(4) as pool:
            failing = pool.submit(reranker.logits, QUERY, [*DOCUMENTS[2:8], "long " * 300])
            others = [pool.submit(reranker.logits, QUERY, DOCUMENTS[2:8]) for _ in range(3)]
            with pytest.raises(DeviceMemoryError, match="lower max_tokens") as caught:
                failing.result(60)
            assert all(other.result(60) == pytest.approx(expected, abs=2e-5) for other in others)
        assert isinstance(caught.value, MemoryError)
        assert "\n" not in str(caught.value)
        assert reranker.logits(QUERY, DOCUMENTS[2:8]) == pytest.approx(expected, abs=2e-5)
        hook.remove()
