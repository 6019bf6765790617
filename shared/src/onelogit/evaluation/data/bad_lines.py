"""What is wrong with judged data -> the end, or counted and passed over; ids and labels, checked."""

import math
from typing import NamedTuple

from onelogit.errors import InputError
from onelogit.io.text_files import shortened
from onelogit.validation import check_text


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


def id_of(value: object, name: str) -> str:
    """An id; whole numbers are ids, too.

    Raises:
        InputError: it is none.
    """
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    check_text(text, name)
    id = str(text)
    if not id.strip() or "\0" in id:
        raise InputError(f"{name} holds the character NUL" if id.strip() else f"{name} is empty")
    return id


def label_of(value: object) -> int:
    """A label: a whole number, how relevant the document is; from 1 up it is.

    Raises:
        InputError: it is none.
    """
    try:
        number = float(value) if isinstance(value, str | int | float) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if not number.is_integer() or abs(number) > 1000:
        raise InputError(f"a label must be a whole number up to 1000, not {shortened(str(value))!r}")
    return int(number)
