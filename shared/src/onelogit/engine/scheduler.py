"""Items of many callers -> their logits, computed in one thread that owns the model. Knows neither text nor torch."""

import asyncio
import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, closing, suppress
from dataclasses import dataclass, field
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Generic, TypeVar

from onelogit.errors import LogitError, OnelogitError
from onelogit.threads import JobThread

if TYPE_CHECKING:
    from onelogit.engine.device_transfer import PendingLogits

Item = TypeVar("Item")
OnProgress = Callable[[int], object]
Compute = Callable[[Sequence[Item]], Iterator["PendingLogits"]]

_CLOSED = "this reranker is closed; load it again"
_POLL_S = 0.0001  # interval of checks for finished batches and new callers while a device computes


@dataclass(eq=False)
class Request(Generic[Item]):
    """The items of one caller, and the logits computed so far, by the index of their item."""

    items: Sequence[Item]
    receive: Callable[[list[float] | BaseException], object] | None  # None: it has received, or no longer waits
    on_progress: OnProgress | None = None  # called in the computing thread; must be quick, and its error fails this
    cost: int = 0  # of all items; set by the scheduler
    logits: dict[int, float] = field(default_factory=dict)

    @property
    def is_settled(self) -> bool:
        """Whether the caller has its result, or no longer waits."""
        return self.receive is None

    def missing(self) -> list[int]:
        """The indices of the items without a logit."""
        return [index for index in range(len(self.items)) if index not in self.logits]

    def add(self, logits: Sequence[tuple[int, float]]) -> None:
        """Store new logits, report progress, and settle the request once it is complete."""
        if self.is_settled:
            return
        self.logits.update(logits)
        try:
            if self.on_progress is not None:
                self.on_progress(len(logits))
        except BaseException as error:
            self.settle(error)
        if len(self.logits) == len(self.items):
            self.settle([self.logits[index] for index in range(len(self.items))])

    def settle(self, result: list[float] | BaseException) -> None:
        """Give the caller its logits or an error, unless it is settled."""
        # Drop the receiver: an error refers to frames that refer to this request, a cycle that would keep GPU memory.
        receive, self.receive = self.receive, None
        if receive is not None:
            receive(result)


class RequestBatch(Generic[Item]):
    """Requests that are computed together.

    Attributes:
        items: the requests' items without a logit.
        is_launched: whether no more items will be launched.
        has_failed: whether to compute missing logits again, each request on its own.
    """

    def __init__(self, requests: list[Request[Item]]) -> None:
        self.is_launched = self.has_failed = False
        self._requests = requests
        self._owners = dict(enumerate((request, index) for request in requests for index in request.missing()))
        self.items = [request.items[index] for request, index in self._owners.values()]

    def unsettled(self) -> list[Request[Item]]:
        return [request for request in self._requests if not request.is_settled]

    def deliver(self, logits: Sequence[tuple[int, float]]) -> None:
        """Give each request its logits; each logit comes with the index of its item in the batch.

        Raises:
            LogitError: a logit is not finite, and several requests were computed: such an item may spoil others.
            OnelogitError: an item has a logit already, or does not exist.
        """
        if len(self._requests) > 1 and not all(math.isfinite(logit) for _, logit in logits):
            raise LogitError("the logit of an item is not finite, and may have spoilt those of other requests")
        shares: dict[Request[Item], list[tuple[int, float]]] = {}
        for index, logit in logits:
            if index not in self._owners:
                raise OnelogitError(f"item {index} got a second logit, or does not exist; please report this")
            request, own_index = self._owners.pop(index)
            shares.setdefault(request, []).append((own_index, logit))
        for request, share in shares.items():
            request.add(share)

    def fail(self, error: BaseException) -> None:
        """Settle the request with the error if it is the only one; otherwise, any request may have caused the error."""
        self.has_failed = True
        if len(self._requests) == 1:
            self._requests[0].settle(error)


