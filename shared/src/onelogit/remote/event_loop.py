"""An event loop in a thread of its own, and the HTTP client that lives on it."""

import asyncio
import threading
from functools import cache
from importlib import import_module
from typing import Any
from weakref import finalize

from onelogit.errors import InputError

_CONNECT_S = 5.0


class LoopThread:
    """The loop, its client, and a gate for requests.

    Args:
        client: an `AsyncClient` of httpx2 or httpx; None for one of its own. It is closed with the line.
        timeout_s: of a request.
        requests_at_once: that the gate lets through.
    """

    def __init__(self, client: Any, timeout_s: float, requests_at_once: int) -> None:
        http = import_module(type(client).__module__.partition(".")[0]) if client is not None else _http()
        self.loop = asyncio.new_event_loop()
        self.timeout = http.Timeout(timeout_s, connect=min(_CONNECT_S, timeout_s))
        self.transport_error = http.TransportError
        self.decoding_error = http.DecodingError
        self.url_error = http.InvalidURL
        self.gate = asyncio.Semaphore(requests_at_once)
        self.client: Any = http.AsyncClient(verify=_trusted(http)) if client is None else client
        self._thread = threading.Thread(target=_run, args=(self.loop,), name="onelogit-wire", daemon=True)
        self._thread.start()
        # A wire that nobody holds any more ends its thread, too.
        self._end = finalize(self, _end_soon, self.loop, self.client)

    def close(self) -> None:
        """Cancel what runs, let go of the connections, and end the thread."""
        self._end()
        if threading.current_thread() is not self._thread:
            self._thread.join()


def _run(loop: asyncio.AbstractEventLoop) -> None:
    loop.run_forever()
    loop.close()


def _end_soon(loop: asyncio.AbstractEventLoop, client: Any) -> None:
    if not loop.is_closed():
        asyncio.run_coroutine_threadsafe(_end(loop, client), loop)


async def _end(loop: asyncio.AbstractEventLoop, client: Any) -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    await client.aclose()
    await loop.shutdown_default_executor()
    loop.call_soon(loop.stop)


@cache
def _trusted(http: Any) -> Any:
    """The certificates that are trusted: reading them takes longer than a request."""
    return http.create_ssl_context()


def _http() -> Any:
    for name in ("httpx2", "httpx"):
        try:
            return import_module(name)
        except ImportError:
            continue
    raise InputError("a server is asked through httpx2 or httpx: pip install httpx2")
