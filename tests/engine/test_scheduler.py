"""Many callers, one model: each gets its own logits, waits no longer than needed, and is always answered."""

import asyncio
import gc
import signal
import sys
import threading
import traceback
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onelogit import OnelogitError
from onelogit.engine.device_transfer import PendingLogits
from support.scheduling import (
    PATIENCE_S,
    POISON,
    DirectScheduler,
    Model,
    behind_a_held_call,
    ready,
    scheduler_of,
    start,
)


class BaseError(BaseException):
    """Not an Exception, but its caller must still be answered."""


# What a caller gets


@given(items=st.lists(st.integers(0, 50), max_size=9), max_batch_cost=st.integers(1, 60))
def test_the_logits_come_in_the_order_of_the_items_however_they_were_computed(items: list[int], max_batch_cost: int):
    def backwards(items: Sequence[int]) -> Iterator[PendingLogits]:
        for index in reversed(range(len(items))):
            yield ready([index], [items[index] + 0.5])

    scheduler = scheduler_of(backwards, max_batch_cost)
    try:
        assert scheduler.logits(items) == [item + 0.5 for item in items]
        assert asyncio.run(scheduler.alogits(items)) == [item + 0.5 for item in items]
    finally:
        scheduler.close()


async def test_no_items_need_no_thread(scheduler: DirectScheduler, model: Model):
    before = threading.active_count()

    assert scheduler.logits([]) == [] == await scheduler.alogits([])
    assert threading.active_count() == before
    assert model.calls == []


def test_the_callers_list_may_change_while_it_is_computed(scheduler: DirectScheduler, model: Model):
    model.hold()
    items = [1, 2, 3]
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(scheduler.logits, items)
        assert model.arrived.acquire(timeout=PATIENCE_S)
        items.clear()
        model.let_pass(2)

        assert waiting.result() == [2, 4, 6]


def test_all_calls_of_all_threads_are_computed_in_one_thread(scheduler: DirectScheduler, model: Model):
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(scheduler.logits, [[1], [2], [3], [4]]))
    asyncio.run(scheduler.alogits([5]))

    assert len(model.threads) == 1


# Together, in the order of arrival


async def test_callers_that_wait_are_computed_together(scheduler: DirectScheduler, model: Model):
    tasks = await behind_a_held_call(scheduler, model, [2], [3, 4], [5])
    model.let_pass(3)

    assert await asyncio.gather(*tasks) == [[2, 2], [4], [6, 8], [10]]
    assert model.calls == [[1, 1], [2, 3, 4, 5]]


async def test_threads_and_coroutines_are_computed_together(scheduler: DirectScheduler, model: Model):
    tasks = await behind_a_held_call(scheduler, model, [2])
    thread = asyncio.create_task(asyncio.to_thread(scheduler.logits, [3]))
    while len(next(iter(scheduler._workers.values())).requests) < 2:
        await asyncio.sleep(0.001)
    model.let_pass(2)

    assert await asyncio.gather(*tasks, thread) == [[2, 2], [4], [6]]
    assert model.calls == [[1, 1], [2, 3]]


async def test_a_batch_ends_before_the_request_that_exceeds_its_cost_and_no_request_overtakes(model: Model):
    scheduler = scheduler_of(model, max_batch_cost=10)
    tasks = await behind_a_held_call(scheduler, model, [4], [6], [7], [4], [1])
    model.let_pass(9)
    await asyncio.gather(*tasks)
    scheduler.close()

    assert model.calls == [[1, 1], [4, 6], [7], [4, 1]]


async def test_a_request_above_the_maximum_cost_is_computed_alone(model: Model):
    scheduler = scheduler_of(model, max_batch_cost=10)
    tasks = await behind_a_held_call(scheduler, model, [30, 40], [1])
    model.let_pass(9)
    await asyncio.gather(*tasks)
    scheduler.close()

    assert model.calls == [[1, 1], [30, 40], [1]]


async def test_a_caller_is_answered_before_the_rest_of_its_batch_is_computed(scheduler: DirectScheduler, model: Model):
    first, second, third = await behind_a_held_call(scheduler, model, [2, 3], [4, 5])
    model.let_pass(2)

    assert await asyncio.wait_for(second, PATIENCE_S) == [4, 6]
    assert first.done()
    assert not third.done()
    model.let_pass(1)
    assert await third == [8, 10]


# Cancelled


async def test_a_call_cancelled_while_it_waits_is_not_computed(scheduler: DirectScheduler, model: Model):
    first, second, third = await behind_a_held_call(scheduler, model, [2], [3])
    second.cancel()
    await asyncio.wait([second])
    model.let_pass(2)

    assert await asyncio.gather(first, third) == [[2, 2], [6]]
    assert model.calls == [[1, 1], [3]]


