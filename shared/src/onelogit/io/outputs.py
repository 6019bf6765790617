"""Output files and folders: checks before long work, locks for folders, plots, and versions for reports."""

import logging
import os
import platform
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from filelock import FileLock, SoftFileLock, Timeout, UnixFileLock

from onelogit.errors import InputError, check_packages, optional_import
from onelogit.io.atomic_write import atomic_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

logger = logging.getLogger(__name__)

PLOT_COLOURS = ("#0b6e99", "#d9730d", "#6940a5", "#448361", "#ad1a72", "#937264", "#5a5a5a", "#c4a000")
PLOT_MARKERS = "osD^v<>P"

_PLOT_SUFFIXES = (".png", ".svg", ".pdf")
# In order of preference; matplotlib takes missing glyphs from the next font.
_FONTS = ("DejaVu Sans", "Noto Sans CJK KR", "Noto Sans KR", "NanumGothic", "Malgun Gothic", "Apple SD Gothic Neo")


def check_plot(plot: Path, created_folder: Path | None = None) -> None:
    """Check that `--plot` can be written; `created_folder` is as in `check_writable`.

    Raises:
        InputError: matplotlib is not installed, the suffix is not supported, or the file cannot be written.
    """
    check_packages("matplotlib")
    if plot.suffix.lower() not in _PLOT_SUFFIXES:
        raise InputError(f"--plot {plot} must end in {', '.join(_PLOT_SUFFIXES)}")
    check_writable(plot, "--plot", created_folder)


def check_writable(file: Path, option: str, created_folder: Path | None = None) -> None:
    """Check that a file can be written; `created_folder` is a folder that will be created before it is written.

    Raises:
        InputError: it cannot; the message names the option.
    """
    folder = file.absolute().parent
    if created_folder is not None and folder == created_folder.absolute() and not folder.exists():
        return
    if file.is_dir() or not folder.is_dir() or not os.access(file if file.exists() else folder, os.W_OK):
        raise InputError(f"{option} {file} cannot be written; name a file in an existing folder that you can write to")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Create a folder if it is missing, and lock it against other processes while the block runs.

    The lock is the file `.lock` in the folder, which is removed afterwards. The system releases the lock of a killed
    process. On a file system without locks, filelock warns; from 4.0 on, the file's existence is then the lock, which a
    killed process on another host leaves behind.

    Raises:
        InputError: the folder cannot be created, or another process has locked it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder} cannot be written: {error.strerror}") from error
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        advice = f"; if it was killed, remove {lock.lock_file}" if isinstance(lock, SoftFileLock) else ""
        raise InputError(f"another process is writing to {folder}; wait until it has ended{advice}") from error
    except OSError as error:
        logger.warning("%s cannot be locked (%s); do not start a second run in it", folder, error.strerror)
    try:
        yield
    finally:
        if lock.is_locked and isinstance(lock, UnixFileLock):  # filelock removes the files of other locks itself
            with suppress(OSError):
                Path(lock.lock_file).unlink()
        lock.release()


def versions(distributions: Iterable[str]) -> dict[str, str]:
    """The versions of Python and of those given distributions that are installed."""
    found = {"python": platform.python_version()}
    for name in distributions:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


@contextmanager
def figure_in(path: str | os.PathLike[str], width: float, height: float) -> Iterator["Figure"]:
    """A figure to draw on in the block, `width` by `height` inches; it is written at the end of the block.

    The suffix of the path, such as .png or .svg, selects the format.

    Raises:
        InputError: matplotlib is not installed, or the image cannot be written.
    """
    with optional_import("matplotlib"):
        import matplotlib as mpl  # noqa: PLC0415
        from matplotlib.figure import Figure  # noqa: PLC0415
        from matplotlib.font_manager import fontManager  # noqa: PLC0415
    installed = {font.name for font in fontManager.ttflist}
    fonts = [font for font in _FONTS if font in installed]
    # A text with two dollar signs must not be parsed as mathematics.
    settings: Any = {"font.family": fonts, "svg.hashsalt": "onelogit", "text.parse_math": False}
    with mpl.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # not every machine has fonts for all scripts
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure
        try:
            form = Path(path).suffix.removeprefix(".") or None
            with atomic_file(Path(path), InputError) as temporary:
                figure.savefig(temporary, dpi=150, facecolor="white", format=form)
        except (InputError, ValueError) as error:
            raise InputError(f"the plot cannot be written to {os.fspath(path)}: {error}") from error


def style_axes(axes: "Axes", grid: Literal["both", "x"] = "both") -> None:
    """Draw a light grid behind the data, and remove the frame at the top and on the right."""
    axes.grid(axis=grid, color="#ececec", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
