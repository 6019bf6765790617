"""Cancelled tasks, a close while others wait, and forks, each at random moments of many calls."""

import asyncio
import os
import random
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from onelogit import OnelogitError, OverloadError, Reranker
from onelogit.serving import app
from support.faults import DOCUMENTS, QUERY, moments, seconds_of
from support.held_model import held
from support.prepared import run
from support.served import served, wait_until
from support.tiny import Tiny

QUERIES = [QUERY, "Which fruit is yellow?", "서울?", "rivers"]


async def test_tasks_cancelled_at_random_moments_harm_no_others(tiny_qwen: Tiny):
    chance = random.Random(11)
    outcomes = {"answered": 0, "cancelled": 0}

    async def call(query: str, timeout_s: float | None) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                ranking = await reranker.arank(query, DOCUMENTS)
        except TimeoutError:
            outcomes["cancelled"] += 1
            return
        outcomes["answered"] += 1
        assert {each.index: each.logit for each in ranking} == pytest.approx(dict(enumerate(expected[query])), abs=2e-5)

    with Reranker.load(tiny_qwen.folder, document_cache_bytes=300_000) as reranker:
        expected = {query: reranker.logits(query, DOCUMENTS) for query in QUERIES}
        length_s = seconds_of(lambda: reranker.logits(QUERY, DOCUMENTS))
        for _ in moments(few=2, many=25):
            timeouts = [None if number % 3 == 0 else chance.uniform(0, 20 * length_s) for number in range(40)]
            await asyncio.gather(*(call(chance.choice(QUERIES), timeout_s) for timeout_s in timeouts))
        assert len(asyncio.all_tasks()) == 1
        assert reranker.logits(QUERY, DOCUMENTS) == pytest.approx(expected[QUERY], abs=2e-5)
    assert all(outcomes.values())


def test_a_close_at_a_random_moment_answers_or_refuses_each_waiting_caller(tiny_qwen: Tiny):
    chance = random.Random(12)
    outcomes: list[str] = []

    def call(reranker: Reranker) -> None:
        try:
            while True:
                assert reranker.logits(QUERY, DOCUMENTS) == pytest.approx(expected, abs=2e-5)
                outcomes.append("answered")
        except OnelogitError as error:
            assert str(error) == "this reranker is closed; load it again"
            outcomes.append("refused")

    with Reranker.load(tiny_qwen.folder) as reranker:
        expected = reranker.logits(QUERY, DOCUMENTS)
        length_s = seconds_of(lambda: reranker.logits(QUERY, DOCUMENTS))
    for _ in moments(few=2, many=40):
        reranker = Reranker.load(tiny_qwen.folder)
        with ThreadPoolExecutor(8) as pool:
            calls = [pool.submit(call, reranker) for _ in range(8)]
            time.sleep(chance.uniform(0, 10 * length_s))
            reranker.close()
            for each in calls:
                each.result(30)
    assert outcomes.count("refused") == 8 * len(moments(few=2, many=40))
    assert "answered" in outcomes


