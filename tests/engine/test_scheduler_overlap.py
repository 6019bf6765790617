"""A device beside the processor: it is given the next batch before anyone waits for the numbers of the last."""

import asyncio
import gc
import random
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

import pytest

from onelogit import OnelogitError
from onelogit.engine.scheduler import Call, Scheduler
from onelogit.ranking import Computed

PATIENCE_S = 10
POISON, BOMB, MINE = -1, -2, -3  # fail when they are launched, read, asked for


class Batch:
    """Items that a device doubles; `arrive` says when it is done."""

    def __init__(self, device: "Device", items: dict[int, int]) -> None:
        self.items = items
        self.events = device.events
        self.arrived = threading.Event()

    def arrive(self) -> None:
        self.arrived.set()

    def is_computed(self) -> bool:
        if MINE in self.items.values():
            raise ArithmeticError("mine")
        return self.arrived.is_set()

    def computed(self) -> Computed:
        self.events.append(("read", *self.items.values()))
        if MINE in self.items.values():
            raise ArithmeticError("mine")
        assert self.arrived.wait(PATIENCE_S)
        if BOMB in self.items.values():
            raise ArithmeticError("bomb")
        return Computed([*self.items], [2.0 * item for item in self.items.values()])


class Device:
    """Takes batches of two, each done when the test says so, or with `is_at_once` before it is handed on."""

    def __init__(self, *, is_at_once: bool = False) -> None:
        self.is_at_once = is_at_once
        self.events: list[tuple[object, ...]] = []
        self.batches: list[Batch] = []
        self.closed_early = 0
        self.threads: set[threading.Thread] = set()

    def __call__(self, items: Sequence[int]) -> Iterator[Batch]:
        self.threads.add(threading.current_thread())
        try:
            for start in range(0, len(items), 2):
                batch = Batch(self, dict(enumerate(items[start : start + 2], start)))
                if POISON in batch.items.values():
                    raise ArithmeticError("poison")
                self.events.append(("launch", *batch.items.values()))
                self.batches.append(batch)
                if self.is_at_once:
                    batch.arrive()
                yield batch
        except GeneratorExit:
            self.closed_early += 1
            raise

    async def reached(self, *events: tuple[object, ...]) -> None:
        """Wait, with the event loop, until just these have happened."""
        async with asyncio.timeout(PATIENCE_S):
            while len(self.events) < len(events):
                await asyncio.sleep(0.001)
        assert self.events == [*events]

    async def arrive(self, number: int) -> None:
        """Let a batch be done once it was launched."""
        async with asyncio.timeout(PATIENCE_S):
            while len(self.batches) <= number:
                await asyncio.sleep(0.001)
        self.batches[number].arrive()

    def finish(self) -> None:
        """Let all batches be done, those to come as soon as they are launched."""
        self.is_at_once = True
        for batch in self.batches[:]:
            batch.arrive()


@pytest.fixture
def device() -> Device:
    return Device()


def serve(compute: Callable[[Sequence[int]], Iterator[object]], most_weight: int = 100) -> Scheduler[int]:
    return Scheduler(compute, weigh=abs, most_weight=most_weight)


@pytest.fixture
def service(device: Device) -> Iterator[Scheduler[int]]:
    service = serve(device)
    yield service
    device.finish()
    service.close()


async def start(service: Scheduler[int], *calls: list[int]) -> "list[asyncio.Task[list[float]]]":
    """Tasks that have asked, one after the other, when this returns."""
    tasks = [asyncio.create_task(service.alogits(items)) for items in calls]
    await asyncio.sleep(0)
    return tasks


async def test_within_a_group_a_batch_is_read_once_the_next_one_is_launched(service: Scheduler[int], device: Device):
    (task,) = await start(service, [1, 2, 3, 4, 5])
    await device.reached(("launch", 1, 2), ("launch", 3, 4), ("read", 1, 2))
    await device.arrive(0)
    await device.reached(*device.events[:3], ("launch", 5), ("read", 3, 4))
    device.finish()

    assert await task == [2, 4, 6, 8, 10]
    assert device.events[5:] == [("read", 5)]


async def test_the_next_group_is_launched_before_the_last_ones_numbers_are_read(
    service: Scheduler[int], device: Device
):
    tasks = await start(service, [1])
    await device.reached(("launch", 1))
    tasks += await start(service, [2])
    await device.reached(("launch", 1), ("launch", 2), ("read", 1))
    assert not any(task.done() for task in tasks)
    await device.arrive(0)
    assert await tasks[0] == [2]
    await device.arrive(1)

    assert await tasks[1] == [4]
    assert device.events[3:] == [("read", 2)]


async def test_no_more_than_one_batch_is_launched_ahead(service: Scheduler[int], device: Device):
    tasks = await start(service, [1])
    await device.reached(("launch", 1))
    tasks += await start(service, [2])
    await device.reached(("launch", 1), ("launch", 2), ("read", 1))
    tasks += await start(service, [3])
    await asyncio.sleep(0.02)
    assert len(device.batches) == 2
    device.finish()

    assert await asyncio.gather(*tasks) == [[2], [4], [6]]


