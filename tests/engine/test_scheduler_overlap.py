"""A device beside the CPU: the next batch is launched before the logits of the last one are waited for."""

import asyncio
import gc
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import suppress

import pytest

from onelogit import OnelogitError
from support.scheduling import (
    BOMB,
    MINE,
    PATIENCE_S,
    POISON,
    Device,
    DeviceBatch,
    DirectScheduler,
    scheduler_of,
    start,
)


@pytest.fixture
def device() -> Device:
    return Device()


@pytest.fixture
def scheduler(device: Device) -> Iterator[DirectScheduler]:
    scheduler = scheduler_of(device)
    yield scheduler
    device.finish()
    scheduler.close()


async def test_logits_are_read_once_the_next_batch_of_their_call_is_launched(
    scheduler: DirectScheduler, device: Device
):
    (task,) = await start(scheduler, [1, 2, 3, 4, 5])
    await device.reached(("launch", 1, 2), ("launch", 3, 4), ("read", 1, 2))
    await device.arrive(0)
    await device.reached(*device.events[:3], ("launch", 5), ("read", 3, 4))
    device.finish()

    assert await task == [2, 4, 6, 8, 10]
    assert device.events[5:] == [("read", 5)]


async def test_the_next_call_is_launched_before_the_logits_of_the_last_one_are_read(
    scheduler: DirectScheduler, device: Device
):
    tasks = await start(scheduler, [1])
    await device.reached(("launch", 1))
    tasks += await start(scheduler, [2])
    await device.reached(("launch", 1), ("launch", 2), ("read", 1))
    assert not any(task.done() for task in tasks)
    await device.arrive(0)
    assert await tasks[0] == [2]
    await device.arrive(1)

    assert await tasks[1] == [4]
    assert device.events[3:] == [("read", 2)]


async def test_no_more_than_one_batch_is_launched_ahead(scheduler: DirectScheduler, device: Device):
    tasks = await start(scheduler, [1])
    await device.reached(("launch", 1))
    tasks += await start(scheduler, [2])
    await device.reached(("launch", 1), ("launch", 2), ("read", 1))
    tasks += await start(scheduler, [3])
    await asyncio.sleep(0.02)
    assert len(device.batches) == 2
    device.finish()

    assert await asyncio.gather(*tasks) == [[2], [4], [6]]


async def test_ready_logits_are_delivered_before_another_batch_is_launched():
    def compute(items: Sequence[int]) -> Iterator[DeviceBatch]:
        for batch in device(items):
            assert go_on.wait(PATIENCE_S)
            yield batch

    device, go_on = Device(is_at_once=True), threading.Event()
    scheduler = scheduler_of(compute, max_batch_cost=3)
    tasks = await start(scheduler, [1, 1, 1], [2], [3])
    go_on.set()

    assert await asyncio.gather(*tasks) == [[2, 2, 2], [4], [6]]
    names = [event[0] for event in device.events]
    assert names == ["launch", "read"] * 4
    scheduler.close()


async def test_logits_that_become_ready_are_delivered_without_another_call(scheduler: DirectScheduler, device: Device):
    (task,) = await start(scheduler, [1])
    await device.reached(("launch", 1))
    await asyncio.sleep(0.01)
    assert device.events == [("launch", 1)]  # not waited for in a way that would hide new callers
    await device.arrive(0)

    assert await asyncio.wait_for(task, PATIENCE_S) == [2]


# Failing


@pytest.mark.parametrize("item", [BOMB, MINE])
async def test_an_error_in_reading_fails_the_call_of_that_batch(item: int, scheduler: DirectScheduler, device: Device):
    (failing,) = await start(scheduler, [item])
    await device.arrive(0)
    with pytest.raises(ArithmeticError):
        await failing
    device.finish()

    assert await asyncio.to_thread(scheduler.logits, [1]) == [2]
    assert len(device.batches) == 2


async def test_an_error_in_reading_does_not_harm_the_next_call_in_launch(scheduler: DirectScheduler, device: Device):
    tasks = await start(scheduler, [BOMB])
    await device.reached(("launch", BOMB))
    tasks += await start(scheduler, [1, 2])
    await device.reached(("launch", BOMB), ("launch", 1, 2), ("read", BOMB))
    device.finish()
    answers = await asyncio.gather(*tasks, return_exceptions=True)

    assert isinstance(answers[0], ArithmeticError)
    assert answers[0].__context__ is None
    assert answers[1] == [2, 4]
    assert len(device.batches) == 2


async def test_calls_that_were_read_with_a_failed_one_are_each_computed_again_alone(
    scheduler: DirectScheduler, device: Device
):
    tasks = await start(scheduler, [9])
    await device.reached(("launch", 9))
    tasks += await start(scheduler, [1, 2, 3], [BOMB], [4])
    await device.reached(("launch", 9), ("launch", 1, 2), ("read", 9))
    device.finish()
    answers = await asyncio.gather(*tasks, return_exceptions=True)

    assert [answers[0], answers[1], answers[3]] == [[18], [2, 4, 6], [8]]
    assert isinstance(answers[2], ArithmeticError)
    launched = [event[1:] for event in device.events if event[0] == "launch"]
    assert launched == [(9,), (1, 2), (3, BOMB), (3,), (BOMB,), (4,)]


