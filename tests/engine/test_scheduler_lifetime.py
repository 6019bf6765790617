"""A scheduler from its first call to its close, in threads, event loops and processes, with many callers at once."""

import asyncio
import gc
import multiprocessing
import os
import random
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from onelogit import OnelogitError
from support.scheduling import PATIENCE_S, POISON, DirectScheduler, Model, behind_a_held_call, scheduler_of, start

# Closing


async def test_a_closed_scheduler_refuses(scheduler: DirectScheduler):
    scheduler.logits([1])
    assert not scheduler.is_closed
    scheduler.close()

    assert scheduler.is_closed
    for items in ([1], []):
        with pytest.raises(OnelogitError, match="this reranker is closed; load it again"):
            scheduler.logits(items)
        with pytest.raises(OnelogitError, match="this reranker is closed; load it again"):
            await scheduler.alogits(items)


async def test_closing_completes_the_current_batch_and_fails_the_other_calls(scheduler: DirectScheduler, model: Model):
    model.hold()
    tasks = await start(scheduler, [1, 2, 3, 4])
    await model.reached()
    tasks += await start(scheduler, [5], [6])
    closing = [asyncio.create_task(asyncio.to_thread(scheduler.close)) for _ in range(3)]
    while not scheduler.is_closed:
        await asyncio.sleep(0.001)
    assert not any(task.done() for task in closing)
    model.let_pass(1)
    await asyncio.gather(*closing)

    for error in await asyncio.gather(*tasks, return_exceptions=True):
        assert isinstance(error, OnelogitError)
        assert str(error) == "this reranker is closed; load it again"
    assert model.batches == 1
    assert not any(thread.is_alive() for thread in model.threads)
    scheduler.close()


async def test_a_call_completed_by_the_last_batch_before_a_close_is_answered(scheduler: DirectScheduler, model: Model):
    tasks = await behind_a_held_call(scheduler, model)
    closing = asyncio.create_task(asyncio.to_thread(scheduler.close))
    while not scheduler.is_closed:
        await asyncio.sleep(0.001)
    model.let_pass(1)
    await closing

    assert await tasks[0] == [2, 2]


def test_closing_from_progress_does_not_wait_for_itself(scheduler: DirectScheduler, model: Model):
    with pytest.raises(OnelogitError, match="closed"):
        scheduler.logits([1] * 20, lambda count: scheduler.close())
    (thread,) = model.threads
    thread.join(PATIENCE_S)

    assert not thread.is_alive()
    assert model.batches == 1


def test_closing_releases_the_model():
    model = Model()
    scheduler, gone = scheduler_of(model), weakref.ref(model)
    scheduler.logits([1])
    scheduler.close()
    del model

    assert gone() is None


def test_a_call_that_a_close_overtakes_is_refused():
    scheduler = DirectScheduler(Model(), cost_of=lambda item: scheduler.close() or item, max_batch_cost=9)

    with pytest.raises(OnelogitError, match="this reranker is closed; load it again"):
        scheduler.logits([1])


def test_a_call_for_which_no_thread_can_start_says_so_and_is_not_computed_later(
    scheduler: DirectScheduler, model: Model, monkeypatch: pytest.MonkeyPatch
):
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            scheduler.logits([1])

    assert scheduler.logits([2]) == [4]
    assert model.calls == [[2]]


def test_calls_and_a_close_at_the_same_time_all_return():
    def call_often(scheduler: DirectScheduler) -> bool:
        barrier.wait(PATIENCE_S)
        with suppress(OnelogitError):
            while True:
                assert scheduler.logits([1, 2]) == [2, 4]
        return True

    barrier = threading.Barrier(5)
    with ThreadPoolExecutor(4) as pool:
        for _ in range(20):
            scheduler = scheduler_of(Model())
            calls = [pool.submit(call_often, scheduler) for _ in range(4)]
            barrier.wait(PATIENCE_S)
            time.sleep(0.001)
            scheduler.close()

            assert all(future.result(PATIENCE_S) for future in calls)


def test_a_scheduler_without_references_is_freed_with_its_model_and_thread():
    model = Model()
    thread_of, gone = model.threads, weakref.ref(model)
    scheduler = scheduler_of(model)
    scheduler.logits([1])
    del model, scheduler
    gc.collect()
    (thread,) = thread_of
    thread.join(PATIENCE_S)

    assert gone() is None
    assert not thread.is_alive()


