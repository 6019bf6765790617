"""A value of a chat template -> its size; an error if it, or what is to be computed with it, exceeds a limit."""

import re
from collections.abc import Mapping
from typing import Any

from jinja2.utils import Namespace

from onelogit.errors import RecipeError

MAX_TEMPLATE, MAX_TAGS = 100_000, 3_000  # characters, and places where one calculates; far above published ones
MAX_SECONDS = 0.3  # of processor time for all renderings of one template, which take some 10 ms
MAX_VALUE = 200_000  # characters, items and digits of one value, with all that it contains
MAX_RENDERED = 4_000_000  # of all values of one rendering
MAX_NUMBER = 100_000  # as an argument, as in jinja's own range
MAX_BITS = 4096
MAX_GROWTH, MAX_COMPARED = 20_000_000, 1_000_000_000  # size of a text times size of an argument
_WIDE = re.compile(r"\d{5,}|%[-+ #\d.]*\*|\{[^{}]*\{(?!\{)")  # a width that is long, or that an argument gives


class TemplateLimitError(RecipeError):
    """A chat template takes more time or memory than any template that only joins texts."""


def excess(what: str) -> TemplateLimitError:
    return TemplateLimitError(
        f"the chat template {what} although it only has to join texts, so it may be hostile; read it, or pass a recipe "
        "with a template of your own"
    )


def size_of(value: Any) -> int:
    """The size of a value with all that it contains, each time that it contains it; raises TemplateLimitError."""
    size, waiting = 0, [value]
    while waiting:
        each = waiting.pop()
        size += 1
        if isinstance(each, str | bytes):
            size += len(each)
        elif isinstance(each, int):
            if each.bit_length() > MAX_BITS:
                raise excess("computes a number that is too large")
        elif isinstance(each, Mapping):
            waiting += [*each.keys(), *each.values()]
        elif isinstance(each, Namespace):
            waiting += [*object.__getattribute__(each, "_Namespace__attrs").values()]
        elif hasattr(each, "__len__") and not isinstance(each, range):
            waiting.extend(each)  # not `+=`, which would ask the operators of an undefined value
        if size + len(waiting) > MAX_VALUE:
            raise excess(f"builds a value of more than {MAX_VALUE:,} characters or items")
    return size


def check_format(text: str, mark: str, size: int) -> None:
    """Check a text with places to fill in, each of which begins with the mark, and the size of what is filled in."""
    if _WIDE.search(text):
        raise excess(f"formats the text {text[:40]!r} with a width of more than four digits, or one that varies,")
    if text.count(mark) * (size + 10_000) > MAX_GROWTH:
        raise excess("fills long values into a text many times")