async def test_numbers_that_are_there_are_handed_out_before_anything_else_is_launched():
    def compute(items: Sequence[int]) -> Iterator[Batch]:
        for batch in device(items):
            assert go_on.wait(PATIENCE_S)
            yield batch

    device, go_on = Device(is_at_once=True), threading.Event()
    service = serve(compute, most_weight=3)
    tasks = await start(service, [1, 1, 1], [2], [3])
    go_on.set()

    assert await asyncio.gather(*tasks) == [[2, 2, 2], [4], [6]]
    names = [event[0] for event in device.events]
    assert names == ["launch", "read"] * 4
    service.close()


async def test_numbers_that_arrive_while_nobody_else_calls_are_handed_out(service: Scheduler[int], device: Device):
    (task,) = await start(service, [1])
    await device.reached(("launch", 1))
    await asyncio.sleep(0.01)
    assert device.events == [("launch", 1)]  # not waited for in a way in which no new caller would be seen
    await device.arrive(0)

    assert await asyncio.wait_for(task, PATIENCE_S) == [2]


# Failing


@pytest.mark.parametrize("item", [BOMB, MINE])
async def test_an_error_in_reading_is_that_of_the_caller_whose_batch_it_was(
    item: int, service: Scheduler[int], device: Device
):
    (failing,) = await start(service, [item])
    await device.arrive(0)
    with pytest.raises(ArithmeticError):
        await failing
    device.finish()

    assert await asyncio.to_thread(service.logits, [1]) == [2]
    assert len(device.batches) == 2


async def test_an_error_in_reading_while_the_next_group_is_launched_leaves_that_unharmed(
    service: Scheduler[int], device: Device
):
    tasks = await start(service, [BOMB])
    await device.reached(("launch", BOMB))
    tasks += await start(service, [1, 2])
    await device.reached(("launch", BOMB), ("launch", 1, 2), ("read", BOMB))
    device.finish()
    answers = await asyncio.gather(*tasks, return_exceptions=True)

    assert isinstance(answers[0], ArithmeticError)
    assert answers[0].__context__ is None
    assert answers[1] == [2, 4]
    assert len(device.batches) == 2


async def test_who_was_read_with_one_that_failed_is_computed_again_alone(service: Scheduler[int], device: Device):
    tasks = await start(service, [9])
    await device.reached(("launch", 9))
    tasks += await start(service, [1, 2, 3], [BOMB], [4])
    await device.reached(("launch", 9), ("launch", 1, 2), ("read", 9))
    device.finish()
    answers = await asyncio.gather(*tasks, return_exceptions=True)

    assert [answers[0], answers[1], answers[3]] == [[18], [2, 4, 6], [8]]
    assert isinstance(answers[2], ArithmeticError)
    launched = [event[1:] for event in device.events if event[0] == "launch"]
    assert launched == [(9,), (1, 2), (3, BOMB), (3,), (BOMB,), (4,)]


async def test_a_group_that_cannot_be_launched_leaves_the_one_before_it_unharmed(
    service: Scheduler[int], device: Device
):
    tasks = await start(service, [1])
    await device.reached(("launch", 1))
    tasks += await start(service, [POISON])
    with pytest.raises(ArithmeticError):
        await tasks[1]
    assert not tasks[0].done()
    await device.arrive(0)

    assert await tasks[0] == [2]


async def test_what_was_launched_before_a_group_failed_is_read_and_not_computed_again(
    service: Scheduler[int], device: Device
):
    tasks = await start(service, [9])
    await device.reached(("launch", 9))
    seen: list[int] = []
    tasks += [asyncio.create_task(service.alogits([1, 2, 3], seen.append))]
    tasks += await start(service, [POISON])
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

    service = serve(forgetful)
    (task,) = await start(service, [1, 2])
    await device.arrive(0)
    with pytest.raises(OnelogitError, match="no logit came for 1 of 2 items"):
        await task
    service.close()


def test_an_error_in_reading_leaves_neither_the_service_nor_its_thread():
    """Without a collector: an error that held the frames of a failed batch would hold its memory on the device."""
    gc.disable()
    try:
        device = Device(is_at_once=True)
        service = serve(device)
        for item in (BOMB, MINE, POISON):
            with suppress(ArithmeticError):
                service.logits([1, 2, item])
        gone, batch = weakref.ref(service), weakref.ref(device.batches[-1])
        device.batches.clear()
        del service
        (thread,) = device.threads
        thread.join(PATIENCE_S)

        assert gone() is None
        assert batch() is None
        assert not thread.is_alive()
    finally:
        gc.enable()


# Cancelled, closed


async def test_a_batch_that_nobody_wants_any_more_is_not_waited_for(service: Scheduler[int], device: Device):
    (task,) = await start(service, [1, 2, 3])
    await device.reached(("launch", 1, 2), ("launch", 3), ("read", 1, 2))
    await device.arrive(0)
    while len(device.events) < 3 or not next(iter(service._lines.values())).coming:
        await asyncio.sleep(0.001)
    task.cancel()
    await asyncio.wait([task])
    (other,) = await start(service, [4])
    device.finish()

    assert await other == [8]
    assert ("read", 3) not in device.events


