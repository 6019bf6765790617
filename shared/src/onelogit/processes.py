"""Locks and cleaning-up for processes that fork, and a pause of the garbage collector.

On systems without fork, such as Windows, locks are plain ones.
"""

import gc
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock
from weakref import WeakSet

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