async def test_a_call_cancelled_while_it_is_computed_does_not_harm_others(scheduler: DirectScheduler, model: Model):
    tasks = await behind_a_held_call(scheduler, model, [2], [3, 4, 5], [6])
    model.let_pass(1)
    await model.reached()
    tasks[2].cancel()
    await asyncio.wait([tasks[2]])
    model.let_pass(9)

    assert await asyncio.gather(tasks[0], tasks[1], tasks[3]) == [[2, 2], [4], [12]]
    assert tasks[2].cancelled()
    assert model.batches == 4


async def test_computing_stops_once_no_caller_waits(scheduler: DirectScheduler, model: Model):
    model.hold()
    seen: list[int] = []
    tasks = [asyncio.create_task(scheduler.alogits([1] * 20, seen.append))]
    await model.reached()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.001):
            await tasks[0]
    model.let_pass(99)

    assert await scheduler.alogits([7]) == [14]
    assert model.closed_early >= 1
    assert model.batches == 2
    assert seen == []


async def test_a_coroutine_that_is_dropped_while_it_waits_is_not_computed(scheduler: DirectScheduler, model: Model):
    tasks = await behind_a_held_call(scheduler, model)
    dropped = scheduler.alogits([2])
    dropped.send(None)
    dropped.close()
    model.let_pass(9)

    assert await asyncio.gather(*tasks, scheduler.alogits([3])) == [[2, 2], [6]]
    assert model.calls == [[1, 1], [3]]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals for threads")
