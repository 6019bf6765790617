"""What is written in the end -> refused at once where it could not be; images in files; versions beside figures."""

import os
import platform
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onelogit.errors import InputError, check_packages, optional_import

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PICTURES = (".png", ".svg", ".pdf")
# In the order of preference; matplotlib takes what one lacks from the next.
_FONTS = ("DejaVu Sans", "Noto Sans CJK KR", "Noto Sans KR", "NanumGothic", "Malgun Gothic", "Apple SD Gothic Neo")


def check_plot(plot: Path, made: Path | None = None) -> None:
    """Refuse a picture that could not be written in the end.

    Args:
        plot: the file.
        made: see `check_writable`.

    Raises:
        InputError: matplotlib is missing, the ending is none of a picture, or it cannot stand there.
    """
    check_packages("matplotlib")
    if plot.suffix.lower() not in _PICTURES:
        raise InputError(f"--plot {plot} must end in {', '.join(_PICTURES)}")
    check_writable(plot, "--plot", made)


def check_writable(file: Path, option: str, made: Path | None = None) -> None:
    """Refuse a file that could not be written in the end.

    Args:
        file: to be written.
        option: that names it.
        made: a folder that will be made until then.

    Raises:
        InputError: naming the option.
    """
    folder = file.absolute().parent
    if made is not None and folder == made.absolute() and not folder.exists():
        return
    if file.is_dir() or not folder.is_dir() or not os.access(file if file.exists() else folder, os.W_OK):
        raise InputError(f"{option} {file} cannot be written: name a file in a folder that is there and yours")


def versions(names: Iterable[str]) -> dict[str, str]:
    """Of Python, and of those distributions that are installed."""
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@contextmanager
def figure_in(path: str | os.PathLike[str], width: float, height: float) -> Iterator["Figure"]:
    """A figure for the block to draw on, written when it has.

    Args:
        path: of the image; its ending says the format, such as .png or .svg.
        width: in inches.
        height: in inches.

    Raises:
        InputError: matplotlib is not installed, or the image cannot be written.
    """
    with optional_import("matplotlib"):
        import matplotlib as mpl  # noqa: PLC0415
        from matplotlib.figure import Figure  # noqa: PLC0415
        from matplotlib.font_manager import fontManager  # noqa: PLC0415
    present = {font.name for font in fontManager.ttflist}
    fonts = [font for font in _FONTS if font in present]
    # No mathematics: a name may hold two dollar signs.
    settings: Any = {"font.family": fonts, "svg.hashsalt": "onelogit", "text.parse_math": False}
    with mpl.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # a machine may have no font for a script
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure
        try:
            figure.savefig(path, dpi=150, facecolor="white")
        except (OSError, ValueError) as error:
            raise InputError(f"the plot cannot be written to {os.fspath(path)}: {error}") from error
