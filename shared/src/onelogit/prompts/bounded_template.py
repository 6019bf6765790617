"""The text of a chat template -> a jinja template whose rendering is bounded in time and in memory.

A template comes with a model, so strangers write it. Jinja's sandbox keeps it from Python's internals, but not from
computing forever or from filling the memory. Here, each loop, call, filter, operator and output spends from a budget,
and what could multiply the size of a value is checked before it is computed.
"""

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from datetime import datetime
from functools import wraps
from typing import Any, NamedTuple, NoReturn, cast

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace, pass_context

from onelogit.errors import RecipeError, first_line
from onelogit.prompts.template_limits import (
    MAX_BITS,
    MAX_COMPARED,
    MAX_DATE,
    MAX_GROWTH,
    MAX_INDENT,
    MAX_NUMBER,
    MAX_PAIRS,
    MAX_PARTS,
    MAX_RENDERED,
    MAX_SECONDS,
    MAX_TAGS,
    MAX_TEMPLATE,
    MAX_VALUE,
    TemplateLimitError,
    check_format,
    excess,
    size_of,
)
from onelogit.prompts.template_tree import BoundedTree

_GROWING = {"batch", "center", "format", "indent", "join", "ljust", "replace", "rjust", "slice", "tojson", "zfill"}
# The place of the name of an attribute among the arguments; it is looked up for each item.
_ATTRIBUTES = {"groupby": 0, "join": 1, "map": 99, "max": 1, "min": 1, "rejectattr": 0, "selectattr": 0, "sort": 2}
_ATTRIBUTES |= {"sum": 0, "unique": 1}
_UNUSED_FILTERS = ("pprint", "random", "striptags", "urlize", "wordwrap", "xmlattr")  # slow or not reproducible
_UNUSED_METHODS = {"encode", "expandtabs", "format_map", "maketrans", "striptags", "translate"}
_UNUSED_OWNERS = (int, float, complex, bytes, type, Set)  # of methods that may allocate or compare without a bound


class BoundedTemplate(NamedTuple):
    """A template and its environment, which belong to one thread."""

    template: jinja2.Template
    environment: "BoundedEnvironment"

    def render(self, **variables: object) -> str:
        """The text that the template writes.

        Raises:
            TemplateLimitError: it takes too much time or memory.
            RecipeError: it fails in any other way.
        """
        self.environment.start()
        try:
            return self.template.render(**variables)
        except RecipeError:
            raise
        except Exception as error:  # a template may raise errors of any class
            raise RecipeError(first_line(error) or type(error).__name__) from error
        finally:
            self.environment.stop()


def names_in(chat_template: str) -> list[nodes.Name]:
    """The variables that a template reads or assigns."""
    return [*BoundedEnvironment().parse(chat_template).find_all(nodes.Name)]