class Scheduler(Generic[Item]):
    """One model for many threads and event loops: requests that wait at the same time are computed together.

    Requests are computed in the order of their arrival, and settled as soon as their own items are done. All are
    computed in one thread, which starts with the first request, and ends with `close` or when the scheduler is garbage
    collected. Logits are read once they are ready or the next batch is launched, so that the device always has work.

    Args:
        compute: launches the batches of a list of items, in any order. Its iterator is closed early if no caller waits.
        cost_of: returns the cost of an item, such as its number of tokens.
        max_batch_cost: total cost of requests that are computed together; a request above it is computed alone.
    """

    def __init__(self, compute: Compute[Item], *, cost_of: Callable[[Item], int], max_batch_cost: int) -> None:
        self.is_closed = False
        self._compute: Compute[Item] | None = compute
        self._cost_of, self._max_batch_cost = cost_of, max_batch_cost
        self._workers: dict[int, _Worker[Item]] = {}

    def submit(self, request: Request[Item]) -> None:
        """Settle a request later, with logits or errors of `compute`; or OnelogitError if this is closed meanwhile.

        Raises:
            OnelogitError: the scheduler is closed, or `on_progress` calls this.
            RuntimeError: the system has no more threads.
        """
        if self.is_closed:
            raise OnelogitError(_CLOSED)
        if not request.items:
            request.settle([])
            return
        worker = self._worker()
        if worker.thread.id == threading.get_ident():
            raise OnelogitError("on_progress must not request logits in the computing thread; use another thread")
        request.cost = sum(map(self._cost_of, request.items))
        worker.requests.append(request)
        worker.thread.jobs.put(partial(self._run, worker))
        if worker.thread.is_over:  # closed since then; the thread may have ended before it saw this request
            raise OnelogitError(_CLOSED if self.is_closed else "Python is ending, so no more logits are computed")
        if worker.thread.id is None:
            worker.thread.start(owner=self)

    def close(self) -> None:
        """Release `compute`, and wait until the thread ends with its current batch, unless called from `on_progress`.

        Requests that still wait raise OnelogitError, as do all later ones. Closing twice is allowed.
        """
        self.is_closed, self._compute = True, None
        self._worker().thread.stop()

    def _worker(self) -> "_Worker[Item]":
        # One per process: a forked child has neither the parent's thread nor its callers.
        return self._workers.get(os.getpid()) or self._workers.setdefault(os.getpid(), _Worker())

    def _run(self, worker: "_Worker[Item]") -> None:
        while (batch := worker.take(self._max_batch_cost)) or worker.unread:
            if batch is None:
                time.sleep(_POLL_S)  # then check for new requests, which are launched while the device computes
            else:
                self._launch(worker, batch)
            self._receive(worker, waits=False)

    def _launch(self, worker: "_Worker[Item]", batch: RequestBatch[Item]) -> None:
        """Launch a batch in parts that fit on the device; read all parts but the last, which is read if it is ready."""
        try:
            with closing(self._computed(batch.items)) as parts:
                for pending in parts:
                    self._receive(worker)
                    worker.unread = batch, pending
                    self._receive(worker, waits=False)
                    if self.is_closed or batch.has_failed or not batch.unsettled():
                        break
        except BaseException as error:
            batch.fail(error)
        # Outside the except block, where the error and the memory of its frames are freed.
        batch.is_launched = True
        if worker.unread is None or worker.unread[0] is not batch:
            self._finish(worker, batch)

    def _receive(self, worker: "_Worker[Item]", *, waits: bool = True) -> None:
        """Deliver the unread logits, if there are any; if `waits` is False, only if they are ready."""
        if worker.unread is None:
            return
        batch, pending = worker.unread
        try:
            if batch.unsettled():
                if not waits and not pending.is_ready():
                    return
                batch.deliver(pending.logits())
        except BaseException as error:
            batch.fail(error)
        worker.unread = None
        if batch.is_launched:
            self._finish(worker, batch)

    def _finish(self, worker: "_Worker[Item]", batch: RequestBatch[Item]) -> None:
        """Retry each unsettled request of a failed batch on its own, so that one bad request cannot fail the others."""
        if batch.has_failed:
            worker.retries.extend(batch.unsettled())
            return
        for request in batch.unsettled():
            lost = f"{len(request.missing())} of {len(request.items)} items got no logit; please report this"
            request.settle(OnelogitError(_CLOSED if self.is_closed else lost))

    def _computed(self, items: Sequence[Item]) -> Generator["PendingLogits", None, None]:
        yield from () if (compute := self._compute) is None else compute(items)


