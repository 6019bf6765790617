"""Many callers of one reranker: computed together, with the same logits as alone; and caching between their calls."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from onelogit import InputError, OnelogitError, Reranker
from support.tiny import Tiny

QUERIES = [f"query {number}?" for number in range(8)]
DOCUMENTS = ["Beijing is the capital of China.", "서울", "No, no and no.", "yes " * 40, "Yes"]


class Gate:
    """Stops the model until it is opened, and records the number of tokens of each forward pass."""

    def __init__(self, reranker: Reranker) -> None:
        self.seen: list[int] = []
        self.is_reached = threading.Event()
        self.is_open = threading.Event()
        embeddings = reranker.classifier.get_submodule("model.embed_tokens")
        self.hook = embeddings.register_forward_pre_hook(self.pass_through)

    def pass_through(self, module: object, args: tuple[torch.Tensor, ...]) -> None:
        self.seen.append(args[0].numel())
        self.is_reached.set()
        assert self.is_open.wait(timeout=20)


@pytest.fixture
def alone(reranker: Reranker) -> dict[str, list[float]]:
    return {query: reranker.logits(query, DOCUMENTS) for query in QUERIES}


@pytest.fixture
def gate(reranker: Reranker, alone: object) -> Iterator[Gate]:
    gate = Gate(reranker)
    yield gate
    gate.is_open.set()
    gate.hook.remove()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.001)


async def hold_up(reranker: Reranker, gate: Gate) -> asyncio.Task[object]:
    """A call that occupies the model until the gate opens."""
    call = asyncio.ensure_future(reranker.arank("first", ["one"]))
    await until(gate.is_reached.is_set)
    return call


def waiting(reranker: Reranker) -> int:
    return sum(len(worker.requests) for worker in reranker._scorer._scheduler._workers.values())


async def test_callers_that_wait_at_the_same_time_are_computed_as_one_prefix_tree(
    reranker: Reranker, gate: Gate, alone: dict[str, list[float]]
):
    async def logits(query: str) -> list[float]:
        return (await reranker._scorer.alogits([(query, document) for document in DOCUMENTS])).logits

    first = await hold_up(reranker, gate)
    calls = [
        asyncio.ensure_future(logits(query))
        if number % 2
        else asyncio.ensure_future(asyncio.to_thread(reranker.logits, query, DOCUMENTS))
        for number, query in enumerate(QUERIES)
    ]
    await until(lambda: waiting(reranker) == len(QUERIES))
    gate.is_open.set()

    answers = await asyncio.gather(first, *calls)

    assert len(gate.seen) == 2
    for query, logits in zip(QUERIES, answers[1:], strict=True):
        assert logits == pytest.approx(alone[query], abs=1e-5)


async def test_a_cancelled_caller_does_not_harm_the_others(
    reranker: Reranker, gate: Gate, alone: dict[str, list[float]]
):
    first = await hold_up(reranker, gate)
    calls = [asyncio.ensure_future(reranker.arank(query, DOCUMENTS)) for query in QUERIES]
    await until(lambda: waiting(reranker) == len(QUERIES))
    for call in calls[::2]:
        call.cancel()
    gate.is_open.set()

    answers = await asyncio.gather(*calls, return_exceptions=True)

    assert await first
    assert all(isinstance(answer, asyncio.CancelledError) for answer in answers[::2])
    for query, ranking in zip(QUERIES[1::2], answers[1::2], strict=True):
        assert {ranked.index: ranked.logit for ranked in ranking} == pytest.approx(
            dict(enumerate(alone[query])), abs=1e-5
        )


async def test_closing_fails_calls_that_wait(reranker: Reranker, gate: Gate):
    first = await hold_up(reranker, gate)
    calls = [asyncio.ensure_future(reranker.arank(query, DOCUMENTS)) for query in QUERIES]
    await until(lambda: waiting(reranker) == len(QUERIES))
    closing = asyncio.ensure_future(asyncio.to_thread(reranker.close))
    await until(lambda: reranker.is_closed)
    gate.is_open.set()

    await closing
    answers = await asyncio.gather(first, *calls, return_exceptions=True)

    assert all(isinstance(answer, OnelogitError) for answer in answers[1:])


def test_many_threads_get_their_own_results(reranker: Reranker, alone: dict[str, list[float]]):
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda query: reranker.logits(query, DOCUMENTS), QUERIES * 8))

    for query, logits in zip(QUERIES * 8, answers, strict=True):
        assert logits == pytest.approx(alone[query], abs=1e-5)


@pytest.mark.parametrize("family", ["ctxl-rerank-v2-1b", "Qwen3-Reranker-tiny"])
@pytest.mark.parametrize("document_cache_bytes", [0, 40_000, 10**8], ids=["none", "overflowing", "ample"])
def test_caching_between_calls_changes_no_logit(
    family: str, document_cache_bytes: int, checkpoint: Callable[..., Tiny]
):
    plain = Reranker.load(checkpoint(family).folder)
    keeping = Reranker.load(checkpoint(family).folder, document_cache_bytes=document_cache_bytes)

    for query in [*QUERIES[:3], QUERIES[0]]:
        assert keeping.logits(query, DOCUMENTS) == pytest.approx(plain.logits(query, DOCUMENTS), abs=1e-5)


def test_cached_documents_are_not_computed_again(checkpoint: Callable[..., Tiny]):
    reranker = Reranker.load(checkpoint("ctxl-rerank-v2-1b").folder, document_cache_bytes=10**8)
    gate = Gate(reranker)
    gate.is_open.set()

    reranker.logits("one query", DOCUMENTS)
    reranker.logits("another one", DOCUMENTS)

    first, second = gate.seen
    assert second < first / 2


@pytest.mark.parametrize("option", ["document_cache_bytes", "document_cache_host_bytes"])
def test_a_negative_cache_size_is_refused(option: str, tiny_qwen: Tiny):
    with pytest.raises(ValueError, match=f"{option} must be a whole number from 0 up, not -1"):
        Reranker.load(tiny_qwen.folder, **{option: -1})


def test_a_cache_only_in_the_cpus_memory_is_refused(tiny_qwen: Tiny):
    with pytest.raises(InputError, match="needs document_cache_bytes"):
        Reranker.load(tiny_qwen.folder, document_cache_host_bytes=10**6)


def test_a_cache_that_cannot_be_used_is_logged(tiny_qwen: Tiny, caplog: pytest.LogCaptureFixture):
    Reranker.load(tiny_qwen.folder, attn_implementation="eager", document_cache_bytes=10**6)

    assert "documents are not cached" in caplog.text


def test_callers_threads_do_not_compute(tiny_qwen: Tiny):
    """OpenMP would keep a team of threads for each, which would slow down the model's own."""
    computing = set()
    mark = torch.nn.modules.module.register_module_forward_hook(lambda *args: computing.add(threading.get_ident()))
    with Reranker.load(tiny_qwen.folder) as reranker:
        reranker.logits(QUERIES[0], DOCUMENTS)
    mark.remove()

    assert computing
    assert threading.get_ident() not in computing