def parse_template(chat_template: str, *, keeps_last_newline: bool = False) -> BoundedTemplate:
    """A template with the settings, filters and functions that transformers provides; see `BoundedEnvironment`.

    Raises:
        TemplateLimitError: it is too long. Its rendering raises this error for any other limit.
        RecipeError: it is not valid jinja.
    """
    length, tags = len(chat_template), chat_template.count("{{") + chat_template.count("{%")
    if length > MAX_TEMPLATE or tags > MAX_TAGS:
        raise TemplateLimitError(
            f"the chat template has {length:,} characters and {tags:,} tags, of at most {MAX_TEMPLATE:,} and "
            f"{MAX_TAGS:,}; it is damaged, or not a chat template"
        )
    environment = BoundedEnvironment(keeps_last_newline=keeps_last_newline)
    try:
        tree = environment.parse(chat_template)
        BoundedTree().visit(tree)
        tree.set_environment(environment)
        return BoundedTemplate(environment.from_string(tree), environment)
    except RecipeError:
        raise
    except Exception as error:  # Python's compiler raises further errors for deeply nested code
        raise RecipeError(f"the chat template is not valid jinja: {error}") from error


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """A sandbox with a budget of time for all renderings of its template, and of memory for each.

    Source of its settings: transformers 5.23, utils/chat_template_utils.py.
    """

    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "%", "**"})

    def __init__(self, *, keeps_last_newline: bool = False) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=keeps_last_newline,
            extensions=["jinja2.ext.loopcontrols"],
            optimized=False,
            finalize=_finalized,
        )
        self.start()
        self._seconds = MAX_SECONDS
        self.globals = {name: value for name, value in self.globals.items() if name != "lipsum"}
        self.globals["raise_exception"] = _raise_exception
        self.globals["strftime_now"] = _strftime_now
        filters = {**self.filters, "tojson": _to_json}
        self.filters = {
            name: _guarded_filter(self, name, each) for name, each in filters.items() if name not in _UNUSED_FILTERS
        }
        self.tests = {name: _guarded_test(self, cast("Any", each)) for name, each in self.tests.items()}

    def start(self) -> None:
        """Begin a rendering, which may use the processor for what the renderings before it left over."""
        self._size = 0
        self._started = time.thread_time()

    def stop(self) -> None:
        """End a rendering."""
        self._seconds -= time.thread_time() - self._started

    def spend(self, size: int) -> None:
        """Count a step, and the size of its result. Raises TemplateLimitError once the budget is spent."""
        self._size += 1 + size
        if self._size > MAX_RENDERED:
            raise excess(f"builds texts and lists of more than {MAX_RENDERED:,} characters and items")
        if time.thread_time() - self._started > self._seconds:
            raise excess(f"takes more than {MAX_SECONDS} s of processor time")

    def bounded(self, value: Any) -> Any:
        """The value, after its size is spent."""
        self.spend(size_of(value))
        return value

    def iterated(self, value: Any) -> Any:
        """The value of a loop, after its length is spent; an iterator spends while it is read."""
        if hasattr(value, "__len__"):
            self.spend(len(value))
            return value
        return self._read(value) if isinstance(value, Iterator) else value

    def joined(self, *values: Any) -> str:
        """The texts of some values, one after the other: jinja's operator `~`."""
        return "".join(str(self.bounded(each)) for each in values)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        """Call a function, a macro or a method, only if the size of its result is bounded."""
        if __obj in (__self.spend, __self.bounded, __self.iterated, __self.joined):
            return __obj(*args)
        owner, name = getattr(__obj, "__self__", None), getattr(__obj, "__name__", "")
        if isinstance(owner, _UNUSED_OWNERS):
            raise SecurityError(f"the method {name!r} of {type(owner).__name__} is unsafe")
        if isinstance(owner, str):
            if name in _UNUSED_METHODS:
                raise SecurityError(f"the method {name!r} of a text is unsafe")
            args = tuple(__self.listed(each) for each in args)
            __self.check_growth(name, owner, args, kwargs)
        elif __obj in (dict, Namespace):
            args = tuple(__self.listed(each) for each in args)
            if any(not isinstance(each, Mapping) and size_of(each) > MAX_PAIRS for each in args):
                raise excess(f"makes an object of a list of more than {MAX_PAIRS:,} items")
        return __self.bounded(super().call(__context, __obj, *args, **kwargs))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Compute an operator, if the size of its result is bounded."""
        if isinstance(left, Set) or isinstance(right, Set):
            raise SecurityError(f"the operator {operator!r} between sets is unsafe")
        sizes = size_of(left), size_of(right)
        numbers = isinstance(left, int) and isinstance(right, int)
        if operator == "**" and numbers and left.bit_length() * max(right, 0) > MAX_BITS:
            raise excess("computes a number that is too large")
        if operator == "*" and not numbers:
            for count, size in ((left, sizes[1]), (right, sizes[0])):
                if isinstance(count, int) and count * size > MAX_VALUE:
                    raise excess(f"repeats a value {count:,} times")
        if operator == "%" and isinstance(left, str):
            check_format(left, "%", sizes[1])
        return self.bounded(super().call_binop(context, operator, left, right))

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """The method `format` of a text, if the size of its result is bounded; None for other values."""
        wrapped = super().wrap_str_format(value)
        if wrapped is None or value.__name__ != "format":
            return wrapped and _refuse_call
        text = str(value.__self__)

        def formatted(*args: Any, **kwargs: Any) -> str:
            check_format(text, "{", size_of([*args, *kwargs.values()]))
            return wrapped(*args, **kwargs)

        return formatted

    def check_growth(self, name: str, value: Any, args: Iterable[Any], options: Mapping[str, Any]) -> None:
        """Check the arguments of a filter or method, before it is computed. Raises TemplateLimitError."""
        size, limit = size_of(value), MAX_GROWTH if name in _GROWING else MAX_COMPARED
        given = [*args, *options.values()]
        size_of(given)  # of all together, because each of many takes time
        for each in given:
            is_number = isinstance(each, int)
            if is_number and abs(each) > MAX_NUMBER:
                raise excess(f"passes a number above {MAX_NUMBER:,} to {name!r}")
            if (size + 1) * (max(each, 0) if is_number else size_of(each)) > limit:
                raise excess(f"passes a value to {name!r} that may give one of more than {limit:,} characters")

    def listed(self, value: Any) -> Any:
        """The value; of an iterator, a list of its values, which are spent."""
        return self.bounded([*self._read(value)]) if isinstance(value, Iterator) else value

    def _read(self, values: Iterator[Any]) -> Iterator[Any]:
        for value in values:
            self.bounded(value)
            yield value


def _guarded_filter(environment: BoundedEnvironment, name: str, filter: Callable[..., Any]) -> Callable[..., Any]:
    """A filter whose arguments and result are bounded."""
    first = 1 if hasattr(filter, "jinja_pass_arg") else 0

    @wraps(filter)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        values = [environment.listed(each) for each in args[first:]]
        value, *others = values or [None]
        environment.check_growth(name, value, others, kwargs)
        if name == "format":
            check_format(str(value), "%", size_of([*others, *kwargs.values()]))
        attribute = kwargs.get("attribute", (others[_ATTRIBUTES.get(name, 0) :] or [None])[0])
        if name in _ATTRIBUTES and isinstance(attribute, str) and len(re.findall("[.,]", attribute)) > MAX_PARTS:
            raise excess(f"names an attribute of more than {MAX_PARTS} parts")
        if name == "sum" and not isinstance(kwargs.get("start", (others[1:] or [0])[0]), int | float):
            raise excess("adds up values that are not numbers")
        return environment.bounded(filter(*args[:first], *values, **kwargs))

    return guarded


def _guarded_test(environment: BoundedEnvironment, test: Callable[..., bool]) -> Callable[..., bool]:
    """A test that spends the sizes of what it compares."""
    first = 1 if hasattr(test, "jinja_pass_arg") else 0

    @wraps(test)
    def guarded(*args: Any, **kwargs: Any) -> bool:
        environment.bounded([*args[first:], *kwargs.values()])
        return test(*args, **kwargs)

    return guarded


@pass_context
def _finalized(context: Context, value: Any) -> Any:
    environment: Any = context.environment
    return environment.bounded(value)


def _to_json(value: Any, **options: Any) -> str:
    indent = options.get("indent")
    if indent is not None and (indent if isinstance(indent, int) else size_of(indent)) > MAX_INDENT:
        raise excess(f"indents JSON by more than {MAX_INDENT} characters, which nested values multiply,")
    return json.dumps(value, ensure_ascii=False, **options)


def _strftime_now(form: str) -> str:
    if len(form) > MAX_DATE:
        raise excess(f"writes a date of more than {MAX_DATE} characters")
    return datetime.now().strftime(form)


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _refuse_call(*_: Any, **__: Any) -> NoReturn:
    raise SecurityError("the method 'format_map' of a text is unsafe")
