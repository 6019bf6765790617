"""A command -> what it writes to a pseudo-terminal of a given width, optionally interrupted by Ctrl-C."""

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from support.prepared import Process

CTRL_C = b"\x03"
_SIZE_VARIABLES = ("COLUMNS", "LINES")  # they describe another terminal, and would override its size
_SET_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
    "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
)


class TerminalResult(NamedTuple):
    """The result of a command.

    Attributes:
        screen: its terminal output, including control sequences.
        code: its exit code.
    """

    screen: str
    code: int


def in_terminal(
    arguments: Sequence[object],
    *,
    columns: int = 80,
    environment: Mapping[str, str] | None = None,
    interrupt_at: str | None = None,
    timeout_s: float = 120,
    needs_torch: bool = False,
) -> TerminalResult:
    """Run `python ...` with stdin, stdout and stderr on a terminal.

    Args:
        arguments: Python's.
        columns: the terminal's width.
        environment: variables to add to those of this process.
        interrupt_at: press Ctrl-C once the command has written this text.
        timeout_s: kill the command after this time.
        needs_torch: run it in a process that has imported torch; see `prepared`.
    """
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    inherited = {name: value for name, value in os.environ.items() if name not in _SIZE_VARIABLES}
    given = {**inherited, "TERM": "xterm-256color", **(environment or {})}
    process = (_in_prepared if needs_torch else _in_fresh)(arguments, theirs, given)
    os.close(theirs)
    try:
        written = _read(ours, interrupt_at, time.monotonic() + timeout_s)
        return TerminalResult(written.decode("utf-8", "replace"), process.wait(30))
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def _in_fresh(arguments: Sequence[object], terminal: int, environment: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-c", _SET_TERMINAL, *map(str, arguments)]
    files = dict.fromkeys(("stdin", "stdout", "stderr"), terminal)
    return subprocess.Popen(command, start_new_session=True, env=environment, **files)


def _in_prepared(arguments: Sequence[object], terminal: int, environment: Mapping[str, str]) -> Process:
    files = dict.fromkeys(("stdin", "stdout", "stderr"), terminal)
    return Process(arguments, environment=environment, has_terminal=True, **files)


def _read(terminal: int, interrupt_at: str | None, end: float) -> bytes:
    written = b""
    while time.monotonic() < end:
        if not select.select([terminal], [], [], 1)[0]:
            continue
        try:
            part = os.read(terminal, 65536)
        except OSError:  # no process has the other end open any more
            return written
        if not part:
            return written
        written += part
        if interrupt_at is not None and interrupt_at.encode() in written:
            os.write(terminal, CTRL_C)
            interrupt_at = None
    raise TimeoutError(written.decode("utf-8", "replace"))
