"""A command -> a server on this machine that the benchmark starts and ends by itself."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from urllib.request import urlopen

from onelogit import OnelogitError

START_S = 420
MAX_S = 2 * 3600
STOP_S = 20
_NOT_INHERITED = ("PYTHONPATH", "OMP_NUM_THREADS")  # they are meant for this process
_LOG_LINES = 30


def free_port() -> int:
    """A port of 127.0.0.1 that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class PeerServer:
    """A server process, which answers once the constructor returns, and ends after `MAX_S` at the latest.

    Args:
        name: for messages.
        command: that serves until it is ended.
        settings: added to its environment.
        health_url: answers once it can serve.
        log: file for what it prints.

    Raises:
        OnelogitError: it has ended, or does not answer within `START_S`; the message has the end of its log.
    """

    def __init__(
        self, name: str, command: Sequence[str], settings: Mapping[str, str], health_url: str, log: Path
    ) -> None:
        self._name, self._log = name, log
        environment = {each: value for each, value in os.environ.items() if each not in _NOT_INHERITED} | {**settings}
        # GNU's timeout ends the server even if this process is killed.
        bounded = ["timeout", "--kill-after", str(STOP_S), str(MAX_S), *command]
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                bounded, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
        try:
            self._wait(health_url)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the server with the processes that it started."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)  # its own group: it leads a new session
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_S)

    def _wait(self, health_url: str) -> None:
        end = time.monotonic() + START_S
        while time.monotonic() < end:
            if self._process.poll() is not None:
                raise OnelogitError(f"{self._name} ended with code {self._process.returncode}; {self._end_of_log()}")
            with suppress(OSError), urlopen(health_url, timeout=2):
                return
            time.sleep(0.5)
        raise OnelogitError(f"{self._name} did not start within {START_S} s; {self._end_of_log()}")

    def _end_of_log(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n    ".join([f"the end of {self._log}:", *lines[-_LOG_LINES:]])
