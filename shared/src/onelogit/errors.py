"""The exceptions of onelogit.

OnelogitError
├── InputError                  an invalid argument; also a ValueError
├── RecipeError                 no recipe for a model, or one that does not fit it; also a ValueError
│   └── UnsupportedModelError   a model that cannot be expressed as a one-logit classifier
├── CheckpointError             files that are missing, damaged, or in an unsupported format
├── DeviceMemoryError           a model, or a single prompt, that does not fit into memory; also a MemoryError
├── LogitError                  a logit that is not a finite number
├── OverloadError               a call beyond `max_waiting`
└── ServerError                 a server that cannot be reached, or gives an unexpected response
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from shlex import join

_EXTRAS = {  # of onelogit, by the import name of a package
    "bm25s": "evaluate",
    "ir_measures": "evaluate",
    "matplotlib": "plot",
    "peft": "lora",
    "prometheus_client": "serve",
    "pyarrow": "bulk",
    "pydantic": "serve",
    "ray": "ray",
    "scipy": "measure",
    "starlette": "serve",
    "uvicorn": "serve",
}
_OF_NO_EXTRA = {"sentence_transformers": "sentence-transformers>=5.4", "vllm": "ray[llm]"}


class OnelogitError(Exception):
    """The base class of all exceptions of onelogit."""


class InputError(OnelogitError, ValueError):
    """An argument is invalid: a query, a document, a limit or an option."""


class RecipeError(OnelogitError, ValueError):
    """No recipe is known for a model, or the recipe does not fit its tokenizer or template."""


class UnsupportedModelError(RecipeError):
    """The model's relevance is not a single linear function of its last hidden state."""


class CheckpointError(OnelogitError):
    """A checkpoint does not exist, lacks weights, is damaged, or has an unsupported format."""


class DeviceMemoryError(OnelogitError, MemoryError):
    """The memory of the device is too small for the model, or for a single prompt."""


class LogitError(OnelogitError):
    """A logit is NaN or infinite; the cause is the model, not the caller."""


class OverloadError(OnelogitError):
    """As many calls wait already as `max_waiting` allows; the call was not started."""


class ServerError(OnelogitError):
    """A server cannot be reached, or gives an unexpected response."""


def first_line(error: BaseException) -> str:
    """The first line of an error's message, and the next after a colon, without the advice that libraries add below."""
    first, *rest = str(error).strip().split("\n")
    following = next(filter(None, map(str.strip, rest)), "") if first.endswith(":") else ""
    return f"{first} {following}".strip()


def counted(count: int, noun: str) -> str:
    """A count with its noun: "1 row", "2,000 rows"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def counted_of(count: int, total: int, noun: str) -> str:
    """A count of all, with the verb after it: "1 of 1 row was", "1 of 2 rows was", "2 of 3 rows were"."""
    return f"{count} of {total} {noun}{'' if total == 1 else 's'} {'was' if count == 1 else 'were'}"


def check_packages(*packages: str, extra: str | None = None) -> None:
    """Check that optional packages are installed, without importing them.

    Args:
        *packages: their import names.
        extra: the extra to install if one is missing; by default the one of that package alone.

    Raises:
        InputError: a package is missing; the message says how to install it.
    """
    for package in packages:
        if find_spec(package) is None:
            raise _missing(package, extra)


@contextmanager
def optional_import(package: str, *, alternative: str | None = None) -> Iterator[None]:
    """Turn an ImportError of the block, which imports an optional package, into an InputError that says how to get it.

    The message also names the alternative: what the user can do instead of installing the package.
    """
    try:
        yield
    except ImportError as error:
        raise _missing(package, alternative=alternative) from error


def _missing(package: str, extra: str | None = None, alternative: str | None = None) -> InputError:
    extra = extra or _EXTRAS.get(package)
    needed = [_OF_NO_EXTRA[package]] if extra is None else _requirements_of(extra)
    named = "" if extra is None else f" (the extra {extra!r})"
    command = join(["pip", "install", *needed])
    return InputError(f"this needs {package}{named}: {command}{f', or {alternative}' if alternative else ''}")


def _requirements_of(extra: str) -> list[str]:
    """The packages that an extra of the installed onelogit consists of, so that pip need not find onelogit itself."""
    from importlib.metadata import PackageNotFoundError, requires  # noqa: PLC0415  slow, and only for errors

    try:
        declared = requires("onelogit") or []
    except PackageNotFoundError:  # run from a folder, without having been installed
        declared = []
    parts = [each.partition(";") for each in declared]
    found = [package.strip() for package, _, marker in parts if re.search(rf"extra == ['\"]{extra}['\"]", marker)]
    return found or [f"onelogit[{extra}]"]
