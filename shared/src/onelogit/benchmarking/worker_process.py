"""An object in a separate process, called from this one, so that targets do not share memory, threads or compiled code.

OpenMP keeps a team of threads for each thread that has computed. Once there are more of them than cores, every barrier
waits for the operating system instead of spinning, so targets in one process would slow each other down.
"""

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

from tqdm import tqdm

from onelogit.errors import OnelogitError, first_line

_SHUTDOWN_TIMEOUT_S = 5


class WorkerProcess:
    """An object that is created in another process and called from this one.

    Args:
        name: for messages.
        make: a function or class of a module, called in the other process; it returns the object.
        *args: for `make`; they are pickled.

    Raises:
        OnelogitError: `make` raised an error of any class.
    """

    def __init__(self, name: str, make: Callable[..., object], *args: object) -> None:
        self.name = name
        self._is_busy = True
        context = get_context("spawn")  # a fork would share this process's threads and memory
        self._connection, worker_connection = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(worker_connection, make, args), daemon=True, name=f"onelogit {name}"
        )
        with _interrupts_ignored():
            self._process.start()
        worker_connection.close()
        try:
            self._receive()
        except BaseException:
            self.close()
            raise

    def call(self, method: str, *args: object) -> Any:
        """Call a method of the object and return its result.

        Raises:
            OnelogitError: the method raised an error of any class, or the process has ended.
        """
        self._is_busy = True
        try:
            self._connection.send((method, args))
        except OSError:
            raise self._ended() from None
        return self._receive()

    def close(self) -> None:
        """End the process, even if it is busy."""
        self._connection.close()
        if not self._is_busy:
            self._process.join(_SHUTDOWN_TIMEOUT_S)  # the closed connection makes it exit
        self._process.terminate()
        self._process.join(_SHUTDOWN_TIMEOUT_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._process.close()

    def _receive(self) -> Any:
        try:
            result, error = self._connection.recv()
        except (EOFError, ConnectionError):
            raise self._ended() from None
        self._is_busy = False
        if error is not None:
            raise error
        return result

    def _ended(self) -> OnelogitError:
        self._process.join(_SHUTDOWN_TIMEOUT_S)
        code = self._process.exitcode
        reason = "; the system may have killed it to free memory" if code == -getattr(signal, "SIGKILL", 9) else ""
        return OnelogitError(f"the process of {self.name} ended with code {code}{reason}")


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Make a process that starts in the block ignore Ctrl-C, which a terminal sends to both; this process ends it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _serve(connection: Connection, make: Callable[..., object], args: tuple[object, ...]) -> None:
    tqdm.set_lock(threading.RLock())  # the default lock is shared between processes, and stays locked if one is killed
    silence_libraries()
    made, error = _outcome(lambda: make(*args))
    _send(connection, None, error)
    while error is None:
        try:
            method, arguments = connection.recv()
        except EOFError:
            return
        _send(connection, *_outcome(lambda: getattr(made, method)(*arguments)))  # noqa: B023  called at once


def _outcome(work: Callable[[], object]) -> tuple[object, OnelogitError | None]:
    try:
        return work(), None
    except OnelogitError as error:
        return None, error
    except Exception as error:  # a library's error may not be picklable, and its traceback would not help
        return None, OnelogitError(f"{type(error).__name__}: {first_line(error)}")


def _send(connection: Connection, result: object, error: OnelogitError | None) -> None:
    try:
        connection.send((result, error))
    except OSError:
        raise SystemExit(1) from None  # the other process has ended


def silence_libraries() -> None:
    """Turn off progress bars and warnings of transformers, Sentence Transformers and onelogit in this process."""
    from transformers.utils import logging as transformers_logging  # noqa: PLC0415  slow to import

    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    for name in ("sentence_transformers", "onelogit"):
        logging.getLogger(name).setLevel(logging.ERROR)
