"""Locks and cleaning-up for processes that fork, waiting for threads, and a pause of the garbage collector.

On systems without fork, such as Windows, locks are plain ones.
"""

import gc
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from queue import SimpleQueue
from threading import Lock
from typing import TypeVar
from weakref import WeakSet

Result = TypeVar("Result")

_locks: "WeakSet[Lock]" = WeakSet()


def new_lock() -> "Lock":
    """A lock between the threads of one process.

    In a forked child it is free: a thread that held it exists only in the parent, and would never release it.
    """
    lock = Lock()
    _locks.add(lock)
    return lock


def run_in_forked_children(work: Callable[[], object]) -> None:
    """Call a function in each process that is forked from this one, before anything else runs there."""
    if hasattr(os, "register_at_fork"):  # not on Windows
        os.register_at_fork(after_in_child=work)


def result_of(future: Future[Result]) -> Result:
    """The result of a future that another thread sets; waits for it. Raises the future's error.

    If Ctrl-C ends `future.result()` at some moments, the future stays locked, and the other thread waits for ever.
    """
    done: SimpleQueue[object] = SimpleQueue()
    future.add_done_callback(done.put)
    done.get()
    try:
        return future.result()
    finally:
        del future  # an error refers to this frame, which would refer to the future and so to the error


@contextmanager
def paused_collection() -> Iterator[None]:
    """Search for no reference cycles while the block runs, in any thread.

    Imports and parsers create a million objects that all stay, and the collector would search through them again and
    again: half of the time that a tokenizer takes to load, and a sixth of that of importing transformers.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _renew_locks() -> None:
    for lock in [*_locks]:  # as the standard library does with its own locks
        lock._at_fork_reinit()  # type: ignore[attr-defined]


run_in_forked_children(_renew_locks)
