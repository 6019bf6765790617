"""An event loop in its own thread, with the HTTP client that belongs to it."""

import asyncio
import threading
from contextlib import suppress
from importlib import import_module
from typing import Any
from weakref import finalize

from onelogit.errors import InputError
from onelogit.remote.environment import new_http_client

_CONNECT_TIMEOUT_S = 5.0


class LoopThread:
    """A running event loop, its HTTP client, and the semaphore that limits concurrent requests.

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


def _run(loop: asyncio.AbstractEventLoop) -> None:
    loop.run_forever()
    loop.close()


def _stop_soon(loop: asyncio.AbstractEventLoop, http: Any) -> None:
    if not loop.is_closed():
        asyncio.run_coroutine_threadsafe(_stop(loop, http), loop)


async def _stop(loop: asyncio.AbstractEventLoop, http: Any) -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    await http.aclose()
    await loop.shutdown_default_executor()
    loop.call_soon(loop.stop)


def _installed_library() -> Any:
    for name in ("httpx2", "httpx"):
        with suppress(ImportError):
            return import_module(name)
    raise InputError("requests to a server need httpx2 or httpx: pip install httpx2")
