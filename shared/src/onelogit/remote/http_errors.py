"""What a server answers in place of a result -> one error in plain words, and whether to ask again."""

import json
import math
from collections.abc import Callable
from typing import NamedTuple

from onelogit.errors import ServerError

RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504, 529})
LONGEST_WAIT_S = 20.0

_HINT_KEY = "is the API key right, and given?"
_HINT_PATH = (
    "the url must be the server's root, and the server must serve a classifier with one label under this model's name"
)
_HINTS = {
    400: "if a prompt is too long for the server, lower max_tokens",
    401: _HINT_KEY,
    403: _HINT_KEY,
    404: _HINT_PATH,
    405: _HINT_PATH,
    413: "ask for fewer pairs_a_request",
}


class RetryableError(ServerError):
    """No answer, or one that may be another in a while."""

    def __init__(self, message: str, wait_s: float = 0.0) -> None:
        super().__init__(message)
        self.wait_s = wait_s


class Answer(NamedTuple):
    """What a server said.

    Attributes:
        code: of HTTP.
        content: as bytes.
        retry_after: the header of that name.
    """

    code: int
    content: bytes
    retry_after: str | None


def refusal(url: str, answer: Answer, shown: Callable[[object], str]) -> ServerError:
    """The error that an answer stands for.

    Args:
        url: that was asked.
        answer: with a code from 300 up.
        shown: what a server said -> what may be shown of it.
    """
    said = f"{url} answered {answer.code}: {shown(_message(answer.content))}"
    if answer.code in RETRIED:
        return RetryableError(said, _seconds(answer.retry_after))
    hint = _HINTS.get(answer.code)
    if answer.code < 400:
        hint = "redirects are not followed; name the address they lead to"
    return ServerError(f"{said} ({hint})" if hint else said)


def _message(content: bytes) -> str:
    """What a server says of its refusal, in whichever of the usual forms."""
    try:
        said = json.loads(content)
    except (ValueError, RecursionError):
        return content.decode("utf-8", "replace")
    if isinstance(said, dict):
        error = said.get("error", said.get("detail", said.get("message", said)))
        return str(error.get("message", error) if isinstance(error, dict) else error)
    return str(said)


def _seconds(header: str | None) -> float:
    try:
        wait_s = float(header or 0)
    except ValueError:
        return 0.0  # a date: rare, and the usual wait does
    return min(max(wait_s, 0.0), LONGEST_WAIT_S) if math.isfinite(wait_s) else 0.0
