"""A Python command -> a separate process that runs it, without the seconds that importing torch takes.

One process imports torch and transformers once, and runs each command in a fork of itself. Like a fresh interpreter, a
fork has its own memory, signals, files and exit code, and has not imported onelogit. Environment variables that torch
and transformers read when they are imported have no effect on it: tests of these start an interpreter instead. Progress
bars are enabled, as they are for users.
"""

import array
import atexit
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, NamedTuple

_PROGRAM = Path(__file__).with_name("prepared_process.py")
_starting = threading.Lock()


class Completed(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


class Process:
    """A running command; `returncode` is that of `subprocess`.

    Args:
        arguments: Python's: `-c CODE ...`, `-m MODULE ...` or `FILE ...`.
        stdin, stdout, stderr: open files; None for those of this process.
        environment: all variables; None for those of this process.
        folder: the working directory.
        has_terminal: whether stdin becomes its controlling terminal, in a new session.
    """

    def __init__(
        self,
        arguments: Sequence[object],
        *,
        stdin: IO[bytes] | int | None = None,
        stdout: IO[bytes] | int | None = None,
        stderr: IO[bytes] | int | None = None,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
        has_terminal: bool = False,
    ) -> None:
        given = [standard if file is None else file for standard, file in enumerate((stdin, stdout, stderr))]
        files = [file if isinstance(file, int) else file.fileno() for file in given]
        command = {
            "arguments": [str(argument) for argument in arguments],
            "environment": dict(os.environ if environment is None else environment),
            "folder": str(folder or Path.cwd()),
            "has_terminal": has_terminal,
        }
        self._status, theirs = _socket_pair()
        with theirs, _starting:
            _send(_prepared(), json.dumps(command).encode(), [*files, theirs.fileno()])
        self.pid = int(self._status.recv(32))
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit code, or None if it is still running."""
        if self.returncode is None and select.select([self._status], [], [], 0)[0]:
            self.wait()
        return self.returncode

    def wait(self, timeout_s: float = 120) -> int:
        """Wait for the end, and return the exit code."""
        if self.returncode is None:
            self._status.settimeout(timeout_s)
            self.returncode = os.waitstatus_to_exitcode(int(self._status.recv(32)))
            self._status.close()
        return self.returncode

    def kill(self) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):  # it has ended since then
                os.kill(self.pid, signal.SIGKILL)

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self.wait()


def run(
    arguments: Sequence[object],
    *,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    timeout_s: float = 120,
) -> Completed:
    """Run a command and wait for its end; its stdin is empty."""
    with Path(os.devnull).open("rb") as nothing, TemporaryFile() as out, TemporaryFile() as error:
        with Process(
            arguments, stdin=nothing, stdout=out, stderr=error, environment=environment, folder=folder
        ) as process:
            code = process.wait(timeout_s)
        return Completed(code, *(_content(file) for file in (out, error)))


def _content(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode("utf-8")


@cache
def _prepared() -> socket.socket:
    """A socket to the process that forks; that process ends when this one does, and closes its end of the socket."""
    ours, theirs = _socket_pair()
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_DISABLE_PROGRESS_BARS"}
    with theirs:
        command = [sys.executable, _PROGRAM, str(theirs.fileno())]
        process = subprocess.Popen(command, env=environment, pass_fds=[theirs.fileno()])
    atexit.register(lambda: (ours.close(), process.wait()))
    return ours


def _socket_pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def _send(to: socket.socket, message: bytes, files: Sequence[int]) -> None:
    to.sendmsg([message], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", files))])
