"""Many callers, one model: nobody gets another's answer, waits longer than needed, or is left hanging."""

import asyncio
import gc
import multiprocessing
import random
import signal
import subprocess
import sys
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onelogit import OnelogitError
from onelogit.engine.scheduler import Scheduler
from onelogit.ranking import Computed

PATIENCE_S = 10
POISON = -1


class Unkind(BaseException):
    """Not an Exception, but no reason to leave anybody waiting."""


class Model:
    """Doubles numbers, two a batch, and says what was asked of it. `hold` lets one batch through at a time."""

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

    def __call__(self, items: Sequence[int]) -> Iterator[Computed]:
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
                yield Computed(indices, [2.0 * items[index] for index in indices])
        except GeneratorExit:
            self.closed_early += 1
            raise

    async def reached(self) -> None:
        """Wait, with the event loop, until the next batch is about to be computed."""
        assert await asyncio.to_thread(self.arrived.acquire, timeout=PATIENCE_S)


def serve(compute: Callable[[Sequence[int]], Iterator[Computed]], most_weight: int = 100) -> Scheduler[int]:
    return Scheduler(compute, weigh=abs, most_weight=most_weight)


@pytest.fixture
def model() -> Model:
    return Model()


@pytest.fixture
def service(model: Model) -> Iterator[Scheduler[int]]:
    service = serve(model)
    yield service
    service.close()


async def start(service: Scheduler[int], *calls: list[int]) -> "list[asyncio.Task[list[float]]]":
    """Tasks that have asked, one after the other, when this returns."""
    tasks = [asyncio.create_task(service.alogits(items)) for items in calls]
    await asyncio.sleep(0)
    return tasks


async def behind_a_held_call(
    service: Scheduler[int], model: Model, *calls: list[int]
) -> "list[asyncio.Task[list[float]]]":
    """A first call of two items, stopped in its only batch, and others that wait."""
    model.hold()
    first = await start(service, [1, 1])
    await model.reached()
    return first + await start(service, *calls)


# What a caller gets


@given(items=st.lists(st.integers(0, 50), max_size=9), most_weight=st.integers(1, 60))
def test_the_logits_come_in_the_order_of_the_items_however_they_were_computed(items: list[int], most_weight: int):
    def backwards(items: Sequence[int]) -> Iterator[Computed]:
        for index in reversed(range(len(items))):
            yield Computed([index], [items[index] + 0.5])

    service = serve(backwards, most_weight)
    try:
        assert service.logits(items) == [item + 0.5 for item in items]
        assert asyncio.run(service.alogits(items)) == [item + 0.5 for item in items]
    finally:
        service.close()


async def test_no_items_need_no_thread(service: Scheduler[int], model: Model):
    before = threading.active_count()

    assert service.logits([]) == [] == await service.alogits([])
    assert threading.active_count() == before
    assert model.calls == []


def test_the_callers_list_may_change_while_it_is_computed(service: Scheduler[int], model: Model):
    model.hold()
    items = [1, 2, 3]
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(service.logits, items)
        assert model.arrived.acquire(timeout=PATIENCE_S)
        items.clear()
        model.let_pass(2)

        assert waiting.result() == [2, 4, 6]


def test_all_calls_of_all_threads_are_computed_in_one_thread(service: Scheduler[int], model: Model):
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(service.logits, [[1], [2], [3], [4]]))
    asyncio.run(service.alogits([5]))

    assert len(model.threads) == 1


# Together, in the order of arrival


async def test_callers_that_wait_are_computed_together(service: Scheduler[int], model: Model):
    tasks = await behind_a_held_call(service, model, [2], [3, 4], [5])
    model.let_pass(3)

    assert await asyncio.gather(*tasks) == [[2, 2], [4], [6, 8], [10]]
    assert model.calls == [[1, 1], [2, 3, 4, 5]]


async def test_threads_and_coroutines_are_computed_together(service: Scheduler[int], model: Model):
    tasks = await behind_a_held_call(service, model, [2])
    thread = asyncio.create_task(asyncio.to_thread(service.logits, [3]))
    while len(next(iter(service._lines.values())).jobs) < 2:
        await asyncio.sleep(0.001)
    model.let_pass(2)

    assert await asyncio.gather(*tasks, thread) == [[2, 2], [4], [6]]
    assert model.calls == [[1, 1], [2, 3]]