async def test_who_leaves_before_being_computed_again_is_not(service: Scheduler[int], device: Device):
    tasks = await start(service, [9])
    await device.reached(("launch", 9))
    tasks += await start(service, [POISON], [5], [6], [7])
    await device.arrive(0)
    await device.reached(("launch", 9), ("read", 9), ("launch", 5), ("launch", 6), ("read", 5))
    tasks[4].cancel()
    await asyncio.wait([tasks[4]])
    device.finish()

    assert [await task for task in (tasks[0], *tasks[2:4])] == [[18], [10], [12]]
    assert await asyncio.to_thread(service.logits, [8]) == [16]
    assert ("launch", 7) not in device.events
    with pytest.raises(ArithmeticError):
        await tasks[1]


async def test_what_was_launched_before_a_close_is_delivered(service: Scheduler[int], device: Device):
    tasks = await start(service, [1])
    await device.reached(("launch", 1))
    closing = asyncio.create_task(asyncio.to_thread(service.close))
    while not service.is_closed:
        await asyncio.sleep(0.001)
    assert not closing.done()
    await device.arrive(0)
    await closing

    assert await tasks[0] == [2]
    assert not any(thread.is_alive() for thread in device.threads)


async def test_a_close_fails_who_has_not_been_launched(service: Scheduler[int], device: Device):
    tasks = await start(service, [1])
    await device.reached(("launch", 1))
    tasks += await start(service, [2, 3, 4])
    await device.reached(("launch", 1), ("launch", 2, 3), ("read", 1))
    closing = asyncio.create_task(asyncio.to_thread(service.close))
    while not service.is_closed:
        await asyncio.sleep(0.001)
    for number in (0, 1):
        await device.arrive(number)
    await closing

    assert await tasks[0] == [2]
    with pytest.raises(OnelogitError, match="this reranker is closed"):
        await tasks[1]
    assert device.closed_early == 1
    assert len(device.batches) == 2


# Calls in portions


def test_portions_are_computed_while_others_are_added(device: Device):
    service = serve(device)
    with Call(service) as call:
        call.add([1])
        while not device.batches:
            threading.Event().wait(0.001)
        call.add([2, 3])
        while len(device.batches) < 2:
            threading.Event().wait(0.001)
        for batch in device.batches:
            batch.arrive()

        assert call.logits() == [2, 4, 6]
    service.close()


async def test_a_portion_that_fails_ends_the_call_and_what_is_left_of_it(service: Scheduler[int], device: Device):
    await asyncio.wait_for(_fail(service, device), PATIENCE_S)
    (other,) = await start(service, [7])
    device.finish()

    assert await other == [14]
    assert sum(event[:2] == ("launch", 2) for event in device.events) <= 2


async def _fail(service: Scheduler[int], device: Device) -> None:
    with pytest.raises(ArithmeticError):
        with Call(service) as call:
            call.add([POISON])
            while not call.is_over:
                await asyncio.sleep(0.001)
            call.add([2] * 9)
            await call.alogits()


def test_a_portion_added_when_nobody_waits_any_more_is_not_computed(device: Device):
    service = serve(device)
    with Call(service) as call:
        pass
    call.add([1])
    device.finish()

    assert service.logits([2]) == [4]
    assert ("launch", 1) not in device.events
    service.close()


async def test_a_portion_added_while_the_caller_leaves_is_waited_for_by_nobody(device: Device):
    def leave(item: int) -> int:
        if item == 1:
            call.__exit__()
        return item

    service = Scheduler(device, weigh=leave, most_weight=9)
    call = Call(service)
    call.add([1])
    (other,) = await start(service, [2])
    async with asyncio.timeout(PATIENCE_S):
        while ("launch", 2) not in device.events:
            await asyncio.sleep(0.001)
    device.batches[-1].arrive()

    assert await other == [4]
    assert ("read", 1) not in device.events
    service.close()


# Many at once


@pytest.mark.parametrize("seed", range(3))
async def test_no_answer_is_mixed_up_whenever_numbers_arrive_and_whoever_fails_or_leaves(seed: int):
    def arrive() -> None:
        chance = random.Random(seed)
        while not is_over.wait(0.0002):
            for batch in device.batches[:]:
                if chance.random() < 0.3:
                    batch.arrive()
                    device.batches.remove(batch)

    async def ask(seed: int) -> None:
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
                        with Call(service, done.append) as call:
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
    service = serve(device, most_weight=3000)
    arriving = threading.Thread(target=arrive)
    arriving.start()
    async with asyncio.timeout(60):
        await asyncio.gather(*(ask(1000 * seed + number) for number in range(50)))
    service.close()
    is_over.set()
    arriving.join()

    assert len(outcomes) == 1000
    assert set(outcomes) == {"answered", "failed", "cancelled"}
    assert next(iter(service._lines.values())).coming is None
