"""Commands from a socket -> forks of this process that run each of them. It imports what takes long, once."""

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
gc.freeze()  # else forks copy memory as they look through it for garbage


def serve(asked: socket.socket) -> dict[str, object]:
    """Fork for each message until nobody is left who would send one; what a fork has to run is returned in it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # keepers are nobody's concern
    while True:
        message, files, _, _ = socket.recv_fds(asked, 2**20, 4)
        if not message:
            sys.exit()
        if os.fork() == 0:
            asked.close()
            return keep(json.loads(message), files)
        for file in files:
            os.close(file)


def keep(command: dict[str, object], files: list[int]) -> dict[str, object]:
    """Fork once more, and tell of the fork's end; what it has to run is returned in it."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    *standard, told = files
    pid = os.fork()
    if pid == 0:
        os.close(told)
        become(command, standard)
        return command
    for file in standard:
        os.close(file)
    for file in range(3):
        os.close(file)
    try:
        os.write(told, f"{pid}\n".encode())
        os.write(told, f"{os.waitpid(pid, 0)[1]}\n".encode())
    finally:
        os._exit(0)


def become(command: dict[str, object], standard: list[int]) -> None:
    """Take on the command's files, environment, folder and terminal."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for place, file in enumerate(standard):
        os.dup2(file, place)
        os.close(file)
    os.environ.clear()
    os.environ.update(command["environment"])
    os.chdir(command["folder"])
    torch.set_num_threads(torch.get_num_threads())  # the first to use threads after a fork must not be two at a time
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
