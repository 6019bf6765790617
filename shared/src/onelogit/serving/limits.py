"""Options -> the limits of a server, and the places of requests that wait or are computed."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from onelogit.errors import InputError
from onelogit.serving.refusals import RefusalError

_MAX_RETRY_AFTER_S = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingLimits:
    """What a server accepts.

    Attributes:
        max_waiting: requests that wait or are computed at the same time; others are answered with 429 and Retry-After.
        max_documents: of one request, or its pairs or rows; a request with more is answered with 413.
        max_body_bytes: of one request; a larger one is answered with 413.
        timeout_s: from a request's arrival to its answer; then it is answered 504, and leaves the queue.

    Raises:
        InputError: a limit is not above 0.
    """

    max_waiting: int = 256
    max_documents: int = 1000
    max_body_bytes: int = 16 * 2**20
    timeout_s: float = 300.0

    def __post_init__(self) -> None:
        for name in ("max_waiting", "max_documents", "max_body_bytes", "timeout_s"):
            value = getattr(self, name)
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if not is_number or not (0 < value < math.inf) or (name != "timeout_s" and not isinstance(value, int)):
                kind = "number of seconds" if name == "timeout_s" else "whole number"
                raise InputError(f"{name} must be a {kind} above 0, not {value!r}")


class WaitingRoom:
    """The places of the requests that wait or are computed. For one event loop.

    Attributes:
        count: of the places that are taken.
    """

    def __init__(self, max_waiting: int) -> None:
        self.count = 0
        self._max_waiting = max_waiting
        self._mean_s = 1.0  # of the latest requests

    @contextmanager
    def place(self) -> Iterator[None]:
        """A place until the block ends.

        Raises:
            RefusalError: all places are taken; 429, and after about the time of one request, one will be free.
        """
        if self.count >= self._max_waiting:
            raise RefusalError(
                429,
                f"{self.count} requests wait already, as many as this server lets wait (--max-waiting); send it again "
                "later",
                {"Retry-After": str(min(math.ceil(self._mean_s), _MAX_RETRY_AFTER_S))},
            )
        self.count += 1
        started = time.monotonic()
        try:
            yield
        finally:
            self.count -= 1
            self._mean_s += 0.1 * (time.monotonic() - started - self._mean_s)
