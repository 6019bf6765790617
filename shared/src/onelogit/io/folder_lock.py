"""A folder -> the same, for this process alone. Whoever evaluates takes it, too: it needs no package of `bulk`'s."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from onelogit.errors import InputError

logger = logging.getLogger(__name__)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """A folder, made where there is none, for this process alone. The lock ends with the process, however it ends.

    Raises:
        InputError: it cannot be made, or another process is at it.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}") from error
    if os.name == "nt":
        yield  # Windows has no such lock
        return
    place = os.open(path, os.O_RDONLY)
    try:
        _lock(place, path)
        yield
    finally:
        os.close(place)


def _lock(place: int, path: Path) -> None:
    import fcntl  # noqa: PLC0415  not on Windows

    try:
        fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise InputError(f"another process is writing to {path}; wait until it has ended") from error
    except OSError as error:
        logger.warning("%s cannot be locked (%s): start no second run with it", path, error.strerror)