async def test_a_group_ends_before_the_caller_that_is_too_much_and_nobody_overtakes(model: Model):
    service = serve(model, most_weight=10)
    tasks = await behind_a_held_call(service, model, [4], [6], [7], [4], [1])
    model.let_pass(9)
    await asyncio.gather(*tasks)
    service.close()

    assert model.calls == [[1, 1], [4, 6], [7], [4, 1]]


async def test_a_caller_with_more_than_the_most_is_computed_alone(model: Model):
    service = serve(model, most_weight=10)
    tasks = await behind_a_held_call(service, model, [30, 40], [1])
    model.let_pass(9)
    await asyncio.gather(*tasks)
    service.close()

    assert model.calls == [[1, 1], [30, 40], [1]]


async def test_a_caller_is_answered_before_the_rest_of_its_group_is_computed(service: Scheduler[int], model: Model):
    first, second, third = await behind_a_held_call(service, model, [2, 3], [4, 5])
    model.let_pass(2)

    assert await asyncio.wait_for(second, PATIENCE_S) == [4, 6]
    assert first.done()
    assert not third.done()
    model.let_pass(1)
    assert await third == [8, 10]


# Cancelled


async def test_a_call_cancelled_while_it_waits_is_not_computed(service: Scheduler[int], model: Model):
    first, second, third = await behind_a_held_call(service, model, [2], [3])
    second.cancel()
    await asyncio.wait([second])
    model.let_pass(2)

    assert await asyncio.gather(first, third) == [[2, 2], [6]]
    assert model.calls == [[1, 1], [3]]


async def test_a_call_cancelled_while_it_is_computed_leaves_the_others_unharmed(service: Scheduler[int], model: Model):
    tasks = await behind_a_held_call(service, model, [2], [3, 4, 5], [6])
    model.let_pass(1)
    await model.reached()
    tasks[2].cancel()
    await asyncio.wait([tasks[2]])
    model.let_pass(9)

    assert await asyncio.gather(tasks[0], tasks[1], tasks[3]) == [[2, 2], [4], [12]]
    assert tasks[2].cancelled()
    assert model.batches == 4


async def test_nothing_is_computed_for_nobody(service: Scheduler[int], model: Model):
    model.hold()
    seen: list[int] = []
    tasks = [asyncio.create_task(service.alogits([1] * 20, seen.append))]
    await model.reached()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.001):
            await tasks[0]
    model.let_pass(99)

    assert await service.alogits([7]) == [14]
    assert model.closed_early >= 1
    assert model.batches == 2
    assert seen == []


async def test_a_coroutine_that_is_dropped_while_it_waits_is_not_computed(service: Scheduler[int], model: Model):
    tasks = await behind_a_held_call(service, model)
    dropped = service.alogits([2])
    dropped.send(None)
    dropped.close()
    model.let_pass(9)

    assert await asyncio.gather(*tasks, service.alogits([3])) == [[2, 2], [6]]
    assert model.calls == [[1, 1], [3]]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals for threads")