def test_a_scheduler_stays_while_a_caller_waits_for_it(model: Model):
    model.hold()
    scheduler = scheduler_of(model)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(scheduler.logits, [1])
        assert model.arrived.acquire(timeout=PATIENCE_S)
        del scheduler
        gc.collect()
        model.let_pass(1)

        assert waiting.result(PATIENCE_S) == [2]


def test_the_interpreter_ends_with_a_scheduler_that_was_never_closed():
    program = """
from support.scheduling import DirectScheduler, ready
scheduler = DirectScheduler(lambda items: iter([ready([0], [1.0])]), cost_of=abs, max_batch_cost=1)
assert scheduler.logits([1]) == [1.0]
"""

    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", program]
    assert subprocess.run(command, env=environment, check=False, timeout=10 * PATIENCE_S).returncode == 0


# Event loops


async def test_the_event_loop_is_not_blocked_while_the_model_computes(scheduler: DirectScheduler, model: Model):
    """The model waits for the next step of the event loop, which would never come if the loop were blocked."""
    model.hold()
    waiting = asyncio.create_task(scheduler.alogits([1, 2]))
    await asyncio.sleep(0)
    model.let_pass(1)

    assert await waiting == [2, 4]


def test_event_loops_in_several_threads_share_a_scheduler(scheduler: DirectScheduler):
    async def call_often(start: int) -> list[list[float]]:
        return await asyncio.gather(*(scheduler.alogits([start, item]) for item in range(5)))

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda start: asyncio.run(call_often(start)), range(4)))

    assert answers == [[[2 * start, 2 * item] for item in range(5)] for start in range(4)]


def test_an_event_loop_that_ends_while_it_waits_leaves_the_scheduler_usable(scheduler: DirectScheduler, model: Model):
    async def leave() -> None:
        task = asyncio.create_task(scheduler.alogits([1] * 20))
        tasks.append(task)
        await model.reached()

    tasks: list[asyncio.Task[list[float]]] = []
    model.hold()
    asyncio.run(leave())
    model.let_pass(99)

    assert tasks[0].cancelled()
    assert scheduler.logits([3]) == [6]
    assert model.batches == 2


# Processes


def _ask(scheduler: DirectScheduler, answers: "multiprocessing.connection.Connection") -> None:
    answers.send([scheduler.logits([3, 4]), asyncio.run(scheduler.alogits([5]))])
    scheduler.close()


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not fork")
def test_a_forked_process_computes_in_a_thread_of_its_own(scheduler: DirectScheduler, model: Model):
    model.hold()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(scheduler.logits, [1, 2])
        assert model.arrived.acquire(timeout=PATIENCE_S)
        model.let_pass(9)
        waiting.result(PATIENCE_S)
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    child = context.Process(target=_ask, args=(scheduler, there))
    child.start()
    try:
        assert here.poll(PATIENCE_S)
        assert here.recv() == [[6, 8], [10]]
        assert scheduler.logits([6]) == [12]
    finally:
        child.join(PATIENCE_S)
        child.kill()
    assert child.exitcode == 0


# Many at once


def test_no_answer_is_mixed_up_among_many_threads(model: Model):
    def call_often(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(100):
            items = [chance.randrange(1000) for _ in range(chance.randrange(12))]
            assert scheduler.logits(items) == [2 * item for item in items]

    scheduler = scheduler_of(model, max_batch_cost=5000)
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(call_often, range(16)))
    scheduler.close()


async def test_no_answer_is_mixed_up_among_many_coroutines_that_are_cancelled_at_random(model: Model):
    async def call_often(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(30):
            items = [chance.choice((chance.randrange(1000), POISON)) for _ in range(1 + chance.randrange(3))]
            timeout_s = chance.choice((None, 0, 0.0005))
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    try:
                        assert await scheduler.alogits(items) == [2 * item for item in items]
                        assert POISON not in items
                        outcomes.append("answered")
                    except ArithmeticError:
                        assert POISON in items
                        outcomes.append("failed")
                    except asyncio.CancelledError:
                        outcomes.append("cancelled")
                        raise

    outcomes: list[str] = []
    scheduler = scheduler_of(model, max_batch_cost=5000)
    await asyncio.gather(*map(call_often, range(20)))
    scheduler.close()

    assert len(outcomes) == 600
    assert set(outcomes) == {"answered", "failed", "cancelled"}