async def test_a_call_that_cannot_be_launched_does_not_harm_the_one_before_it(
    scheduler: DirectScheduler, device: Device
):
    tasks = await start(scheduler, [1])
    await device.reached(("launch", 1))
    tasks += await start(scheduler, [POISON])
    with pytest.raises(ArithmeticError):
        await tasks[1]
    assert not tasks[0].done()
    await device.arrive(0)

    assert await tasks[0] == [2]


async def test_batches_launched_before_a_failure_are_read_and_not_computed_again(
    scheduler: DirectScheduler, device: Device
):
    tasks = await start(scheduler, [9])
    await device.reached(("launch", 9))
    seen: list[int] = []
    tasks += [asyncio.create_task(scheduler.alogits([1, 2, 3], seen.append))]
    tasks += await start(scheduler, [POISON])
    await device.reached(("launch", 9), ("launch", 1, 2), ("read", 9))
    device.finish()
    answers = await asyncio.gather(*tasks, return_exceptions=True)

    assert answers[:2] == [[18], [2, 4, 6]]
    assert isinstance(answers[2], ArithmeticError)
    assert seen == [2, 1]
    assert [event[1:] for event in device.events if event[0] == "launch"] == [(9,), (1, 2), (3,)]


async def test_a_logit_left_out_of_the_last_batch_is_an_error(device: Device):
    def forgetful(items: Sequence[int]) -> Iterator[object]:
        for batch in device(items):
            del batch.items[0]
            yield batch

    scheduler = scheduler_of(forgetful)
    (task,) = await start(scheduler, [1, 2])
    await device.arrive(0)
    with pytest.raises(OnelogitError, match="1 of 2 items got no logit"):
        await task
    scheduler.close()


def test_an_error_in_reading_leaves_neither_the_scheduler_nor_its_thread():
    """Without the garbage collector: an error that keeps the frames of a failed batch would keep its GPU memory."""
    gc.disable()
    try:
        device = Device(is_at_once=True)
        scheduler = scheduler_of(device)
        for item in (BOMB, MINE, POISON):
            with suppress(ArithmeticError):
                scheduler.logits([1, 2, item])
        gone, batch = weakref.ref(scheduler), weakref.ref(device.batches[-1])
        device.batches.clear()
        del scheduler
        (thread,) = device.threads
        thread.join(PATIENCE_S)

        assert gone() is None
        assert batch() is None
        assert not thread.is_alive()
    finally:
        gc.enable()


# Cancelled, closed


async def test_a_batch_whose_callers_left_is_not_waited_for(scheduler: DirectScheduler, device: Device):
    (task,) = await start(scheduler, [1, 2, 3])
    await device.reached(("launch", 1, 2), ("launch", 3), ("read", 1, 2))
    await device.arrive(0)
    while len(device.events) < 3 or not next(iter(scheduler._workers.values())).unread:
        await asyncio.sleep(0.001)
    task.cancel()
    await asyncio.wait([task])
    (other,) = await start(scheduler, [4])
    device.finish()

    assert await other == [8]
    assert ("read", 3) not in device.events


async def test_a_caller_that_leaves_before_its_retry_is_not_computed_again(scheduler: DirectScheduler, device: Device):
    tasks = await start(scheduler, [9])
    await device.reached(("launch", 9))
    tasks += await start(scheduler, [POISON], [5], [6], [7])
    await device.arrive(0)
    await device.reached(("launch", 9), ("read", 9), ("launch", 5), ("launch", 6), ("read", 5))
    tasks[4].cancel()
    await asyncio.wait([tasks[4]])
    device.finish()

    assert [await task for task in (tasks[0], *tasks[2:4])] == [[18], [10], [12]]
    assert await asyncio.to_thread(scheduler.logits, [8]) == [16]
    assert ("launch", 7) not in device.events
    with pytest.raises(ArithmeticError):
        await tasks[1]


async def test_a_batch_launched_before_a_close_is_delivered(scheduler: DirectScheduler, device: Device):
    tasks = await start(scheduler, [1])
    await device.reached(("launch", 1))
    closing = asyncio.create_task(asyncio.to_thread(scheduler.close))
    while not scheduler.is_closed:
        await asyncio.sleep(0.001)
    assert not closing.done()
    await device.arrive(0)
    await closing

    assert await tasks[0] == [2]
    assert not any(thread.is_alive() for thread in device.threads)


async def test_a_close_fails_calls_that_are_not_launched(scheduler: DirectScheduler, device: Device):
    tasks = await start(scheduler, [1])
    await device.reached(("launch", 1))
    tasks += await start(scheduler, [2, 3, 4])
    await device.reached(("launch", 1), ("launch", 2, 3), ("read", 1))
    closing = asyncio.create_task(asyncio.to_thread(scheduler.close))
    while not scheduler.is_closed:
        await asyncio.sleep(0.001)
    for number in (0, 1):
        await device.arrive(number)
    await closing

    assert await tasks[0] == [2]
    with pytest.raises(OnelogitError, match="this reranker is closed"):
        await tasks[1]
    assert device.closed_early == 1
    assert len(device.batches) == 2
