"""Items of many callers at once -> their logits, from one thread that owns the model. Knows neither text nor torch."""

import asyncio
import os
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from typing import Generic, Self, TypeVar

from onelogit.engine.request_queue import Coming, Item, OnProgress, Request, RequestBatch, RequestQueue
from onelogit.errors import OnelogitError
from onelogit.ranking import Launched

Result = TypeVar("Result")
Compute = Callable[[Sequence[Item]], Iterator[Launched]]

_CLOSED = "this reranker is closed; load it again"
_GLANCE_S = 0.0001  # how long a batch or a caller that comes may go unnoticed while a device computes


class Scheduler(Generic[Item]):
    """One model for many threads and event loops: whoever waits at the same time is computed together.

    Callers are served in the order of their arrival, each as soon as its own items are done. All computing happens
    in one thread: it starts with the first call, and ends with `close` or when nobody holds the service any more.
    A batch that a device still computes is read once the next is launched, of whomever, or it is done: the device has
    always been given something to do, where there is something.

    Args:
        compute: launches a list of items batch by batch, in any order. It is closed early when nobody waits for the
            rest.
        weigh: what an item adds to the work, such as its tokens.
        most_weight: callers are computed together up to this sum; one with more is computed alone.
    """

    def __init__(self, compute: Compute[Item], *, weigh: Callable[[Item], int], most_weight: int) -> None:
        self._compute: Compute[Item] | None = compute
        self._weigh = weigh
        self._most_weight = most_weight
        self._lines: dict[int, _Line[Item]] = {}

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called."""
        return self._compute is None

    def logits(self, items: Sequence[Item], on_progress: OnProgress | None = None) -> list[float]:
        """The logit of each item, in the given order; empty for no items.

        Raises:
            OnelogitError: as `submit`.
            BaseException: what the computation of these very items raises, or `on_progress`.
        """
        with Call(self, on_progress) as call:
            call.add(items)
            return call.logits()

    async def alogits(self, items: Sequence[Item], on_progress: OnProgress | None = None) -> list[float]:
        """`logits`, while the event loop goes on. A cancelled call leaves the others as they are."""
        with Call(self, on_progress) as call:
            call.add(items)
            return await call.alogits()

    def submit(self, items: Sequence[Item], future: Future[list[float]], on_progress: OnProgress | None = None) -> None:
        """Have a future answered with the logit of each item, in the given order.

        Args:
            items: what to compute; never changed.
            future: the caller's, so that whatever interrupts it, it can cancel.
            on_progress: called with the number of items done since its last call, from the thread that computes:
                it must be quick, and an exception in it fails this call.

        Raises:
            OnelogitError: the service is closed. The future has it where the service closes meanwhile, or where the
                computation left an item out.
        """
        if self.is_closed:
            raise OnelogitError(_CLOSED)
        if not items:
            return future.set_result([])
        line = self._line()
        if line.thread_id == threading.get_ident():
            raise OnelogitError("on_progress asks for logits while its own are computed; ask from another thread")
        line.jobs.append(Request(list(items), sum(map(self._weigh, items)), on_progress, future))
        try:
            # No lock of our own: whoever gets past the executor's is served after this, or told of the close.
            line.executor.submit(self._serve, line)
        except RuntimeError as error:
            raise OnelogitError(_CLOSED) if self.is_closed else error from None

    def close(self) -> None:
        """Let go of `compute` and end the thread after its current batch. Closing twice is fine.

        Calls that still wait raise OnelogitError, as all later ones do. From `on_progress` it returns at once.
        """
        self._compute = None
        line = self._line()
        line.executor.shutdown(wait=line.thread_id != threading.get_ident())

    def _line(self) -> "_Line[Item]":
        # By process: after a fork, the parent's thread is not there, and what waits for it is the parent's.
        return self._lines.get(os.getpid()) or self._lines.setdefault(os.getpid(), _Line())

    def _serve(self, line: "_Line[Item]") -> None:
        line.thread_id = threading.get_ident()
        while (group := line.take(self._most_weight)) or line.coming:
            if group is None:
                time.sleep(_GLANCE_S)  # and look for callers: they are launched while the device is not done
            else:
                self._launch(line, group)
            self._receive(line, waits=False)

    def _launch(self, line: "_Line[Item]", group: RequestBatch[Item]) -> None:
        """Launch all batches of a group and read all but the last, which is left coming unless it is there."""
        try:
            with closing(self._batches(group.items)) as batches:
                for batch in batches:
                    self._receive(line)
                    line.coming = Coming(group, batch)
                    self._receive(line, waits=False)
                    if self.is_closed or group.has_failed or not group.unsettled():
                        break
        except BaseException as error:
            group.fail(error)
        # Behind the except: the error is gone, and with it the memory that its frames held.
        group.is_launched = True
        if line.coming is None or line.coming.group is not group:
            self._finish(line, group)

    def _receive(self, line: "_Line[Item]", *, waits: bool = True) -> None:
        """Hand out the batch that is coming, of whichever group; one that is not there yet only where it waits."""
        if line.coming is None:
            return
        group, batch = line.coming
        try:
            is_wanted = bool(group.unsettled())
            if is_wanted and not waits and not batch.is_computed():
                return
            if is_wanted:
                group.hand_out(batch.computed())
        except BaseException as error:
            group.fail(error)
        line.coming = None
        if group.is_launched:
            self._finish(line, group)

    def _finish(self, line: "_Line[Item]", group: RequestBatch[Item]) -> None:
        """Have those who are left of a group that failed computed again, each alone, so that none fails for another."""
        if group.has_failed:
            line.again.extend(group.unsettled())
            return
        for job in group.unsettled():
            lost = f"no logit came for {len(job.missing())} of {len(job.items)} items; please report this"
            job.settle(OnelogitError(_CLOSED if self.is_closed else lost))

    def _batches(self, items: Sequence[Item]) -> Generator[Launched, None, None]:
        compute = self._compute
        if compute is not None:
            yield from compute(items)


class Call(Generic[Item]):
    """What one caller asks a service for, portion by portion. Leaving it cancels what is not there yet.

    Portions may be added in another thread than the one that waits, and leaves.

    Args:
        service: computes.
        on_progress: as in `Scheduler.submit`, for all portions.
    """

    def __init__(self, service: Scheduler[Item], on_progress: OnProgress | None = None) -> None:
        self._scheduler = service
        self._on_progress = on_progress
        self._futures: list[Future[list[float]]] = []
        self._is_left = False

    @property
    def is_over(self) -> bool:
        """Whether a portion failed, or nobody waits any more."""
        return self._is_left or any(future.done() and future.exception() for future in self._futures)

    def add(self, items: Sequence[Item]) -> None:
        """Ask for one portion more, if anybody waits. Raises as `Scheduler.submit`."""
        if self._is_left:
            return
        future = Future[list[float]]()
        self._futures.append(future)
        self._scheduler.submit(items, future, self._on_progress)
        if self._is_left:  # meanwhile
            future.cancel()

    def logits(self) -> list[float]:
        """The logits of all portions, one after the other. Raises as `Scheduler.logits`."""
        logits: list[float] = []
        for number in range(len(self._futures)):  # no name for one: an error holds this frame, and the future the error
            logits += self._futures[number].result()
        return logits

    async def alogits(self) -> list[float]:
        """`logits`, while the event loop goes on."""
        logits: list[float] = []
        for number in range(len(self._futures)):
            portion = await asyncio.wrap_future(self._futures[number])
            logits += portion
        return logits

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._is_left = True
        while self._futures:
            self._futures.pop().cancel()


@dataclass(eq=False)
class _Line(RequestQueue[Item]):
    """The jobs that wait in one process, the thread that serves them, by its id, and the batch that it has not read."""

    executor: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "onelogit"))
    thread_id: int | None = None
    coming: Coming[Item] | None = None


def in_passing_thread(work: Callable[[], Result]) -> Result:
    """What some work returns or raises, done in a thread that ends with it.

    OpenMP keeps a team for each thread that has computed. Where all of them are more than the cores, each step of any
    waits for the others by way of the system: a fifth of the speed on two cores. So what is computed once, as a model
    is loaded, is not computed in a thread that goes on.
    """
    with ThreadPoolExecutor(1, "onelogit-loading") as executor:
        return executor.submit(work).result()
