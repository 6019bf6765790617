"""Threads that Ctrl-C cannot lock up: to start one, to wait for its result, and to give jobs to one that stays.

`Thread.start`, `Future.result` and `ThreadPoolExecutor.submit` take locks in Python code. If Ctrl-C interrupts them in
the main thread, such a lock may stay locked, and another thread waits for it for ever. What is used here is safe: it is
written in C, or runs in another thread.
"""

import _thread
import asyncio
import atexit
import logging
import os
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from typing import Generic, TypeVar, cast

Result = TypeVar("Result")

_log = logging.getLogger(__name__)


class Outcome(Generic[Result]):
    """What a thread returns or raises, for all threads and event loops that wait for it.

    An error refers to the frames that raised it, and these to much memory. So no frame here that raises it refers to
    it, also not through its outcome: that would be a reference cycle, and the memory would not be freed at once.

    Attributes:
        is_set: whether it is there.
    """

    def __init__(self) -> None:
        self.is_set = False
        self._result: Result | None = None
        self._error: BaseException | None = None
        self._pending = threading.Lock()  # locked until it is set
        self._pending.acquire()
        self._wake_ups: list[Callable[[], object]] = []

    def set_result(self, result: Result) -> None:
        self._result = result
        self._wake()

    def set_error(self, error: BaseException) -> None:
        self._error = error
        self._wake()

    def set_by(self, work: Callable[[], Result]) -> None:
        """Set it to what some work returns or raises."""
        try:
            self.set_result(work())
        except BaseException as error:
            self.set_error(error)
        finally:
            del self

    def result(self) -> Result:
        """Wait for the result, and return it; raises the error."""
        with self._pending:
            pass
        try:
            return self._read()
        finally:
            del self

    async def aresult(self) -> Result:
        """`result`, without blocking the event loop. Cancelling it affects no one else."""
        is_set = asyncio.Event()
        self._wake_ups.append(partial(asyncio.get_running_loop().call_soon_threadsafe, is_set.set))
        if not self.is_set:
            await is_set.wait()
        try:
            return self._read()
        finally:
            del self

    def _wake(self) -> None:
        self.is_set = True
        self._pending.release()
        for wake in self._wake_ups:
            with suppress(RuntimeError):  # its event loop is closed
                wake()

    def _read(self) -> Result:
        try:
            if self._error is not None:
                raise self._error
            return cast("Result", self._result)
        finally:
            del self


def start_thread(thread: threading.Thread) -> None:
    """Start a thread. If Ctrl-C comes meanwhile, the thread still starts, or never does.

    Raises:
        RuntimeError: the system has no more threads.
    """
    started: Outcome[None] = Outcome()
    _thread.start_new_thread(started.set_by, (thread.start,))
    try:
        started.result()
    finally:
        del started


def in_temporary_thread(work: Callable[[], Result]) -> Result:
    """Run some work in a new thread that ends afterwards; returns the result or raises the error.

    Ctrl-C ends only the waiting: the work is completed, and its result dropped.

    A model is loaded in such a thread because OpenMP keeps a team of threads for each thread that has computed
    something. If these are more threads than cores, every step waits for the others; on two cores, this costs a fifth
    of the speed.
    """
    outcome: Outcome[Result] = Outcome()
    thread = threading.Thread(target=outcome.set_by, args=(work,), name="onelogit-temporary", daemon=False)
    start_thread(thread)
    try:
        return outcome.result()
    finally:
        if outcome.is_set:
            thread.join()
        del outcome


class JobThread:
    """One thread that runs jobs in their order. It ends with `stop`, with its owner, or with the interpreter.

    In a forked child the thread does not exist; create another.

    Args:
        name: of the thread.

    Attributes:
        jobs: the jobs that wait. Put a job, then call `start` if `id` is None.
        id: the thread's identifier, as of `threading.get_ident`; None until it runs.
        is_over: whether `stop` was called. A job that was put before is still run.
    """

    def __init__(self, name: str) -> None:
        self.jobs: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self.id: int | None = None
        self.is_over = False
        self._name, self._serves = name, threading.Lock()
        self._thread: threading.Thread | None = None
        self._end: Outcome[None] = Outcome()
        self._process: int | None = None
        self._owner: weakref.ref[object] | None = None

    def start(self, owner: object) -> None:
        """Start the thread, which ends once nothing refers to its owner. Several callers may start it at once.

        Raises:
            RuntimeError: the system has no more threads.
        """
        jobs = self.jobs
        self._owner = weakref.ref(owner, lambda _: jobs.put(None))
        start_thread(threading.Thread(target=self._serve, name=self._name, daemon=True))

    def stop(self) -> None:
        """End the thread after the jobs that wait; returns once it has ended, unless a job calls this."""
        self.is_over = True
        self.jobs.put(None)
        if self._thread is not None and self.id != threading.get_ident() and self._process == os.getpid():
            self._end.result()  # since up to Python 3.12, after Ctrl-C in `join` the next `join` does not wait
            self._thread.join()

    def _serve(self) -> None:
        if not self._serves.acquire(blocking=False):
            return  # another caller has started it
        self._process, self._thread, self.id = os.getpid(), threading.current_thread(), threading.get_ident()
        atexit.register(self.stop)
        for job in iter(self.jobs.get, None):
            try:
                job()
            except BaseException:
                _log.exception("a job of the thread %r failed; please report this", self._name)
            del job  # which may refer to the owner
        atexit.unregister(self.stop)
        self._end.set_result(None)
