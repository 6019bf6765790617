"""A stream of bytes -> its lines with their places, and the JSON values in them."""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

from onelogit.errors import InputError
from onelogit.io.nested_json import check_depth, parsed_json

BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class TextLine(NamedTuple):
    """One line that is not blank: its `content` without the line ending, and its `place`, file name and line number."""

    place: str
    content: bytes

    def text(self) -> str:
        """The line, decoded.

        Raises:
            InputError: it is not UTF-8. Errors about the content of a line do not name the line.
        """
        try:
            return self.content.decode("utf-8")
        except UnicodeDecodeError as error:
            place = f"at byte {error.start + 1}"
            raise InputError(f"not UTF-8: {error.reason} {place}; save the file as UTF-8") from error

    def fields(self) -> dict[str, Any]:
        """The line, parsed as a JSON object.

        Raises:
            InputError: it is not a JSON object.
        """
        parsed = self.value()
        if not isinstance(parsed, dict):
            raise InputError(f"not a JSON object, but {shortened(self.text())}")
        return cast("dict[str, Any]", parsed)

    def value(self) -> Any:
        """The line, parsed as JSON.

        Raises:
            InputError: it is not JSON.
        """
        try:
            return parsed_json(self.text())
        except json.JSONDecodeError as error:
            raise InputError(f"not JSON: {error.msg} at character {error.colno}") from error
        except InputError:
            raise
        except ValueError as error:
            raise InputError(f"JSON that cannot be read: {error}") from error


def lines_of(stream: Iterable[bytes], name: str) -> Iterator[TextLine]:
    """The lines of a stream, as in `read_lines`; `name` names it in messages."""
    # Bytes are split only at line feeds; text would also be split at separators that JSON strings may contain.
    for number, line in enumerate(stream, start=1):
        content = line_content(line)
        if content.strip():
            yield TextLine(f"{name}, line {number}", content)


def line_content(line: bytes) -> bytes:
    """A line without its line ending and byte order mark, which concatenated files have in later lines, too."""
    return line.removeprefix(BYTE_ORDER_MARK).rstrip(b"\r\n")


def json_values(lines: Iterator[TextLine]) -> Iterator[tuple[str, Any]]:
    """The JSON values of a file and their places: one in each line or, if the first is incomplete, in several lines.

    Raises:
        InputError: it is not JSON; the message has the number of the line.
    """
    first = next(lines, None)
    if first is None:
        return
    try:
        value = first.value()
    except InputError:
        yield from _spread_values([first, *lines])
        return
    yield first.place, value
    for line in lines:
        with located(line.place):
            value = line.value()
        yield line.place, value


def object_lines(lines: Iterator[TextLine]) -> Iterator[TextLine]:
    """The lines; those of a JSON array, or of objects in several lines, become one line for each object.

    Raises:
        InputError: the lines begin like an array or such an object, but are not JSON.
    """
    first = next(lines, None)
    if first is None:
        return
    if not first.content.lstrip().startswith(b"[") and first.content.strip() != b"{":
        yield first
        yield from lines
        return
    for place, value in _spread_values([first, *lines]):
        name, _, line = place.rpartition(", line ")
        for number, each in enumerate(value if isinstance(value, list) else [value], start=1):
            object_place = f"{name}, object {number} of the array from line {line}"
            yield TextLine(object_place if isinstance(value, list) else place, json.dumps(each).encode())


def _spread_values(lines: list[TextLine]) -> Iterator[tuple[str, Any]]:
    texts = []
    for line in lines:
        with located(line.place):
            texts.append(line.text())
    text, position, decoder = "\n".join(texts), 0, json.JSONDecoder()
    while rest := text[position:].lstrip():
        position = len(text) - len(rest)
        place = lines[text.count("\n", 0, position)].place
        try:
            value, end = decoder.raw_decode(text, position)
            check_depth(value)
            position = end
        except json.JSONDecodeError as error:
            place = lines[error.lineno - 1].place
            raise InputError(f"{place}: not JSON: {error.msg} at character {error.colno}") from error
        except (ValueError, RecursionError) as error:
            raise InputError(f"{place}: JSON that cannot be read: {error}") from error
        yield place, value


@contextmanager
def located(place: str) -> Iterator[None]:
    """Put the place before the message of an InputError in the block."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{place}: {error}") from error


def shortened(text: str, max_characters: int = 80) -> str:
    """The text on one line, with white space collapsed, truncated to `max_characters`."""
    line = " ".join(text.split())
    return line if len(line) <= max_characters else f"{line[: max_characters - 1]}…"