class ScoringCall(AbstractContextManager["ScoringCall[Item]"], Generic[Item]):
    """One caller's items, submitted in portions from any thread; leaving the context cancels unfinished portions."""

    def __init__(self, scheduler: Scheduler[Item], on_progress: OnProgress | None = None) -> None:
        self.is_over = False  # whether a portion failed, or the caller no longer waits
        self._scheduler, self._on_progress = scheduler, on_progress
        self._requests: list[Request[Item]] = []
        self._logits: dict[int, list[float]] = {}  # of the portions that are done, by number
        self._error: BaseException | None = None
        # Not a Future: Ctrl-C in one may leave it locked, and the computing thread would wait for it.
        self._arrived: SimpleQueue[None] = SimpleQueue()
        self._wake: Callable[[None], object] = self._arrived.put

    def add(self, items: Sequence[Item]) -> None:
        """Submit one more portion, unless the call is over. Raises as `Scheduler.submit`."""
        request = Request(list(items), partial(self._receive, len(self._requests)), self._on_progress)
        self._requests.append(request)
        if not self.is_over:
            self._scheduler.submit(request)
        if self.is_over:  # maybe since then, in another thread
            request.receive = None

    def _receive(self, portion: int, result: list[float] | BaseException) -> None:
        if not isinstance(result, BaseException):
            self._logits[portion] = result
        elif self._error is None:
            self._error, self.is_over = result, True
        with suppress(RuntimeError):  # the event loop is closed
            self._wake(None)

    def logits(self) -> list[float]:
        """The logits of all portions, one after the other. Raises the error of the first portion that fails."""
        while (logits := self._joined()) is None:
            self._arrived.get()
        return logits

    async def alogits(self) -> list[float]:
        """`logits`, without blocking the event loop. Cancelling it does not affect other calls."""
        arrived, loop = asyncio.Event(), asyncio.get_running_loop()
        self._wake = lambda _: loop.call_soon_threadsafe(arrived.set)
        while (logits := self._joined()) is None:
            await arrived.wait()
            arrived.clear()
        return logits

    def _joined(self) -> list[float] | None:
        if self._error is not None:
            raise self._error
        if len(self._logits) < len(self._requests):
            return None
        return [logit for portion in range(len(self._requests)) for logit in self._logits[portion]]

    def __exit__(self, *_: object) -> None:
        self.is_over, self._error = True, None  # an error refers to frames that refer to this call
        while self._requests:
            self._requests.pop().receive = None


@dataclass(eq=False)
class _Worker(Generic[Item]):
    """The computing thread of one process, the requests that wait for it, and the launched logits not yet read."""

    retries: deque[Request[Item]] = field(default_factory=deque)
    requests: deque[Request[Item]] = field(default_factory=deque)
    thread: JobThread = field(default_factory=lambda: JobThread("onelogit"))
    unread: "tuple[RequestBatch[Item], PendingLogits] | None" = None

    def take(self, max_cost: int) -> RequestBatch[Item] | None:
        """A request to retry, on its own; else the oldest ones up to a total cost, at least one; None if none waits."""
        while self.retries:
            request = self.retries.popleft()
            if not request.is_settled:
                return RequestBatch([request])
        taken: list[Request[Item]] = []
        while self.requests and (not taken or self.requests[0].cost <= max_cost):
            request = self.requests.popleft()
            if not request.is_settled:
                taken.append(request)
                max_cost -= request.cost
        return RequestBatch(taken) if taken else None
