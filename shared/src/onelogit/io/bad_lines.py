"""Malformed lines -> an error, or a count of skipped lines. Also checks ids and labels."""

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeVar

from onelogit.errors import InputError
from onelogit.io.lines import TextLine, shortened
from onelogit.io.table_rows import TableRow
from onelogit.validation import check_text

Row = TypeVar("Row", bound=TextLine | TableRow)

_ADVICE = "; correct it, or pass --skip-bad to skip it"


class SkippedItems(NamedTuple):
    """The number of skipped items of one kind, and the first problem."""

    count: int  # type: ignore[assignment]  # hides tuple.count, which is not needed
    first: str


class BadLines:
    """Counts malformed lines, unknown ids, and queries that cannot be scored, by kind, in `skipped`.

    If it is not skipping, the first one raises an error instead, which ends in the advice.
    """

    def __init__(self, *, is_skipping: bool = False, advice: str = _ADVICE) -> None:
        self._is_skipping = is_skipping
        self._advice = advice
        self.skipped: dict[str, SkippedItems] = {}

    def read_each(self, kind: str, lines: Iterable[Row], read: Callable[[Row], None]) -> None:
        """Call `read` on each line; a line on which it raises InputError is bad.

        Raises:
            InputError: a line is bad, and bad lines are not skipped.
        """
        for line in lines:
            try:
                read(line)
            except InputError as error:
                self.add(kind, line.place, error)

    def add(self, kind: str, place: str, problem: object) -> None:
        """Count and skip one item.

        Its kind is in the plural, such as "documents"; its place is the file and line, or the query.

        Raises:
            InputError: bad lines are not skipped.
        """
        message = f"{place}: {problem}"
        if not self._is_skipping:
            raise InputError(message + self._advice)
        before = self.skipped.get(kind, SkippedItems(0, message))
        self.skipped[kind] = before._replace(count=before.count + 1)


def checked_id(value: object, name: str) -> str:
    """The value as an id: a string that is not blank, or an integer.

    Raises:
        InputError: it is neither, or contains NUL.
    """
    check_text(str(value) if type(value) is int else value, name)
    id = str(value)
    if not id.strip() or "\0" in id:
        raise InputError(f"{name} contains the character NUL" if id.strip() else f"{name} is empty")
    return id


def checked_label(value: object) -> int:
    """The value as a relevance label: an integer; 1 or more means relevant.

    Raises:
        InputError: it is not an integer, or its absolute value is above 1000.
    """
    try:
        number = float(value) if isinstance(value, str | int | float) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if not number.is_integer() or abs(number) > 1000:
        raise InputError(f"a label must be an integer from -1000 to 1000, not {shortened(str(value))!r}")
    return int(number)
