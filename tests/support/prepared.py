"""A command of Python -> a process of its own that runs it, without the seconds that importing torch takes.

One process imports torch and transformers, once. Each command is run by a fork of it: a process with its own memory,
signals, files and end, as a fresh interpreter is, and nothing of onelogit imported yet. What torch and transformers
read from the environment when they are imported is not read again: a test of that starts an interpreter. Their bars
are drawn as a user's are.
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
    """A command that runs; `returncode` as of `subprocess`.

    Args:
        arguments: of Python: `-c CODE ...`, `-m MODULE ...` or `FILE ...`.
        stdin, stdout, stderr: open files; None for what this process has.
        environment: whole; None for this process' own.
        folder: to run in.
        has_terminal: stdin becomes its terminal, in a session of its own.
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
        asked = {
            "arguments": [str(argument) for argument in arguments],
            "environment": dict(os.environ if environment is None else environment),
            "folder": str(folder or Path.cwd()),
            "has_terminal": has_terminal,
        }
        self._told, theirs = _socket_pair()
        with theirs, _starting:
            _send(_prepared(), json.dumps(asked).encode(), [*files, theirs.fileno()])
        self.pid = int(self._told.recv(32))
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Its code, where it has ended."""
        if self.returncode is None and select.select([self._told], [], [], 0)[0]:
            self.wait()
        return self.returncode

    def wait(self, timeout_s: float = 120) -> int:
        """Its code, once it has ended."""
        if self.returncode is None:
            self._told.settimeout(timeout_s)
            self.returncode = os.waitstatus_to_exitcode(int(self._told.recv(32)))
            self._told.close()
        return self.returncode

    def kill(self) -> None:
        if self.poll() is None:
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
    """Run a command to its end, with an empty stdin."""
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
    """Where to ask: it ends when this process does, and the other end is closed."""
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
