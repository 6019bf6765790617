"""An error -> an HTTP status and a sentence, in the form that the client's SDK reads."""

from collections.abc import Mapping
from typing import Any

from onelogit.errors import InputError, LogitError, OnelogitError, OverloadError

_TYPES = {
    400: "BadRequestError",
    401: "AuthenticationError",
    404: "NotFoundError",
    405: "MethodNotAllowedError",
    413: "RequestTooLargeError",
    415: "UnsupportedMediaTypeError",
    429: "RateLimitError",
    503: "ServiceUnavailableError",
    504: "TimeoutError",
}
_MAX_MESSAGE = 600  # characters
_TEI_TYPES = {400: "Validation", 413: "Validation", 429: "Overloaded", 503: "Unhealthy"}


class RefusalError(OnelogitError):
    """A request without scores: the status, a sentence, and the headers of its answer."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.headers = dict(headers or {})


def refused(error: OnelogitError) -> RefusalError:
    """The refusal of a request that raised an error: 400 for an argument, 429, 500 for the model, 503 once closed."""
    if isinstance(error, RefusalError):
        return error
    if isinstance(error, InputError):
        return RefusalError(400, str(error))
    if isinstance(error, OverloadError):  # of a reranker with its own `max_waiting`
        return RefusalError(429, str(error), {"Retry-After": "1"})
    return RefusalError(500 if isinstance(error, LogitError) else 503, str(error))


def refusal_body(error: RefusalError, *, is_tei: bool = False) -> dict[str, Any]:
    """The JSON of a refusal.

    Sources: Cohere's SDK reads `message`; vLLM and OpenAI's SDK have `error.message`; Jina's clients read `detail`;
    Text Embeddings Inference has `error` and `error_type`.
    """
    message = str(error).encode("utf-8", "replace").decode()
    if len(message) > _MAX_MESSAGE:  # it quotes a long value
        message = f"{message[: _MAX_MESSAGE // 2]} ... {message[-_MAX_MESSAGE // 2 :]}"
    if is_tei:
        return {"error": message, "error_type": _TEI_TYPES.get(error.status, "Backend")}
    type_name = _TYPES.get(error.status, "InternalServerError")
    inner = {"message": message, "type": type_name, "param": None, "code": error.status}
    return {"message": message, "detail": message, "error": inner}