def test_a_keyboard_interrupt_ends_the_wait_and_the_computing(model: Model):
    def interrupting(items: Sequence[int]) -> Iterator[PendingLogits]:
        for pending in model(items):
            while not interrupted.wait(0.001):  # again: a signal just before a wait does not end it
                signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            yield pending

    def interrupt(*_: object) -> None:
        if not interrupted.is_set():
            interrupted.set()
            raise KeyboardInterrupt

    scheduler, interrupted = scheduler_of(interrupting), threading.Event()
    handler = signal.signal(signal.SIGINT, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            scheduler.logits([1] * 20)

        assert scheduler.logits([3]) == [6]
        assert model.batches < 11
    finally:
        signal.signal(signal.SIGINT, handler)
        scheduler.close()


# Failing


async def test_only_the_call_at_fault_fails_with_its_own_error(scheduler: DirectScheduler, model: Model):
    tasks = await behind_a_held_call(scheduler, model, [2], [POISON, 4], [5])
    model.let_pass(99)
    answers = await asyncio.gather(*tasks, return_exceptions=True)

    assert [answers[0], answers[1], answers[3]] == [[2, 2], [4], [10]]
    assert isinstance(answers[2], ArithmeticError)
    assert "__call__" in {frame.name for frame in traceback.extract_tb(answers[2].__traceback__)}
    assert answers[2].__context__ is None


async def test_after_a_failure_only_what_is_missing_is_computed_again(scheduler: DirectScheduler, model: Model):
    tasks = await behind_a_held_call(scheduler, model, [2, 3], [4, 5, 6], [POISON])
    model.let_pass(99)
    await asyncio.gather(*tasks, return_exceptions=True)

    assert model.calls[1:] == [[2, 3, 4, 5, 6, POISON], [6], [POISON]]


@pytest.mark.parametrize("error", [ArithmeticError, BaseError, GeneratorExit, StopIteration])
async def test_a_call_alone_fails_with_what_was_raised(error: type[BaseException]):
    def failing(items: Sequence[int]) -> Iterator[PendingLogits]:
        raise error

    scheduler = scheduler_of(failing)
    with pytest.raises(RuntimeError if error is StopIteration else error):
        await asyncio.to_thread(scheduler.logits, [1])
    scheduler.close()


async def test_an_error_leaves_neither_the_scheduler_nor_its_thread(model: Model):
    """Without the garbage collector: an error that keeps the frames of a failed batch would keep its GPU memory."""
    gc.disable()
    try:
        scheduler = scheduler_of(model)
        with suppress(ArithmeticError):
            scheduler.logits([1, POISON])
        with suppress(ArithmeticError):
            await scheduler.alogits([1, POISON])
        with suppress(ZeroDivisionError):
            scheduler.logits([1], lambda count: count // 0)
        gone = weakref.ref(scheduler)
        del scheduler
        (thread,) = model.threads
        await asyncio.to_thread(thread.join, PATIENCE_S)

        assert gone() is None
        assert not thread.is_alive()
    finally:
        gc.enable()


BUGS = {
    "twice in a batch": [ready([0, 0, 1, 2], [1, 1, 1, 1])],
    "twice": [ready([0], [1]), ready([0, 1, 2], [1, 1, 1])],
    "ended early": [ready([0], [1])],
    "nothing": [],
    "not there": [ready([0, 1], [1, 1]), ready([3], [1])],
    "negative": [ready([0, 1], [1, 1]), ready([-1], [1])],
}


@pytest.mark.parametrize("batches", BUGS.values(), ids=BUGS)
def test_more_or_less_than_one_logit_for_an_item_is_an_error(batches: list[PendingLogits]):
    scheduler = scheduler_of(lambda items: iter(batches))
    with pytest.raises(OnelogitError, match="please report this"):
        scheduler.logits([1, 2, 3])
    scheduler.close()


def test_fewer_logits_than_indices_are_an_error():
    scheduler = scheduler_of(lambda items: iter([ready([0, 1], [1.0])]))
    with pytest.raises(ValueError, match="shorter"):
        scheduler.logits([1, 2])
    scheduler.close()


async def test_a_logit_left_out_fails_its_own_caller_only(model: Model):
    def forgetful(items: Sequence[int]) -> Iterator[PendingLogits]:
        for pending in model(items):
            (first, _), *_ = pending.logits()
            if items[first] != 13:
                yield pending

    scheduler = scheduler_of(forgetful)
    first, second, third = await behind_a_held_call(scheduler, model, [13, 13], [2])
    model.let_pass(9)

    assert await asyncio.gather(first, third) == [[2, 2], [4]]
    with pytest.raises(OnelogitError, match="2 of 2 items got no logit"):
        await second
    scheduler.close()


def test_an_item_without_a_cost_is_the_callers_own_error(scheduler: DirectScheduler):
    with pytest.raises(TypeError, match="abs"):
        scheduler.logits(["one"])  # type: ignore[list-item]

    assert scheduler.logits([1]) == [2]


# Progress


async def test_progress_counts_the_callers_own_items_once(scheduler: DirectScheduler, model: Model):
    tasks = await behind_a_held_call(scheduler, model)
    seen: list[list[int]] = [[], []]
    calls = [([2, 3, 4], seen[0]), ([5, 6, 7, POISON], seen[1])]
    tasks += [asyncio.create_task(scheduler.alogits(items, counts.append)) for items, counts in calls]
    await asyncio.sleep(0)
    model.let_pass(99)
    await asyncio.wait(tasks)

    assert seen == [[2, 1], [1, 2]]


@pytest.mark.parametrize("error", [ZeroDivisionError, BaseError])
async def test_an_error_in_progress_fails_that_call_only(
    scheduler: DirectScheduler, model: Model, error: type[BaseException]
):
    def fail(count: int) -> None:
        raise error

    tasks = await behind_a_held_call(scheduler, model)
    failing = asyncio.create_task(asyncio.to_thread(scheduler.logits, [2, 3], fail))
    while not next(iter(scheduler._workers.values())).requests:
        await asyncio.sleep(0.001)
    tasks += await start(scheduler, [5])
    model.let_pass(99)

    assert await asyncio.gather(*tasks) == [[2, 2], [10]]
    assert model.calls == [[1, 1], [2, 3, 5]]
    with pytest.raises(error):
        await failing


async def test_a_call_cancelled_at_its_last_item_does_not_harm_others(scheduler: DirectScheduler, model: Model):
    def cancel(count: int) -> None:
        loop.call_soon_threadsafe(cancelled.cancel)
        assert is_cancelled.wait(PATIENCE_S)

    loop, is_cancelled = asyncio.get_running_loop(), threading.Event()
    tasks = await behind_a_held_call(scheduler, model)
    cancelled = asyncio.create_task(scheduler.alogits([2, 3], cancel))
    cancelled.add_done_callback(lambda task: is_cancelled.set())
    await asyncio.sleep(0)
    tasks += await start(scheduler, [5])
    model.let_pass(99)

    assert await asyncio.gather(*tasks) == [[2, 2], [10]]
    assert cancelled.cancelled()
    assert model.calls == [[1, 1], [2, 3, 5]]


def test_progress_may_not_ask_for_logits_itself(scheduler: DirectScheduler):
    with pytest.raises(OnelogitError, match="another thread"):
        scheduler.logits([1], lambda count: scheduler.logits([2]))

    assert scheduler.logits([3]) == [6]
