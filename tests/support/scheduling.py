"""Models and devices for the scheduler that double numbers, and can be held up while they do so."""

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence

import torch

from onelogit.engine.device_transfer import PendingLogits
from onelogit.engine.scheduler import Scheduler, ScoringCall

PATIENCE_S = 10
POISON, BOMB, MINE = -1, -2, -3  # numbers that fail when they are launched, read, asked whether they are ready


def ready(indices: Sequence[int], logits: Sequence[float]) -> PendingLogits:
    """Logits that need no waiting."""
    return PendingLogits([[index] for index in indices], torch.tensor(logits))


class DirectScheduler(Scheduler[int]):
    """A scheduler with calls that submit all their items at once and wait for them."""

    def logits(self, items: Sequence[int], on_progress: Callable[[int], object] | None = None) -> list[float]:
        with ScoringCall(self, on_progress) as call:
            call.add(items)
            return call.logits()

    async def alogits(self, items: Sequence[int], on_progress: Callable[[int], object] | None = None) -> list[float]:
        with ScoringCall(self, on_progress) as call:
            call.add(items)
            return await call.alogits()


def scheduler_of(compute: Callable[[Sequence[int]], Iterator[object]], max_batch_cost: int = 100) -> DirectScheduler:
    return DirectScheduler(compute, cost_of=abs, max_batch_cost=max_batch_cost)


async def start(scheduler: DirectScheduler, *calls: list[int]) -> "list[asyncio.Task[list[float]]]":
    """Tasks of calls that are submitted, in this order, when this returns."""
    tasks = [asyncio.create_task(scheduler.alogits(items)) for items in calls]
    await asyncio.sleep(0)
    return tasks


async def behind_a_held_call(
    scheduler: DirectScheduler, model: "Model", *calls: list[int]
) -> "list[asyncio.Task[list[float]]]":
    """The tasks of a first call, stopped in its only batch of two items, and of others that wait."""
    model.hold()
    first = await start(scheduler, [1, 1])
    await model.reached()
    return first + await start(scheduler, *calls)


class Model:
    """Doubles numbers in batches of two, and records its calls. After `hold`, batches wait for `let_pass`."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.threads: set[threading.Thread] = set()
        self.batches = 0
        self.closed_early = 0
        self.arrived = threading.Semaphore(0)
        self._gate: threading.Semaphore | None = None

    def hold(self) -> None:
        self._gate = threading.Semaphore(0)

    def let_pass(self, batches: int) -> None:
        assert self._gate is not None
        for _ in range(batches):
            self._gate.release()

    def __call__(self, items: Sequence[int]) -> Iterator[PendingLogits]:
        self.calls.append(list(items))
        self.threads.add(threading.current_thread())
        try:
            for start in range(0, len(items), 2):
                self.arrived.release()
                if self._gate is not None:
                    assert self._gate.acquire(timeout=PATIENCE_S)
                indices = range(start, min(start + 2, len(items)))
                if POISON in (items[index] for index in indices):
                    raise ArithmeticError("poison")
                self.batches += 1
                yield ready(indices, [2.0 * items[index] for index in indices])
        except GeneratorExit:
            self.closed_early += 1
            raise

    async def reached(self) -> None:
        """Wait, without blocking the event loop, until the next batch is about to be computed."""
        assert await asyncio.to_thread(self.arrived.acquire, timeout=PATIENCE_S)


class DeviceBatch:
    """Items that a device doubles; it is done once `arrive` is called."""

    def __init__(self, device: "Device", items: dict[int, int]) -> None:
        self.items = items
        self.events = device.events
        self.arrived = threading.Event()

    def arrive(self) -> None:
        self.arrived.set()

    def is_ready(self) -> bool:
        if MINE in self.items.values():
            raise ArithmeticError("mine")
        return self.arrived.is_set()

    def logits(self) -> list[tuple[int, float]]:
        self.events.append(("read", *self.items.values()))
        if MINE in self.items.values():
            raise ArithmeticError("mine")
        assert self.arrived.wait(PATIENCE_S)
        if BOMB in self.items.values():
            raise ArithmeticError("bomb")
        return [(index, 2.0 * item) for index, item in self.items.items()]


class Device:
    """Takes batches of two, each done when the test calls `arrive`, or with `is_at_once` as soon as it is launched."""

    def __init__(self, *, is_at_once: bool = False) -> None:
        self.is_at_once = is_at_once
        self.events: list[tuple[object, ...]] = []
        self.batches: list[DeviceBatch] = []
        self.closed_early = 0
        self.threads: set[threading.Thread] = set()

    def __call__(self, items: Sequence[int]) -> Iterator[DeviceBatch]:
        self.threads.add(threading.current_thread())
        try:
            for start in range(0, len(items), 2):
                batch = DeviceBatch(self, dict(enumerate(items[start : start + 2], start)))
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
        """Wait, without blocking the event loop, until exactly these events have happened."""
        async with asyncio.timeout(PATIENCE_S):
            while len(self.events) < len(events):
                await asyncio.sleep(0.001)
        assert self.events == [*events]

    async def arrive(self, number: int) -> None:
        """Complete a batch once it is launched."""
        async with asyncio.timeout(PATIENCE_S):
            while len(self.batches) <= number:
                await asyncio.sleep(0.001)
        self.batches[number].arrive()

    def finish(self) -> None:
        """Complete all batches, later ones as soon as they are launched."""
        self.is_at_once = True
        for batch in self.batches[:]:
            batch.arrive()
