"""`max_waiting` -> places for calls that wait or are computed; a call without a place is refused at once."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakSet

from onelogit.errors import OverloadError, counted
from onelogit.processes import new_lock


class _Place:
    """What a call holds until it ends. It goes with the call's frame, so that no interrupt can leave it taken."""


class CallLimit:
    """The places of one reranker's calls, of all threads and event loops together.

    A forked child has none of its parent's calls, and all places are free.
    """

    def __init__(self, max_waiting: int) -> None:
        self._max_waiting = max_waiting
        self._lock = new_lock()
        self._taken: dict[int, WeakSet[_Place]] = {}  # by process

    @contextmanager
    def place(self) -> Iterator[None]:
        """A place until the block ends.

        Raises:
            OverloadError: all places are taken.
        """
        place, taken = _Place(), self._taken.setdefault(os.getpid(), WeakSet())
        with self._lock:
            if len(taken) >= self._max_waiting:
                raise OverloadError(
                    f"{counted(len(taken), 'call')} of this reranker wait or are computed, as many as "
                    f"max_waiting={self._max_waiting} allows; call again later, or raise max_waiting"
                )
            taken.add(place)
        try:
            yield
        finally:
            taken.discard(place)
