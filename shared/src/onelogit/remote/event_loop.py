"""An event loop in its own thread, the HTTP client that belongs to it, and calls that other threads make there."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from importlib import import_module
from typing import Any, Generic, TypeVar
from weakref import finalize

from onelogit.errors import InputError
from onelogit.remote.environment import new_http_client
from onelogit.threads import Outcome

Result = TypeVar("Result")
Work = Callable[[], Coroutine[Any, Any, Result]]

_CONNECT_TIMEOUT_S = 5.0


class LoopThread:
    """A running event loop, its HTTP client, and the semaphore that limits concurrent requests.

    Create it where no Ctrl-C can come, such as in `in_temporary_thread`.

    Args:
        http: an `AsyncClient` of httpx2 or httpx; None creates one. `close` closes it.
        timeout_s: for each request.
        requests_at_once: maximum concurrent requests.

    Raises:
        InputError: as `new_http_client`, or neither httpx2 nor httpx is installed.
    """

    def __init__(self, http: Any, timeout_s: float, requests_at_once: int) -> None:
        self.library = _installed_library() if http is None else import_module(type(http).__module__.partition(".")[0])
        self.http: Any = new_http_client(self.library) if http is None else http
        self.uses_environment = http is None
        self.timeout = self.library.Timeout(timeout_s, connect=min(_CONNECT_TIMEOUT_S, timeout_s))
        self.semaphore = asyncio.Semaphore(requests_at_once)
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=_run, args=(self.loop,), name="onelogit-client", daemon=True)
        self._thread.start()
        self._stop = finalize(self, _stop_soon, self.loop, self.http)  # also runs when this object is garbage-collected

    def close(self) -> None:
        """Cancel running tasks, close the connections, and end the thread."""
        self._stop()
        if threading.current_thread() is not self._thread:
            self._thread.join()


class LoopCall(Generic[Result]):
    """A coroutine function that is to run on an event loop of another thread, and its outcome."""

    def __init__(self, work: Work[Result]) -> None:
        self.outcome: Outcome[Result] = Outcome()
        self._work = work
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[Result] | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Let it run on a loop that is not closed."""
        self._loop = loop
        loop.call_soon_threadsafe(self._begin)

    def cancel(self) -> None:
        """Cancel it, unless it is done or never started."""
        if self._loop is not None and not self.outcome.is_set:
            with suppress(RuntimeError):  # the loop was closed meanwhile
                self._loop.call_soon_threadsafe(self._cancel)

    def _begin(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._work())
        self._task.add_done_callback(self._finish)

    def _finish(self, task: "asyncio.Task[Result]") -> None:
        self._task = None
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if error is None:
            self.outcome.set_result(task.result())
        else:
            self.outcome.set_error(error)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()


def _run(loop: asyncio.AbstractEventLoop) -> None:
    loop.run_forever()
    loop.close()


def _stop_soon(loop: asyncio.AbstractEventLoop, http: Any) -> None:
    if not loop.is_closed():
        LoopCall(lambda: _stop(loop, http)).start(loop)


async def _stop(loop: asyncio.AbstractEventLoop, http: Any) -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    try:
        await asyncio.gather(*others, return_exceptions=True)
        await http.aclose()
        await loop.shutdown_default_executor()  # which starts a thread, if the system has one
    finally:
        loop.call_soon(loop.stop)


def _installed_library() -> Any:
    for name in ("httpx2", "httpx"):
        with suppress(ImportError):
            return import_module(name)
    raise InputError("requests to a server need httpx2 or httpx: pip install httpx2")