def test_a_keyboard_interrupt_ends_the_wait_and_the_computing(model: Model):
    def interrupting(items: Sequence[int]) -> Iterator[Computed]:
        for computed in model(items):
            while not interrupted.wait(0.001):  # again: a signal just before a wait does not end it
                signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            yield computed

    def interrupt(*_: object) -> None:
        if not interrupted.is_set():
            interrupted.set()
            raise KeyboardInterrupt

    service, interrupted = serve(interrupting), threading.Event()
    handler = signal.signal(signal.SIGINT, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            service.logits([1] * 20)

        assert service.logits([3]) == [6]
        assert model.batches < 11
    finally:
        signal.signal(signal.SIGINT, handler)
        service.close()


# Failing


async def test_only_the_call_at_fault_fails_with_its_own_error(service: Scheduler[int], model: Model):
    tasks = await behind_a_held_call(service, model, [2], [POISON, 4], [5])
    model.let_pass(99)
    answers = await asyncio.gather(*tasks, return_exceptions=True)

    assert [answers[0], answers[1], answers[3]] == [[2, 2], [4], [10]]
    assert isinstance(answers[2], ArithmeticError)
    assert "__call__" in {frame.name for frame in traceback.extract_tb(answers[2].__traceback__)}
    assert answers[2].__context__ is None


async def test_after_a_failure_only_what_is_missing_is_computed_again(service: Scheduler[int], model: Model):
    tasks = await behind_a_held_call(service, model, [2, 3], [4, 5, 6], [POISON])
    model.let_pass(99)
    await asyncio.gather(*tasks, return_exceptions=True)

    assert model.calls[1:] == [[2, 3, 4, 5, 6, POISON], [6], [POISON]]


@pytest.mark.parametrize("error", [ArithmeticError, Unkind, GeneratorExit, StopIteration])
async def test_a_call_alone_fails_with_what_was_raised(error: type[BaseException]):
    def failing(items: Sequence[int]) -> Iterator[Computed]:
        raise error

    service = serve(failing)
    with pytest.raises(RuntimeError if error is StopIteration else error):
        await asyncio.to_thread(service.logits, [1])
    service.close()


async def test_an_error_leaves_neither_the_service_nor_its_thread(model: Model):
    """Without a collector: an error that held the frames of a failed batch would hold its memory on the device."""
    gc.disable()
    try:
        service = serve(model)
        with suppress(ArithmeticError):
            service.logits([1, POISON])
        with suppress(ArithmeticError):
            await service.alogits([1, POISON])
        with suppress(ZeroDivisionError):
            service.logits([1], lambda count: count // 0)
        gone = weakref.ref(service)
        del service
        (thread,) = model.threads
        await asyncio.to_thread(thread.join, PATIENCE_S)

        assert gone() is None
        assert not thread.is_alive()
    finally:
        gc.enable()


BUGS = {
    "twice in a batch": [Computed([0, 0, 1, 2], [1, 1, 1, 1])],
    "twice": [Computed([0], [1]), Computed([0, 1, 2], [1, 1, 1])],
    "ended early": [Computed([0], [1])],
    "nothing": [],
    "not there": [Computed([0, 1], [1, 1]), Computed([3], [1])],
    "negative": [Computed([0, 1], [1, 1]), Computed([-1], [1])],
}


@pytest.mark.parametrize("batches", BUGS.values(), ids=BUGS)
def test_logits_that_are_not_one_for_each_item_are_an_error(batches: list[Computed]):
    service = serve(lambda items: iter(batches))
    with pytest.raises(OnelogitError, match="please report this"):
        service.logits([1, 2, 3])
    service.close()


def test_logits_of_another_number_than_their_indices_are_an_error():
    service = serve(lambda items: iter([Computed([0, 1], [1.0])]))
    with pytest.raises(ValueError, match="shorter"):
        service.logits([1, 2])
    service.close()


async def test_a_logit_left_out_fails_its_own_caller_only(model: Model):
    def forgetful(items: Sequence[int]) -> Iterator[Computed]:
        for computed in model(items):
            if items[computed.indices[0]] != 13:
                yield computed

    service = serve(forgetful)
    first, second, third = await behind_a_held_call(service, model, [13, 13], [2])
    model.let_pass(9)

    assert await asyncio.gather(first, third) == [[2, 2], [4]]
    with pytest.raises(OnelogitError, match="no logit came for 2 of 2 items"):
        await second
    service.close()


def test_what_cannot_be_weighed_is_the_callers_own_error(service: Scheduler[int]):
    with pytest.raises(TypeError, match="abs"):
        service.logits(["one"])  # type: ignore[list-item]

    assert service.logits([1]) == [2]


# Progress


async def test_progress_counts_the_callers_own_items_once(service: Scheduler[int], model: Model):
    tasks = await behind_a_held_call(service, model)
    seen: list[list[int]] = [[], []]
    calls = [([2, 3, 4], seen[0]), ([5, 6, 7, POISON], seen[1])]
    tasks += [asyncio.create_task(service.alogits(items, counts.append)) for items, counts in calls]
    await asyncio.sleep(0)
    model.let_pass(99)
    await asyncio.wait(tasks)

    assert seen == [[2, 1], [1, 2]]


@pytest.mark.parametrize("error", [ZeroDivisionError, Unkind])
async def test_an_error_in_progress_fails_that_call_only(
    service: Scheduler[int], model: Model, error: type[BaseException]
):
    def fail(count: int) -> None:
        raise error

    tasks = await behind_a_held_call(service, model)
    failing = asyncio.create_task(asyncio.to_thread(service.logits, [2, 3], fail))
    while not next(iter(service._lines.values())).jobs:
        await asyncio.sleep(0.001)
    tasks += await start(service, [5])
    model.let_pass(99)

    assert await asyncio.gather(*tasks) == [[2, 2], [10]]
    assert model.calls == [[1, 1], [2, 3, 5]]
    with pytest.raises(error):
        await failing


async def test_a_call_cancelled_at_its_last_item_leaves_the_others_unharmed(service: Scheduler[int], model: Model):
    def cancel(count: int) -> None:
        loop.call_soon_threadsafe(cancelled.cancel)
        assert is_cancelled.wait(PATIENCE_S)

    loop, is_cancelled = asyncio.get_running_loop(), threading.Event()
    tasks = await behind_a_held_call(service, model)
    cancelled = asyncio.create_task(service.alogits([2, 3], cancel))
    cancelled.add_done_callback(lambda task: is_cancelled.set())
    await asyncio.sleep(0)
    tasks += await start(service, [5])
    model.let_pass(99)

    assert await asyncio.gather(*tasks) == [[2, 2], [10]]
    assert cancelled.cancelled()
    assert model.calls == [[1, 1], [2, 3, 5]]


def test_progress_may_not_ask_for_logits_itself(service: Scheduler[int]):
    with pytest.raises(OnelogitError, match="another thread"):
        service.logits([1], lambda count: service.logits([2]))

    assert service.logits([3]) == [6]


# Closing


async def test_a_closed_service_refuses(service: Scheduler[int]):
    service.logits([1])
    assert not service.is_closed
    service.close()

    assert service.is_closed
    for items in ([1], []):
        with pytest.raises(OnelogitError, match="this reranker is closed; load it again"):
            service.logits(items)
        with pytest.raises(OnelogitError, match="this reranker is closed; load it again"):
            await service.alogits(items)


async def test_closing_ends_the_current_batch_and_fails_who_is_left(service: Scheduler[int], model: Model):
    model.hold()
    tasks = await start(service, [1, 2, 3, 4])
    await model.reached()
    tasks += await start(service, [5], [6])
    closing = [asyncio.create_task(asyncio.to_thread(service.close)) for _ in range(3)]
    while not service.is_closed:
        await asyncio.sleep(0.001)
    assert not any(task.done() for task in closing)
    model.let_pass(1)
    await asyncio.gather(*closing)

    for error in await asyncio.gather(*tasks, return_exceptions=True):
        assert isinstance(error, OnelogitError)
        assert str(error) == "this reranker is closed; load it again"
    assert model.batches == 1
    assert not any(thread.is_alive() for thread in model.threads)
    service.close()


async def test_what_the_last_batch_completes_is_delivered(service: Scheduler[int], model: Model):
    tasks = await behind_a_held_call(service, model)
    closing = asyncio.create_task(asyncio.to_thread(service.close))
    while not service.is_closed:
        await asyncio.sleep(0.001)
    model.let_pass(1)
    await closing

    assert await tasks[0] == [2, 2]


def test_closing_from_progress_does_not_wait_for_itself(service: Scheduler[int], model: Model):
    with pytest.raises(OnelogitError, match="closed"):
        service.logits([1] * 20, lambda count: service.close())
    (thread,) = model.threads
    thread.join(PATIENCE_S)

    assert not thread.is_alive()
    assert model.batches == 1


def test_closing_lets_go_of_the_model():
    model = Model()
    service, gone = serve(model), weakref.ref(model)
    service.logits([1])
    service.close()
    del model

    assert gone() is None


def test_a_call_that_a_close_overtakes_is_refused():
    service = Scheduler(Model(), weigh=lambda item: service.close() or item, most_weight=9)

    with pytest.raises(OnelogitError, match="this reranker is closed; load it again"):
        service.logits([1])


def test_a_call_for_which_no_thread_can_start_says_so_and_is_not_computed_later(
    service: Scheduler[int], model: Model, monkeypatch: pytest.MonkeyPatch
):
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            service.logits([1])

    assert service.logits([2]) == [4]
    assert model.calls == [[2]]


def test_callers_and_a_close_at_the_same_time_all_come_to_an_end():
    def ask(service: Scheduler[int]) -> bool:
        barrier.wait(PATIENCE_S)
        with suppress(OnelogitError):
            while True:
                assert service.logits([1, 2]) == [2, 4]
        return True

    barrier = threading.Barrier(5)
    with ThreadPoolExecutor(4) as pool:
        for _ in range(20):
            service = serve(Model())
            asking = [pool.submit(ask, service) for _ in range(4)]
            barrier.wait(PATIENCE_S)
            time.sleep(0.001)
            service.close()

            assert all(future.result(PATIENCE_S) for future in asking)


def test_a_service_that_nobody_holds_is_gone_with_its_model_and_thread():
    model = Model()
    thread_of, gone = model.threads, weakref.ref(model)
    service = serve(model)
    service.logits([1])
    del model, service
    gc.collect()
    (thread,) = thread_of
    thread.join(PATIENCE_S)

    assert gone() is None
    assert not thread.is_alive()


def test_a_service_stays_while_somebody_waits_for_it(model: Model):
    model.hold()
    service = serve(model)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(service.logits, [1])
        assert model.arrived.acquire(timeout=PATIENCE_S)
        del service
        gc.collect()
        model.let_pass(1)

        assert waiting.result(PATIENCE_S) == [2]


def test_the_interpreter_ends_with_a_service_that_was_never_closed():
    program = """
from onelogit.ranking import Computed
from onelogit.engine.scheduler import Scheduler
service = Scheduler(lambda items: iter([Computed([0], [1.0])]), weigh=abs, most_weight=1)
assert service.logits([1]) == [1.0]
"""

    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=PATIENCE_S).returncode == 0


# Event loops


async def test_the_event_loop_goes_on_while_the_model_computes(service: Scheduler[int], model: Model):
    """The model waits for what only the event loop does next: were it blocked, this would never end."""
    model.hold()
    waiting = asyncio.create_task(service.alogits([1, 2]))
    await asyncio.sleep(0)
    model.let_pass(1)

    assert await waiting == [2, 4]


def test_event_loops_in_several_threads_share_a_service(service: Scheduler[int]):
    async def ask(start: int) -> list[list[float]]:
        return await asyncio.gather(*(service.alogits([start, item]) for item in range(5)))

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda start: asyncio.run(ask(start)), range(4)))

    assert answers == [[[2 * start, 2 * item] for item in range(5)] for start in range(4)]


