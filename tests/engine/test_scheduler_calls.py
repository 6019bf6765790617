"""Calls in portions, to a device that computes while portions are added; and many such calls at once."""

import asyncio
import random
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from onelogit.engine.scheduler import ScoringCall
from support.scheduling import BOMB, MINE, PATIENCE_S, POISON, Device, DirectScheduler, scheduler_of, start


@pytest.fixture
def device() -> Device:
    return Device()


@pytest.fixture
def scheduler(device: Device) -> Iterator[DirectScheduler]:
    scheduler = scheduler_of(device)
    yield scheduler
    device.finish()
    scheduler.close()


# Calls in portions


def test_portions_are_computed_while_others_are_added(device: Device):
    scheduler = scheduler_of(device)
    with ScoringCall(scheduler) as call:
        call.add([1])
        while not device.batches:
            threading.Event().wait(0.001)
        call.add([2, 3])
        while len(device.batches) < 2:
            threading.Event().wait(0.001)
        for batch in device.batches:
            batch.arrive()

        assert call.logits() == [2, 4, 6]
    scheduler.close()


async def test_a_portion_that_fails_ends_the_call_and_what_is_left_of_it(scheduler: DirectScheduler, device: Device):
    await asyncio.wait_for(_fail(scheduler, device), PATIENCE_S)
    (other,) = await start(scheduler, [7])
    device.finish()

    assert await other == [14]
    assert sum(event[:2] == ("launch", 2) for event in device.events) <= 2


async def _fail(scheduler: DirectScheduler, device: Device) -> None:
    with pytest.raises(ArithmeticError):
        with ScoringCall(scheduler) as call:
            call.add([POISON])
            while not call.is_over:
                await asyncio.sleep(0.001)
            call.add([2] * 9)
            await call.alogits()


def test_a_portion_added_after_the_caller_left_is_not_computed(device: Device):
    scheduler = scheduler_of(device)
    with ScoringCall(scheduler) as call:
        pass
    call.add([1])
    device.finish()

    assert scheduler.logits([2]) == [4]
    assert ("launch", 1) not in device.events
    scheduler.close()


async def test_a_portion_added_while_the_caller_leaves_is_cancelled(device: Device):
    def leave(item: int) -> int:
        if item == 1:
            call.__exit__()
        return item

    scheduler = DirectScheduler(device, cost_of=leave, max_batch_cost=9)
    call = ScoringCall(scheduler)
    call.add([1])
    (other,) = await start(scheduler, [2])
    async with asyncio.timeout(PATIENCE_S):
        while ("launch", 2) not in device.events:
            await asyncio.sleep(0.001)
    device.batches[-1].arrive()

    assert await other == [4]
    assert ("read", 1) not in device.events
    scheduler.close()


def test_a_call_takes_no_lock_written_in_python(device: Device, monkeypatch: pytest.MonkeyPatch):
    """Ctrl-C may come when the caller has a lock, but is not yet in the block that would release it."""
    scheduler, caller, entered = scheduler_of(device), threading.get_ident(), []
    enter = threading.Condition.__enter__

    def note(condition: threading.Condition) -> bool:
        if threading.get_ident() == caller:
            entered.append(condition)
        return enter(condition)

    finishing = threading.Timer(0.05, device.finish)
    finishing.start()
    monkeypatch.setattr(threading.Condition, "__enter__", note)
    with ScoringCall(scheduler) as call:
        call.add([1])
        call.add([2])
        assert call.logits() == [2, 4]
        call.add([3])
    monkeypatch.undo()
    finishing.join()
    scheduler.close()

    assert not entered


# Many at once


@pytest.mark.parametrize("seed", range(3))
async def test_no_answer_is_mixed_up_when_logits_arrive_calls_fail_or_callers_leave_at_random(seed: int):
    def arrive() -> None:
        chance = random.Random(seed)
        while not is_over.wait(0.0002):
            for batch in device.batches[:]:
                if chance.random() < 0.3:
                    batch.arrive()
                    device.batches.remove(batch)

    async def call_often(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(20):
            portions = [
                [
                    chance.choice((chance.randrange(1, 999), *[POISON, BOMB, MINE][: chance.randrange(4)]))
                    for _ in range(count)
                ]
                for count in (chance.randrange(4), chance.randrange(3))
            ]
            items = [item for portion in portions for item in portion]
            done: list[int] = []
            with suppress(TimeoutError):
                async with asyncio.timeout(chance.choice((None, None, 0, 0.002))):
                    try:
                        with ScoringCall(scheduler, done.append) as call:
                            for portion in portions:
                                call.add(portion)
                                await asyncio.sleep(0)
                            assert await call.alogits() == [2 * item for item in items]
                        assert min(items, default=0) >= 0
                        assert sum(done) == len(items)
                        outcomes.append("answered")
                    except ArithmeticError:
                        assert min(items) < 0
                        outcomes.append("failed")
                    except asyncio.CancelledError:
                        outcomes.append("cancelled")
                        raise

    outcomes: list[str] = []
    device, is_over = Device(), threading.Event()
    scheduler = scheduler_of(device, max_batch_cost=3000)
    arriving = threading.Thread(target=arrive)
    arriving.start()
    async with asyncio.timeout(60):
        await asyncio.gather(*(call_often(1000 * seed + number) for number in range(50)))
    scheduler.close()
    is_over.set()
    arriving.join()

    assert len(outcomes) == 1000
    assert set(outcomes) == {"answered", "failed", "cancelled"}
    assert next(iter(scheduler._workers.values())).unread is None
