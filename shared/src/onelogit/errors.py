"""The error tree: everything that onelogit raises on purpose.

OnelogitError
├── InputError          an argument of the caller; also a ValueError
├── RecipeError         a model whose recipe is unknown, or does not fit it; also a ValueError
│   └── UnsupportedModelError   a model that no one-logit classifier can stand for
├── CheckpointError     files that are missing, damaged, or in a form that is not read
├── LogitError          a logit that is not a finite number
└── ServerError         a server that is not there, or answers otherwise than asked
"""


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
