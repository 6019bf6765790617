"""A contestant in a process of its own: what one keeps warm (threads, memory, compiled code) slows no other.

OpenMP keeps a team for every thread that has computed, and once there are more of them than cores, each barrier of
each team waits for the system instead of spinning: in one process, contestants would measure each other.
"""

import logging
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context, parent_process
from typing import TypeVar

from contestants import Ready, Settings, prepare
from transformers.utils import logging as transformers_logging

from checkpoints import Checkpoint

Result = TypeVar("Result")

_ready: Ready


class Contestant:
    """One that loads its model in its process, and waits there until it is asked."""

    def __init__(self, name: str, checkpoint: Checkpoint, settings: Settings):
        self.name = name
        arguments = (name, checkpoint, settings)
        self._process = ProcessPoolExecutor(1, get_context("spawn"), initializer=_prepare, initargs=arguments)

    def run(self, function: Callable[..., Result], *args: object) -> Result:
        """Call a module's function with the loaded contestant in front, over there; its errors are raised here."""
        return self._process.submit(_run, function, args).result()

    def score(self, query: str, documents: Sequence[str]) -> list[float]:
        """A raw logit for each document."""
        return self.run(_score, query, documents)

    def close(self) -> None:
        """End the process."""
        self._process.shutdown()


def quiet() -> None:
    """No progress bars and no warnings between the figures."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    for name in ("sentence_transformers", "onelogit"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _prepare(name: str, checkpoint: Checkpoint, settings: Settings) -> None:
    global _ready  # noqa: PLW0603  there is one in a process
    threading.Thread(target=_end_with_parent, daemon=True).start()
    quiet()
    _ready = prepare(name, checkpoint, settings)


def _end_with_parent() -> None:
    """Leave no process behind that holds a model, should the run be killed."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _run(function: Callable[..., Result], args: Sequence[object]) -> Result:
    return function(_ready, *args)


def _score(contestant: Ready, query: str, documents: Sequence[str]) -> list[float]:
    return contestant.score(query, documents)
