"""A value of a chat template -> its size; an error if it, or what is to be computed with it, exceeds a limit."""

import re
from collections.abc import Collection, Mapping
from typing import Any

from jinja2.utils import Namespace

from onelogit.errors import RecipeError

# Characters, tags, and parts of what tags calculate. The largest published template, a language model's, has
# 17,000, 340 and 1,300; those of rerankers have some 50 parts.
MAX_TEMPLATE, MAX_TAGS, MAX_NODES = 60_000, 1_500, 6_000
MAX_SECONDS = 0.3  # of processor time for all renderings of one template, which take some 10 ms
MAX_VALUE = 200_000  # characters, items and digits of one value, with all that it contains
MAX_RENDERED = 4_000_000  # of all values of one rendering
MAX_NUMBER = 100_000  # as an argument, as in jinja's own range
MAX_BITS = 4096
MAX_GROWTH, MAX_COMPARED = 10_000_000, 100_000_000  # size of a text times size of an argument
MAX_LOOPS = 16  # and macros in each other
MAX_PAIRS, MAX_INDENT, MAX_DATE = 1_000, 16, 100  # of an object from a list, of JSON, of the form of a date
MAX_PARTS = 16  # of the name of an attribute, separated by dots and commas
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
        elif isinstance(each, list | tuple):
            waiting.extend(each)
        elif isinstance(each, int):
            if each.bit_length() > MAX_BITS:
                raise excess("computes a number that is too large")
            size += each.bit_length() >> 5
        elif isinstance(each, Mapping):
            waiting += [*each.keys(), *each.values()]
        elif isinstance(each, Namespace):
            waiting += [*object.__getattribute__(each, "_Namespace__attrs").values()]
        elif isinstance(each, Collection) and not isinstance(each, range):  # not a loop, which reading would end
            waiting.extend(each)
        if size + len(waiting) > MAX_VALUE:
            raise excess(f"builds a value of more than {MAX_VALUE:,} characters or items")
    return size


def check_format(text: str, mark: str, size: int) -> None:
    """Check a text with places to fill in, each of which begins with the mark, and the size of what is filled in."""
    if _WIDE.search(text):
        raise excess(f"formats the text {text[:40]!r} with a width of more than four digits, or one that varies,")
    if text.count(mark) * (size + 10_000) > MAX_GROWTH:
        raise excess("fills long values into a text many times")
