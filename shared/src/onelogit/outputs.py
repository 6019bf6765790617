"""Files that are to be written in the end -> refused at once where they could not be; figures -> images in files."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onelogit.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# In the order of preference; matplotlib takes what one lacks from the next.
_FONTS = ("DejaVu Sans", "Noto Sans CJK KR", "Noto Sans KR", "NanumGothic", "Malgun Gothic", "Apple SD Gothic Neo")


def check_package(package: str, extra: str) -> None:
    """Refuse to begin without it.

    Raises:
        InputError: naming the extra that brings it.
    """
    if find_spec(package) is None:
        raise InputError(f"this needs {package}: pip install 'onelogit[{extra}]'")


def check_plot(plot: Path) -> None:
    """Refuse a picture that could not be written in the end.

    Raises:
        InputError: matplotlib is missing, the ending is none of a picture, or it cannot stand there.
    """
    check_package("matplotlib", "plot")
    if plot.suffix.lower() not in (".png", ".svg", ".pdf") or not plot.absolute().parent.is_dir():
        raise InputError(f"--plot {plot} must name a .png, .svg or .pdf file in a folder that is there")
    check_writable(plot, "--plot")


def check_writable(file: Path, option: str) -> None:
    """Refuse a file that could not be written in the end.

    Raises:
        InputError: naming the option.
    """
    folder = file.absolute().parent
    if file.is_dir() or not folder.is_dir() or not os.access(file if file.exists() else folder, os.W_OK):
        raise InputError(f"{option} {file} cannot be written: name a file in a folder that is there and yours")


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
    try:
        import matplotlib as mpl  # noqa: PLC0415  an extra: most users never plot
        from matplotlib.figure import Figure  # noqa: PLC0415
        from matplotlib.font_manager import fontManager  # noqa: PLC0415
    except ImportError as error:
        raise InputError("plotting needs matplotlib: pip install 'onelogit[plot]'") from error
    present = {font.name for font in fontManager.ttflist}
    settings: Any = {"font.family": [font for font in _FONTS if font in present], "svg.hashsalt": "onelogit"}
    with mpl.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # a machine may have no font for a script
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure
        try:
            figure.savefig(path, dpi=150, facecolor="white")
        except (OSError, ValueError) as error:
            raise InputError(f"the plot cannot be written to {os.fspath(path)}: {error}") from error