FORKS = """
import faulthandler, os, random, sys, threading, time
sys.path.insert(0, sys.argv[3])
from onelogit import Reranker
from support.faults import DOCUMENTS, QUERY

chance, stopped = random.Random(13), threading.Event()
reranker = Reranker.load(sys.argv[1], document_cache_bytes=300_000)
expected = reranker.logits(QUERY, DOCUMENTS)
def is_right():
    return all(abs(a - b) < 2e-5 for a, b in zip(reranker.logits(QUERY, DOCUMENTS), expected, strict=True))
def call():
    while not stopped.is_set():
        assert is_right()
threads = [threading.Thread(target=call) for _ in range(4)]
for thread in threads:
    thread.start()
codes = []
for _ in range(int(sys.argv[2])):
    time.sleep(chance.uniform(0, 0.05))
    child = os.fork()
    if child == 0:
        faulthandler.dump_traceback_later(60, exit=True)
        os._exit(0 if is_right() and is_right() else 3)
    codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
stopped.set()
for thread in threads:
    thread.join()
print(set(codes), is_right())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not fork")
def test_a_fork_while_others_call_can_use_the_model(tiny_qwen: Tiny):
    tests = Path(__file__).parents[1]
    ran = run(["-c", FORKS, tiny_qwen.folder, len(moments(few=2, many=40)), tests], timeout_s=300)

    assert (ran.stdout, ran.returncode) == ("{0} True\n", 0), ran.stderr


def test_a_fork_after_loading_on_a_gpu_is_refused_instead_of_hanging(tiny_qwen: Tiny, monkeypatch: pytest.MonkeyPatch):
    """CUDA cannot be used in a forked child, and MPS hangs there."""
    with Reranker.load(tiny_qwen.folder) as reranker:
        reranker.scorer.device = "mps:0"
        assert reranker.logits(QUERY, ["a"])
        with monkeypatch.context() as forked:
            forked.setattr(os, "getpid", lambda: 1)
            with pytest.raises(OnelogitError, match="on mps:0 was loaded before this process was forked.*spawn"):
                reranker.logits(QUERY, ["a"])
        assert reranker.logits(QUERY, ["a"])


# max_waiting


def test_past_max_waiting_calls_are_refused_at_once_and_the_others_are_answered(tiny_qwen: Tiny):
    with Reranker.load(tiny_qwen.folder, max_waiting=3) as reranker, ThreadPoolExecutor(3) as pool:
        expected = reranker.logits(QUERY, DOCUMENTS)
        with held(reranker) as model:
            calls = [pool.submit(reranker.logits, QUERY, DOCUMENTS) for _ in range(2)]
            calls.append(pool.submit(asyncio.run, as_coroutine(reranker)))
            model.wait()
            wait_until(lambda: len(reranker.scorer._limit._taken[os.getpid()]) == 3)
            started = time.monotonic()
            for refused in (
                lambda: reranker.rank(QUERY, DOCUMENTS),
                lambda: reranker.predict([(QUERY, "a")]),
                lambda: asyncio.run(as_coroutine(reranker)),
            ):
                with pytest.raises(OverloadError, match="3 calls of this reranker wait.*max_waiting=3 allows.*later"):
                    refused()
            took_s = time.monotonic() - started
            model.let_go()
            answers = [call.result(30) for call in calls]

        assert took_s < 5
        assert all(answer == pytest.approx(expected, abs=2e-5) for answer in answers)
        assert reranker.logits(QUERY, DOCUMENTS) == pytest.approx(expected, abs=2e-5)


async def as_coroutine(reranker: Reranker) -> list[float]:
    ranking = await reranker.arank(QUERY, DOCUMENTS)
    return [each.logit for each in sorted(ranking, key=lambda each: each.index)]


async def test_a_call_that_is_cancelled_or_fails_gives_its_place_back(tiny_qwen: Tiny):
    with Reranker.load(tiny_qwen.folder, max_waiting=1) as reranker:
        for _ in range(3):
            with held(reranker) as model:
                task = asyncio.create_task(reranker.arank(QUERY, DOCUMENTS))
                await asyncio.to_thread(model.wait)
                with pytest.raises(OverloadError):
                    await reranker.arank(QUERY, DOCUMENTS)
                task.cancel()
                await asyncio.wait([task])
                model.let_go()
            with pytest.raises(ValueError, match="no room"):
                await reranker.arank("long " * 5000, DOCUMENTS)
            assert len(await reranker.arank(QUERY, DOCUMENTS)) == len(DOCUMENTS)


def test_the_latency_of_accepted_calls_is_bounded_under_overload(tiny_qwen: Tiny):
    """Sixteen callers that never rest: with max_waiting=2, an accepted call waits for at most one other."""

    def call(reranker: Reranker) -> None:
        end = time.monotonic() + 1.0
        while time.monotonic() < end:
            start = time.monotonic()
            try:
                reranker.logits(QUERY, DOCUMENTS)
            except OverloadError:
                refused.append(1)
                time.sleep(0.002)
            else:
                taken_s.append(time.monotonic() - start)

    taken_s: list[float] = []
    refused: list[int] = []
    with Reranker.load(tiny_qwen.folder, max_waiting=2) as reranker:
        alone_s = max(seconds_of(lambda: reranker.logits(QUERY, DOCUMENTS)) for _ in range(5))
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(call, [reranker] * 16))

    assert refused
    assert sorted(taken_s)[len(taken_s) // 2] < 10 * alone_s + 0.1


def test_a_server_answers_429_if_its_reranker_has_no_place(tiny_qwen: Tiny):
    import httpx2

    with Reranker.load(tiny_qwen.folder, max_waiting=1) as reranker, served(app(reranker)) as url:
        wait_until(lambda: httpx2.get(f"{url}/ready", trust_env=False).status_code == 200)
        with held(reranker) as model, ThreadPoolExecutor(1) as pool:
            first = pool.submit(reranker.logits, QUERY, ["a"])
            model.wait()
            answer = httpx2.post(f"{url}/rerank", json={"query": QUERY, "documents": ["a"]}, trust_env=False)
            model.let_go()
            assert first.result(30)

    assert answer.status_code == 429
    assert answer.headers["Retry-After"] == "1"
    assert "max_waiting=1" in answer.json()["message"]


def test_a_forked_child_has_all_places(tiny_qwen: Tiny, monkeypatch: pytest.MonkeyPatch):
    with Reranker.load(tiny_qwen.folder, max_waiting=1) as reranker, ThreadPoolExecutor(1) as pool:
        with held(reranker) as model:
            first = pool.submit(reranker.logits, QUERY, ["a"])
            model.wait()
            monkeypatch.setattr(os, "getpid", lambda: 1)
            with reranker.scorer._limit.place():
                with pytest.raises(OverloadError), reranker.scorer._limit.place():
                    pass
            monkeypatch.undo()
            model.let_go()
            assert first.result(30)
    assert threading.active_count() < 50
