"""The error tree: everything that onelogit raises on purpose.

OnelogitError
├── InputError          an argument of the caller; also a ValueError
├── RecipeError         a model whose recipe is unknown, or does not fit it; also a ValueError
│   └── UnsupportedModelError   a model that no one-logit classifier can stand for
├── CheckpointError     files that are missing, damaged, or in a form that is not read
├── LogitError          a logit that is not a finite number
└── ServerError         a server that is not there, or answers otherwise than asked
"""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from shlex import quote

_DISTRIBUTIONS = {
    "bm25s": "onelogit[evaluate]",
    "ir_measures": "onelogit[evaluate]",
    "matplotlib": "onelogit[plot]",
    "pyarrow": "onelogit[bulk]",
    "ray": "onelogit[ray]",
    "scipy": "onelogit[measure]",
    "sentence_transformers": "sentence-transformers>=5.4",
    "vllm": "ray[llm]",
}


class OnelogitError(Exception):
    """Whatever onelogit raises on purpose; catch this to catch them all."""


class InputError(OnelogitError, ValueError):
    """An argument that cannot be used: a query, a document, a limit or an option."""


class RecipeError(OnelogitError, ValueError):
    """No recipe is known for a model, or the recipe does not fit its tokenizer or template."""


class UnsupportedModelError(RecipeError):
    """A model whose relevance is not one linear read-out of its last hidden state."""


class CheckpointError(OnelogitError):
    """A checkpoint that is not there, lacks weights, is damaged, or is in a format that is not read."""


class LogitError(OnelogitError):
    """A logit that is NaN or infinite: the model, not the caller, went wrong."""


class ServerError(OnelogitError):
    """A server that cannot be reached, or answers with something other than what was asked for."""


def first_line(error: BaseException) -> str:
    """The first line of an error's message, without the advice that libraries add below it."""
    return str(error).strip().partition("\n")[0]


def check_packages(*packages: str, install: str | None = None) -> None:
    """Check that optional packages are installed, without importing them.

    Args:
        packages: import names.
        install: the distribution to install instead of the usual one.

    Raises:
        InputError: a package is missing; the message says how to install it.
    """
    for package in packages:
        if find_spec(package) is None:
            raise _missing(package, install)


@contextmanager
def optional_import(package: str, *, alternative: str | None = None) -> Iterator[None]:
    """Turn an ImportError of the block, which imports an optional package, into an InputError that says how to get it.

    Args:
        package: import name.
        alternative: what the user can do instead of installing it.
    """
    try:
        yield
    except ImportError as error:
        raise _missing(package, alternative=alternative) from error


def _missing(package: str, install: str | None = None, alternative: str | None = None) -> InputError:
    command = f"pip install {quote(install or _DISTRIBUTIONS[package])}"
    return InputError(f"this needs {package}: {command}{f', or {alternative}' if alternative else ''}")
