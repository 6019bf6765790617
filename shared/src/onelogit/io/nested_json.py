"""A text -> its JSON value, unless it is nested so deeply that whatever copies, compares or prints it would fail."""

import json
from typing import Any

MAX_DEPTH = 100  # Python's own limit is about 1,000 for all functions that wait for each other


class NestingError(ValueError):
    """Lists and objects in each other, more than any program writes."""


def parsed_json(text: str | bytes) -> Any:
    """The value.

    Raises:
        NestingError: it has more than 100 levels of lists and objects.
        ValueError: it is not JSON, or has a number of too many digits.
    """
    try:
        value = json.loads(text)
    except RecursionError:
        raise _too_deep() from None
    check_depth(value)
    return value


def check_depth(value: object) -> None:
    """Raise NestingError if a JSON value has more than 100 levels of lists and objects."""
    level, depth = [value], 0
    while level:
        parts = [each.values() if isinstance(each, dict) else each for each in level if isinstance(each, dict | list)]
        level = [each for part in parts for each in part if isinstance(each, dict | list)]
        depth += 1
        if depth > MAX_DEPTH:
            raise _too_deep()


def _too_deep() -> NestingError:
    return NestingError(f"it is nested more than {MAX_DEPTH} levels deep")