def test_an_event_loop_that_ends_while_it_waits_leaves_the_service_usable(service: Scheduler[int], model: Model):
    async def leave() -> None:
        task = asyncio.create_task(service.alogits([1] * 20))
        tasks.append(task)
        await model.reached()

    tasks: list[asyncio.Task[list[float]]] = []
    model.hold()
    asyncio.run(leave())
    model.let_pass(99)

    assert tasks[0].cancelled()
    assert service.logits([3]) == [6]
    assert model.batches == 2


# Processes


def _ask(service: Scheduler[int], answers: "multiprocessing.connection.Connection") -> None:
    answers.send([service.logits([3, 4]), asyncio.run(service.alogits([5]))])
    service.close()


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not fork")
def test_a_forked_process_computes_in_a_thread_of_its_own(service: Scheduler[int], model: Model):
    model.hold()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(service.logits, [1, 2])
        assert model.arrived.acquire(timeout=PATIENCE_S)
        model.let_pass(9)
        waiting.result(PATIENCE_S)
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    child = context.Process(target=_ask, args=(service, there))
    child.start()
    try:
        assert here.poll(PATIENCE_S)
        assert here.recv() == [[6, 8], [10]]
        assert service.logits([6]) == [12]
    finally:
        child.join(PATIENCE_S)
        child.kill()
    assert child.exitcode == 0


# Many at once


def test_no_answer_is_mixed_up_among_many_threads(model: Model):
    def ask(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(100):
            items = [chance.randrange(1000) for _ in range(chance.randrange(12))]
            assert service.logits(items) == [2 * item for item in items]

    service = serve(model, most_weight=5000)
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(ask, range(16)))
    service.close()


async def test_no_answer_is_mixed_up_among_many_coroutines_that_are_cancelled_at_random(model: Model):
    async def ask(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(30):
            items = [chance.choice((chance.randrange(1000), POISON)) for _ in range(1 + chance.randrange(3))]
            timeout_s = chance.choice((None, 0, 0.0005))
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    try:
                        assert await service.alogits(items) == [2 * item for item in items]
                        assert POISON not in items
                        outcomes.append("answered")
                    except ArithmeticError:
                        assert POISON in items
                        outcomes.append("failed")
                    except asyncio.CancelledError:
                        outcomes.append("cancelled")
                        raise

    outcomes: list[str] = []
    service = serve(model, most_weight=5000)
    await asyncio.gather(*map(ask, range(20)))
    service.close()

    assert len(outcomes) == 600
    assert set(outcomes) == {"answered", "failed", "cancelled"}
