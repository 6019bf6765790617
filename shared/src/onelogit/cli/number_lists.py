"""Lists of numbers on the command line, such as 1,10,100 -> integers."""

import re
from collections.abc import Sequence

from onelogit.errors import InputError

_MAX_DIGITS = 15


def numbers_of(text: str, option: str) -> list[int]:
    """The numbers of a list such as "1,10,100" or "1 10 100", in the given order.

    Raises:
        InputError: one is not a whole number from 1 up.
    """
    parts = re.split(r"\s*,\s*|\s+", text.strip())
    if not all(part.isascii() and part.isdigit() and len(part) <= _MAX_DIGITS and int(part) > 0 for part in parts):
        raise InputError(f"{option} must be whole numbers from 1 up, such as 1,10,100, not {text!r}")
    return [int(part) for part in parts]


def joined_lists(arguments: Sequence[str], option: str) -> list[str]:
    """The arguments, with `option 1 10 100`, the form of earlier versions, as `option "1 10 100"`."""
    joined: list[str] = []
    is_list = False
    for argument in arguments:
        is_number = argument[:1].isdigit() and set(argument) <= set("0123456789,")
        if is_list and is_number and joined[-1] != option:
            joined[-1] += f" {argument}"
            continue
        is_list = argument == option or (is_list and is_number)
        joined.append(argument)
    return joined
