"""Makes Python on Linux lack what another system lacks: run as a program, it then runs a file in the same process.

    python other_systems.py win32|darwin FILE ARGUMENTS...

Libraries are imported first: they have their own builds for each system. onelogit is imported last, and finds neither
the functions nor the modules nor the files that the system lacks. For Windows, files behave as there, too: no names
with colons, no replacing of open files, other newlines and another default encoding, unless the caller names them.
"""

# ruff: noqa: PTH100, PTH113, PTH115, PTH208  the functions of `os` are what this file changes

import builtins
import io
import os
import runpy
import signal
import socket
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

_LIBRARIES = (
    *("asyncio", "concurrent.futures", "ctypes", "logging", "multiprocessing.popen_spawn_posix", "pdb", "random"),
    *("shutil", "ssl", "subprocess", "tempfile", "threading", "unittest.mock", "uuid"),
    *("torch", "torch._dynamo", "transformers", "transformers.models.auto", "transformers.models.qwen3.modeling_qwen3"),
    *("httpx2", "huggingface_hub", "jinja2", "matplotlib.figure", "pyarrow.dataset", "pyarrow.parquet", "rich.console"),
    *("ir_measures", "bm25s", "scipy.stats", "safetensors", "tokenizers", "tqdm", "sentence_transformers"),
)
_FRAMEWORKS = (
    *("langchain_core.documents.compressor", "langchain_core.retrievers", "langchain_core.load", "haystack"),
    *("llama_index.core.postprocessor.types", "llama_index.core.schema", "llama_index.core.instrumentation"),
    *("uvicorn", "uvicorn.protocols.http.auto", "uvicorn.lifespan.on", "starlette.applications", "starlette.routing"),
    *("prometheus_client", "pydantic", "ray", "ray.data", "ray.util.state"),
)
_MODULES = {
    "win32": ("fcntl", "grp", "posix", "pty", "pwd", "readline", "resource", "syslog", "termios", "tty"),
    "darwin": (),
}
_OS_NAMES = {
    "win32": (
        *("chown", "confstr", "fchown", "fdatasync", "fork", "forkpty", "getegid", "geteuid", "getgid", "getgroups"),
        *("getloadavg", "getpgid", "getpgrp", "getpriority", "getresuid", "getsid", "getuid", "killpg", "lchown"),
        *("mkfifo", "mknod", "nice", "openpty", "pathconf", "posix_fadvise", "posix_spawn", "pread", "pwrite"),
        *("register_at_fork", "sched_getaffinity", "sched_setaffinity", "sendfile", "setpgid", "setsid", "setuid"),
        *("statvfs", "sync", "sysconf", "sysconf_names", "tcgetpgrp", "ttyname", "uname", "wait3", "wait4"),
    ),
    "darwin": ("posix_fadvise", "sched_getaffinity", "sched_setaffinity", "memfd_create", "sched_setscheduler"),
}
_SIGNALS = {
    "win32": ("SIGALRM", "SIGCHLD", "SIGHUP", "SIGKILL", "SIGPIPE", "SIGQUIT", "SIGUSR1", "alarm", "pthread_sigmask"),
    "darwin": ("SIGRTMIN", "SIGPWR"),
}
_LINUX_FOLDERS = ("/proc", "/sys")
_real_open = io.open


def become(system: str) -> None:
    """Remove what the system lacks."""
    for name in (*_LIBRARIES, *_FRAMEWORKS):
        import_module(name)
    for name in [*sys.modules]:
        if name.partition(".")[0] in ("onelogit", "filelock"):  # filelock chooses its lock when it is imported
            del sys.modules[name]
    for name in _MODULES[system]:
        sys.modules[name] = None  # type: ignore[assignment]
    for owner, names in ((os, _OS_NAMES[system]), (signal, _SIGNALS[system])):
        for name in names:
            if hasattr(owner, name):
                delattr(owner, name)
    if system == "win32":
        del socket.AF_UNIX
        for name in ("mkdir", "open", "remove", "rename", "replace", "rmdir", "unlink"):
            setattr(os, name, _checked(getattr(os, name), refuses_open_files=name in _MOVING))
    import_module("filelock")  # which uses the existence of a file here, as msvcrt cannot be simulated
    io.open = builtins.open = _open_of(system)  # type: ignore[assignment]
    sys.platform = system


_MOVING = ("remove", "rename", "replace", "unlink")


def _checked(function: Callable[..., Any], *, refuses_open_files: bool) -> Callable[..., Any]:
    """The function of `os`, which refuses what Windows refuses."""

    def checked(*arguments: Any, **options: Any) -> Any:
        paths = [os.fspath(each) for each in arguments if isinstance(each, str | os.PathLike)]
        for path in paths:
            _check_name(path)
            if refuses_open_files and any(_targets(path)):
                raise PermissionError(13, "The process cannot access the file because it is being used", path)
        if function.__name__ == "open" and paths and Path(paths[0]).is_dir() and "dir_fd" not in options:
            raise PermissionError(13, "Permission denied", paths[0])  # a folder cannot be opened, to be flushed
        return function(*arguments, **options)

    return checked


def _check_name(path: str) -> None:
    name = path.rpartition("/")[2]
    if set(name) & set('<>:"|?*\\') or (name.endswith((" ", ".")) and name.strip(".")):
        raise OSError(22, "The filename, directory name, or volume label syntax is incorrect", path)


def _targets(path: str) -> list[str]:
    """The open files of this process that are this file."""
    found, real = [], os.path.realpath(path)
    for number in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{number}")
        except OSError:
            continue
        found += [target] if target == real and os.path.isfile(real) else []
    return found


def _open_of(system: str) -> Callable[..., Any]:
    def opened(
        file: Any, mode: str = "r", buffering: int = -1, encoding: str | None = None, *rest: Any, **options: Any
    ):
        if isinstance(file, str | os.PathLike):
            path = os.path.abspath(os.fspath(file))
            if path.startswith(_LINUX_FOLDERS):
                raise FileNotFoundError(2, "No such file or directory", path)
            if system == "win32":
                _check_name(path)
        if system == "win32" and "b" not in mode:
            encoding = encoding or "cp1252"
            if not rest and options.get("newline") is None and set(mode) & set("wax"):
                options["newline"] = "\r\n"
        return _real_open(file, mode, buffering, encoding, *rest, **options)

    return opened


if __name__ == "__main__":
    become(sys.argv[1])
    sys.argv = sys.argv[2:]
    sys.path.insert(0, str(Path(__file__).parents[1]))
    runpy.run_path(sys.argv[0], run_name="__main__")
