"""An ASGI application -> a real server on this machine, in a thread of the test's process."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Any

import uvicorn

from onelogit.serving.server import bound_socket

PATIENCE_S = 20


@contextmanager
def served(application: Any) -> Iterator[str]:
    """The url of the application's server, which ends with the block."""
    bound = bound_socket("127.0.0.1", 0)
    config = uvicorn.Config(application, log_config=None, access_log=False, timeout_graceful_shutdown=PATIENCE_S)
    server = uvicorn.Server(config)
    thread = Thread(target=server.run, args=([bound],), daemon=True)
    thread.start()
    try:
        wait_until(lambda: server.started or not thread.is_alive())
        assert server.started
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


def wait_until(condition: Any) -> None:
    """Wait for a condition, within bounds."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "it never became true"
        time.sleep(0.005)
