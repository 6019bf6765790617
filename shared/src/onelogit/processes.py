"""Locks and cleaning-up for processes that fork. On systems without fork, such as Windows, locks are plain ones."""

import os
from collections.abc import Callable
from threading import Lock
from types import TracebackType
from weakref import WeakSet

_locks: WeakSet["ProcessLock"] = WeakSet()


class ProcessLock:
    """A lock between the threads of one process; a context manager.

    In a forked child it is free: a thread that held it exists only in the parent, and would never release it.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        _locks.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._lock.release()

    def _renew(self) -> None:
        self._lock = Lock()


def run_in_forked_children(work: Callable[[], object]) -> None:
    """Call a function in each process that is forked from this one, before anything else runs there."""
    if hasattr(os, "register_at_fork"):  # not on Windows
        os.register_at_fork(after_in_child=work)


def _renew_locks() -> None:
    for lock in [*_locks]:
        lock._renew()


run_in_forked_children(_renew_locks)
