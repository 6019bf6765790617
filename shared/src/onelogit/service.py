"""Items of many callers at once -> their logits, from one thread that owns the model. Knows neither text nor torch."""

import asyncio
import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from onelogit.errors import OnelogitError
from onelogit.scores import Computed

Item = TypeVar("Item")
Result = TypeVar("Result")

_CLOSED = "this reranker is closed; load it again"


Compute = Callable[[Sequence[Item]], Iterator[Computed]]
OnProgress = Callable[[int], object]


class Service(Generic[Item]):
    """One model for many threads and event loops: whoever waits at the same time is computed together.

    Callers are served in the order of their arrival, each as soon as its own items are done. All computing happens
    in one thread: it starts with the first call, and ends with `close` or when nobody holds the service any more.

    Args:
        compute: yields the logits of a list of items batch by batch, in any order. It is closed early when nobody
            waits for the rest.
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

        Args:
            items: what to compute; never changed.
            on_progress: called with the number of items done since its last call, from the thread that computes:
                it must be quick, and an exception in it fails this call.

        Raises:
            OnelogitError: the service is closed, or closes meanwhile; or the computation left an item out.
            BaseException: what the computation of these very items raises, or `on_progress`.
        """
        future = Future[list[float]]()
        try:
            self._enqueue(items, on_progress, future)
            return future.result()
        finally:
            future.cancel()  # whatever ended the wait: nobody is there for the result
            del future  # an error holds this frame, and the future the error

    async def alogits(self, items: Sequence[Item], on_progress: OnProgress | None = None) -> list[float]:
        """`logits`, while the event loop goes on. A cancelled call leaves the others as they are."""
        future = Future[list[float]]()
        try:
            self._enqueue(items, on_progress, future)
            return await asyncio.wrap_future(future)
        finally:
            future.cancel()
            del future

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

    def _enqueue(self, items: Sequence[Item], on_progress: OnProgress | None, future: Future[list[float]]) -> None:
        if self.is_closed:
            raise OnelogitError(_CLOSED)
        if not items:
            return future.set_result([])
        line = self._line()
        if line.thread_id == threading.get_ident():
            raise OnelogitError("on_progress asks for logits while its own are computed; ask from another thread")
        line.jobs.append(_Job(list(items), sum(map(self._weigh, items)), on_progress, future))
        try:
            # No lock of our own: whoever gets past the executor's is served after this, or told of the close.
            line.executor.submit(self._serve, line)
        except RuntimeError as error:
            raise OnelogitError(_CLOSED) if self.is_closed else error from None

    def _serve(self, line: "_Line[Item]") -> None:
        line.thread_id = threading.get_ident()
        while group := line.take(self._most_weight):
            self._answer(group)

    def _answer(self, group: "list[_Job[Item]]") -> None:
        """Settle every job of the group: together or, where that fails, each alone, so that none fails for another."""
        try:
            self._answer_together(group)
        except BaseException as error:
            if len(group) == 1:
                group[0].settle(error)
        # Behind the except: the error is gone, and with it the memory that its frames held.
        for job in group:
            if not job.is_settled:
                self._answer([job])

    def _answer_together(self, group: "list[_Job[Item]]") -> None:
        places = dict(enumerate((job, place) for job in group for place in job.missing()))
        with closing(self._batches([job.items[place] for job, place in places.values()])) as batches:
            for computed in batches:
                _hand_out(computed, places)
                if self.is_closed or all(job.is_settled for job in group):
                    break
        for job in group:
            if not job.is_settled:
                lost = f"no logit came for {len(job.missing())} of {len(job.items)} items; please report this"
                job.settle(OnelogitError(_CLOSED if self.is_closed else lost))

    def _batches(self, items: Sequence[Item]) -> Generator[Computed, None, None]:
        compute = self._compute
        if compute is not None:
            yield from compute(items)


@dataclass(eq=False)
class _Job(Generic[Item]):
    """What one caller asks for, and as much of it as is done: logits by their places."""

    items: list[Item]
    weight: int
    on_progress: OnProgress | None
    future: Future[list[float]] | None
    done: dict[int, float] = field(default_factory=dict)

    @property
    def is_settled(self) -> bool:
        """Whether the caller has its answer, or wants none any more."""
        return self.future is None or self.future.done()

    def missing(self) -> list[int]:
        return [place for place in range(len(self.items)) if place not in self.done]

    def add(self, logits: Sequence[tuple[int, float]]) -> None:
        """Keep new logits, tell the caller, and answer when all are there."""
        if self.is_settled:
            return
        self.done.update(logits)
        try:
            if self.on_progress is not None:
                self.on_progress(len(logits))
        except BaseException as error:
            self.settle(error)
        if len(self.done) == len(self.items):
            self.settle([self.done[place] for place in range(len(self.items))])

    def settle(self, answer: list[float] | BaseException) -> None:
        """Give the caller its answer, if it has none and still waits."""
        # An error holds the frames it came through, and they this job: a ring, with the memory of a failed batch in it.
        future, self.future = self.future, None
        if future is None or not future.set_running_or_notify_cancel():
            return
        if isinstance(answer, BaseException):
            future.set_exception(answer)
        else:
            future.set_result(answer)


@dataclass(eq=False)
class _Line(Generic[Item]):
    """The jobs that wait in one process, and the thread that serves them, by its id."""

    executor: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "onelogit"))
    jobs: deque[_Job[Item]] = field(default_factory=deque)
    thread_id: int | None = None

    def take(self, most_weight: int) -> list[_Job[Item]]:
        """The oldest jobs up to a weight, at least one; none where nobody waits."""
        group: list[_Job[Item]] = []
        while self.jobs and (not group or self.jobs[0].weight <= most_weight):
            job = self.jobs.popleft()
            if not job.is_settled:
                group.append(job)
                most_weight -= job.weight
        return group


def _hand_out(computed: Computed, places: dict[int, tuple[_Job[Item], int]]) -> None:
    """Give each job what one batch has for it; its places are taken out."""
    shares: dict[_Job[Item], list[tuple[int, float]]] = {}
    for index, logit in zip(computed.indices, computed.logits, strict=True):
        if index not in places:
            raise OnelogitError(f"a logit came for item {index}, which is done or not there; please report this")
        job, place = places.pop(index)
        shares.setdefault(job, []).append((place, logit))
    for job, share in shares.items():
        job.add(share)


def in_passing_thread(work: Callable[[], Result]) -> Result:
    """What some work returns or raises, done in a thread that ends with it.

    OpenMP keeps a team for each thread that has computed. Where all of them are more than the cores, each step of any
    waits for the others by way of the system: a fifth of the speed on two cores. So what is computed once, as a model
    is loaded, is not computed in a thread that goes on.
    """
    with ThreadPoolExecutor(1, "onelogit-loading") as executor:
        return executor.submit(work).result()
