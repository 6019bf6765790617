"""A file, plain or gzipped -> its lines, each with its place; and what becomes of those that are malformed."""

import gzip
import json
import math
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

from onelogit.errors import InputError

_GZIP = b"\x1f\x8b"
_SHOWN = 80


class BadLineError(Exception):
    """What is wrong with one line, without its place."""


class Line(NamedTuple):
    """One line that is not blank.

    Attributes:
        place: file and line number, for people.
        content: without the line's end.
    """

    place: str
    content: bytes

    def text(self) -> str:
        """The line, decoded.

        Raises:
            BadLineError: it is not UTF-8.
        """
        try:
            return self.content.decode("utf-8")
        except UnicodeDecodeError as error:
            raise BadLineError(f"not UTF-8: {error.reason} at byte {error.start + 1}") from error

    def fields(self) -> dict[str, Any]:
        """The JSON object that the line is.

        Raises:
            BadLineError: it is none.
        """
        text = self.text()
        try:
            found = json.loads(text)
        except json.JSONDecodeError as error:
            raise BadLineError(f"not JSON: {error.msg} at character {error.colno}") from error
        except (ValueError, RecursionError) as error:
            raise BadLineError(f"not JSON that can be read: {error}") from error
        if not isinstance(found, dict):
            raise BadLineError(f"not a JSON object, but {shortened(text)}")
        return cast("dict[str, Any]", found)


class Skipped(NamedTuple):
    """Faults of one kind that were passed over: how many, and the first."""

    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody needs of it
    first: str


class Faults:
    """What was found wrong with the data: the end, or with `is_skipping` counted and passed over.

    Args:
        is_skipping: whether to go on.

    Attributes:
        skipped: what was passed over, by its kind.
    """

    def __init__(self, *, is_skipping: bool = False) -> None:
        self._is_skipping = is_skipping
        self.skipped: dict[str, Skipped] = {}

    def add(self, kind: str, place: str, fault: object) -> None:
        """Pass over one fault.

        Args:
            kind: what is left out for it, in the plural.
            place: where it stands.
            fault: what is wrong.

        Raises:
            InputError: faults are not passed over.
        """
        said = f"{place}: {fault}"
        if not self._is_skipping:
            raise InputError(f"{said}; mend it, or pass --skip-bad to go on without it")
        before = self.skipped.get(kind, Skipped(0, said))
        self.skipped[kind] = before._replace(count=before.count + 1)


def read_lines(path: Path) -> Iterator[Line]:
    """The lines of a file that are not blank. A mark of byte order in front and Windows' line ends are no part of them.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        with path.open("rb") as raw:
            is_zipped = raw.read(2) == _GZIP
        with gzip.open(path) if is_zipped else path.open("rb") as stream:
            for number, content in enumerate(stream, start=1):
                line = (content.removeprefix(b"\xef\xbb\xbf") if number == 1 else content).strip(b"\r\n")
                if line.strip():
                    yield Line(f"{path}, line {number}", line)
    except (OSError, EOFError, zlib.error) as error:
        said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise InputError(f"{path} cannot be read: {said}") from error


def text_of(fields: dict[str, Any], name: str, *, is_blank_allowed: bool = True) -> str:
    """A field that must be text.

    Raises:
        BadLineError: it is not there, or is something else.
    """
    if name not in fields:
        raise BadLineError(f'"{name}" is missing')
    return checked_text(fields[name], f'"{name}"', is_blank_allowed=is_blank_allowed)


def checked_text(value: object, name: str, *, is_blank_allowed: bool = True) -> str:
    """The value itself, where it is text.

    Raises:
        BadLineError: it is not.
    """
    if not isinstance(value, str):
        raise BadLineError(f"{name} must be a string, not {shortened(json.dumps(value, ensure_ascii=False))}")
    if not is_blank_allowed and not value.strip():
        raise BadLineError(f"{name} is empty")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise BadLineError(f"{name} holds half a character (a lone surrogate)") from error
    return value


def id_of(value: object, name: str) -> str:
    """An id; whole numbers are ids, too.

    Raises:
        BadLineError: it is none.
    """
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    text = checked_text(text, name, is_blank_allowed=False)
    if "\0" in text:
        raise BadLineError(f"{name} holds the character NUL")
    return text


def label_of(value: object) -> int:
    """A label: a whole number, how relevant the document is; from 1 up it is.

    Raises:
        BadLineError: it is none.
    """
    try:
        number = float(value) if isinstance(value, str | int | float) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if not number.is_integer() or abs(number) > 1000:
        raise BadLineError(f"a label must be a whole number up to 1000, not {shortened(str(value))!r}")
    return int(number)


def shortened(text: str, most: int = _SHOWN) -> str:
    """The text on one line, cut at its end."""
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 1]}…"
