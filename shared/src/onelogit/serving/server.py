"""An ASGI application and a bound socket -> a server that runs until SIGTERM or Ctrl-C, and then ends gracefully."""

import asyncio
import errno
import logging
import math
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

import uvicorn
from starlette.applications import Starlette

from onelogit.errors import InputError
from onelogit.serving.limits import ServingLimits

_KEEP_ALIVE_S = 75  # longer than clients keep idle connections, so that they never use one that is being closed
_OPEN_FILES = 65536


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """Within the block, SIGTERM raises SystemExit(0); by default, the first process of a container ignores it."""

    def end(signal_number: int, frame: FrameType | None) -> None:
        del signal_number, frame
        raise SystemExit(0)

    previous = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def bound_socket(host: str, port: int) -> socket.socket:
    """A socket at an address; it refuses connections until the server runs.

    Raises:
        InputError: the port is in use or not allowed, or the host is unknown or not of this machine.
    """
    if not 0 <= port <= 65535:
        raise InputError(f"--port must be from 0 to 65535, not {port}")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise InputError(f"--host {host!r} is not found: {getattr(error, 'strerror', None) or error}") from None
    family, kind, protocol, _, address = found[0]
    bound = socket.socket(family, kind, protocol)
    if os.name == "posix":  # on Windows, it would let a second server take the port of a running one
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind(address)
    except OSError as error:
        bound.close()
        raise _unusable(host, port, error) from None
    return bound


def _unusable(host: str, port: int, error: OSError) -> InputError:
    if error.errno == errno.EADDRINUSE:
        return InputError(f"port {port} of {host} is in use; stop the other server, or give another --port")
    return InputError(f"cannot serve at port {port} of {host}: {error.strerror}; give another --port or --host")


def allow_many_connections() -> None:
    """Raise the limit of open files; asyncio logs thousands of errors each second if a connection gets none."""
    try:
        import resource  # noqa: PLC0415  Windows has neither this module nor the limit
    except ImportError:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(_OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):  # macOS has a lower limit, which it does not name
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _is_no_cancellation(record: logging.LogRecord) -> bool:
    raised = record.exc_info[1] if record.exc_info else None
    # Starlette passes the traceback of its lifespan as a text.
    return not isinstance(raised, asyncio.CancelledError) and not record.getMessage().rstrip().endswith(
        "CancelledError"
    )


def run_until_stopped(application: Starlette, bound: socket.socket, limits: ServingLimits) -> None:
    """Serve until SIGTERM or SIGINT: then accept no more requests, and end once the accepted ones are answered.

    Raises:
        InputError: another server took the port in the meantime.
    """
    host, port = bound.getsockname()[:2]
    try:
        bound.listen()
    except OSError as error:
        raise _unusable(host, port, error) from None
    allow_many_connections()
    # A second Ctrl-C cancels all requests, and uvicorn would log a traceback for each.
    logging.getLogger("uvicorn.error").addFilter(_is_no_cancellation)
    config = uvicorn.Config(
        application,
        log_config=None,
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        ws="none",  # a request that asks for a WebSocket would hold its connection without an answer
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=math.ceil(limits.timeout_s) + 1,
    )
    server = uvicorn.Server(config)

    def stop(signal_number: int, frame: FrameType | None) -> None:
        del signal_number, frame
        server.should_exit = True

    # uvicorn replaces these handlers while it runs, and calls them afterwards: the default ones would end the process
    # with the signal's exit code.
    previous = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        server.run(sockets=[bound])
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
