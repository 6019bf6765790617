"""A path -> a file or folder written to it, which appears only once it is complete.

It is written beside its target, under a name that begins with a dot, and then renamed. So a process that is killed
leaves nothing incomplete under the target's name.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import mkdtemp
from uuid import uuid4

from onelogit.errors import OnelogitError, first_line


@contextmanager
def atomic_file(
    path: Path, error_class: type[OnelogitError], *library_errors: type[Exception], advice: str = ""
) -> Iterator[Path]:
    """A temporary path to write a file to; after the block, the file is flushed to disk and replaces the one at `path`.

    Args:
        path: of the file; its folder exists.
        error_class: the error to raise if the file cannot be written.
        library_errors: errors besides OSError that mean a failed write.
        advice: the end of the error's message.

    Raises:
        OnelogitError: an `error_class`; an existing file at `path` is unchanged.
    """
    temporary = path.with_name(f".{path.name}.{uuid4().hex[:12]}")
    with _failures_as(error_class, path, library_errors, advice):
        try:
            yield temporary
            with temporary.open("rb+") as stream:  # otherwise, a power failure could lose the content
                os.fsync(stream.fileno())
            temporary.replace(path)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path, error_class: type[OnelogitError], *library_errors: type[Exception]) -> Iterator[Path]:
    """A temporary folder to write files to; after the block, it replaces the folder at `path`, if there is one.

    The umask determines the modes of the folder and its files. The parents of `path` are created. Arguments and errors
    are as in `atomic_file`.
    """
    with _failures_as(error_class, path, library_errors):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}-{uuid4().hex[:12]}")
        temporary.mkdir()
        try:
            yield temporary
            _reset_modes(temporary)
            _replace_folder(temporary, path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def _failures_as(
    error_class: type[OnelogitError], path: Path, library_errors: tuple[type[Exception], ...], advice: str = ""
) -> Iterator[None]:
    failures: tuple[type[Exception], ...] = (OSError, *library_errors)
    try:
        yield
    except failures as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise error_class(f"{path} cannot be written ({reason}){advice}") from error


def _reset_modes(folder: Path) -> None:
    """Apply the umask, as it was applied to the new folder: files written by safetensors are only their owner's."""
    mode = folder.stat().st_mode & 0o777
    for file in folder.rglob("*"):
        file.chmod(mode if file.is_dir() else mode & 0o666)


def _replace_folder(new: Path, path: Path) -> None:
    """Move the existing folder aside, rename the new one, and move the old one back if that fails.

    A process that is killed between the two renames leaves the old folder at `.NAME-*/NAME` beside `path`;
    `checkpoints.hub` looks for it there.
    """
    if not path.exists():
        new.rename(path)
        return
    aside = Path(mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        path.rename(aside / path.name)
        try:
            new.rename(path)
        except OSError:
            (aside / path.name).rename(path)
            raise
    finally:
        if path.exists():
            shutil.rmtree(aside, ignore_errors=True)
