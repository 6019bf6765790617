"""What is measured, in a process of its own: what one keeps (memory, threads, compiled code) slows no other."""

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

_MOST_WAIT_S = 5


class Child:
    """An object that was made in another process, and is asked from here.

    Args:
        name: for people.
        make: a module's function or class, called over there; what it returns is asked.
        *args: for it; plain data.

    Raises:
        OnelogitError: whatever `make` raises on purpose, and in its place for anything else.
    """

    def __init__(self, name: str, make: Callable[..., object], *args: object) -> None:
        self.name = name
        self._is_asked = True  # and has not answered
        context = get_context("spawn")  # a fork would share the parent's threads and memory
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, make, args), daemon=True, name=f"onelogit {name}")
        with _interrupts_ignored():
            self._process.start()
        theirs.close()
        try:
            self._answer()
        except BaseException:
            self.close()
            raise

    def ask(self, method: str, *args: object) -> Any:
        """What a method of the object returns; its errors are raised here.

        Raises:
            OnelogitError: as the method, and where the process is gone.
        """
        self._is_asked = True
        try:
            self._connection.send((method, args))
        except OSError:
            raise self._gone() from None
        return self._answer()

    def close(self) -> None:
        """End the process, whatever it is doing."""
        self._connection.close()
        if not self._is_asked:
            self._process.join(_MOST_WAIT_S)  # it sees that nobody will ask, and ends in order
        self._process.terminate()
        self._process.join(_MOST_WAIT_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._process.close()

    def _answer(self) -> Any:
        try:
            answer, error = self._connection.recv()
        except (EOFError, ConnectionError):
            raise self._gone() from None
        self._is_asked = False
        if error is not None:
            raise error
        return answer

    def _gone(self) -> OnelogitError:
        self._process.join(_MOST_WAIT_S)
        code = self._process.exitcode
        reason = "; was it killed for its memory?" if code == -signal.SIGKILL else ""
        return OnelogitError(f"the process of {self.name} ended with code {code}{reason}")


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """A process that starts now ignores Ctrl-C, which a terminal sends to all: this one ends the other."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _serve(connection: Connection, make: Callable[..., object], args: tuple[object, ...]) -> None:
    _be_quiet()
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
    except Exception as error:  # whatever a library raises: over there, it is no bug of this process
        return None, OnelogitError(f"{type(error).__name__}: {first_line(error)}")


def _send(connection: Connection, answer: object, error: OnelogitError | None) -> None:
    try:
        connection.send((answer, error))
    except OSError:
        raise SystemExit(1) from None  # nobody is there any more


def _be_quiet() -> None:
    """No bars and no warnings between the parent's."""
    from transformers.utils import logging as transformers_logging  # noqa: PLC0415

    tqdm.set_lock(threading.RLock())  # its own is shared between processes, and outlives one that is ended
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    for name in ("sentence_transformers", "onelogit"):
        logging.getLogger(name).setLevel(logging.ERROR)
