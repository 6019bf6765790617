"""Commands from a socket -> forks of this process that run them. It imports the slow libraries once."""

import gc
import json
import os
import runpy
import signal
import socket
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen3ForCausalLM, Qwen3ForSequenceClassification  # noqa: F401

torch.set_num_threads(1)
gc.freeze()  # so that garbage collection in a fork does not copy memory


def serve(commands: socket.socket) -> dict[str, object]:
    """Fork for each message until the socket is closed. Returns only in a fork, with the command to run."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no need to wait for the supervisors
    while True:
        message, files, _, _ = socket.recv_fds(commands, 2**20, 4)
        if not message:
            sys.exit()
        if os.fork() == 0:
            commands.close()
            return supervise(json.loads(message), files)
        for file in files:
            os.close(file)


def supervise(command: dict[str, object], files: list[int]) -> dict[str, object]:
    """Fork again, and report the exit status of that fork. Returns only in that fork, with the command to run."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    *standard, status = files
    pid = os.fork()
    if pid == 0:
        os.close(status)
        set_up(command, standard)
        return command
    for file in standard:
        os.close(file)
    for file in range(3):
        os.close(file)
    try:
        os.write(status, f"{pid}\n".encode())
        os.write(status, f"{os.waitpid(pid, 0)[1]}\n".encode())
    finally:
        os._exit(0)


def set_up(command: dict[str, object], standard: list[int]) -> None:
    """Set the files, environment, working directory and terminal of the command."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for place, file in enumerate(standard):
        os.dup2(file, place)
        os.close(file)
    os.environ.clear()
    os.environ.update(command["environment"])
    os.chdir(command["folder"])
    torch.set_num_threads(torch.get_num_threads())  # creates torch's threads now, before two threads could at once
    if command["has_terminal"]:
        import fcntl
        import termios

        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    sys.stdin = sys.__stdin__ = os.fdopen(0, encoding="utf-8", closefd=False)
    sys.stdout = sys.__stdout__ = os.fdopen(1, "w", 1 if os.isatty(1) else -1, encoding="utf-8", closefd=False)
    sys.stderr = sys.__stderr__ = os.fdopen(2, "w", 1, "utf-8", errors="backslashreplace", closefd=False)


command = serve(socket.socket(fileno=int(sys.argv[1])))
kind, *rest = command["arguments"]
del sys.path[0]
if kind == "-c":
    code, *rest = rest
    sys.argv = ["-c", *rest]
    sys.path.insert(0, "")
    exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})
elif kind == "-m":
    module, *rest = rest
    sys.argv = ["-m", *rest]
    sys.path.insert(0, str(Path.cwd()))
    runpy.run_module(module, run_name="__main__", alter_sys=True)
else:
    sys.argv = [kind, *rest]
    sys.path.insert(0, str(Path(kind).resolve().parent))
    runpy.run_path(kind, run_name="__main__")
