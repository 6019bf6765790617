"""An HTTP response that reports an error -> a ServerError with advice, and whether to retry the request."""

import math
import re
from collections.abc import Callable
from typing import Any

from onelogit.errors import ServerError
from onelogit.io.nested_json import parsed_json
from onelogit.remote.protocols import RESULT_NAMES, ProtocolSpec, ScoreRequest

RETRIED_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504, 529})
MAX_WAIT_S = 20.0

_MESSAGES = ("detail", "message", "msg")  # also of successes
_ERRORS = ("error", *_MESSAGES, "errors", "error_msg")
_CODES = ("code", "status_code", "statusCode", "error_code", "status")

_HINTS = {
    **dict.fromkeys(range(300, 400), "redirects are not followed; pass the target as url"),
    **dict.fromkeys((401, 403), "check the API key"),
}

HintOf = Callable[[int], str | None]


class RetryableError(ServerError):
    """The server does not answer, or reports an error that may be temporary. `wait_s`: the wait that it asks for."""

    def __init__(self, message: str, wait_s: float = 0.0) -> None:
        super().__init__(message)
        self.wait_s = wait_s


class UnreachableError(RetryableError):
    """The server does not answer at all."""


def unreachable_error(url: str, reason: str, proxy: str) -> ServerError:
    """The error to raise for a request without a response.

    Args:
        url: of the request.
        reason: the HTTP library's message, without secrets.
        proxy: the environment variable of the proxy that the request goes through; "" for none.
    """
    if "CERTIFICATE_VERIFY_FAILED" in reason:
        return ServerError(
            f"the certificate of {url} is not trusted ({reason}); set the environment variable SSL_CERT_FILE to the "
            "certificates of its authority"
        )
    through = f" through the proxy that {proxy} names" if proxy else ""
    return UnreachableError(f"{url} does not answer{through}: {reason}")


def no_hint(status: int) -> str | None:
    """What to do about the status of any other request."""
    return _HINTS.get(status)


def hint_for(status: int, protocol: ProtocolSpec, request: ScoreRequest, length_hint: str) -> str | None:
    """What to do about the status of a request for scores; None if that is unknown.

    Args:
        status: from 300 up, or the code in a body.
        protocol: the form of the request.
        request: may contain images, empty documents, or too many.
        length_hint: what to do if a text is too long for the server.
    """
    if status in (404, 405):
        named = f"; the model is asked for as {request.model!r}, and served_name gives it another name"
        return protocol.path_hint + (named if status == 404 and request.model is not None else "")
    hints = []
    texts = [each for each in request.documents if isinstance(each, str)]
    if status in (400, 413, 422) and len(texts) < len(request.documents):
        hints.append("the request has images, which the served model and the server's limits must allow")
    if status in (400, 413, 422) and any(not text.strip() for text in texts):
        hints.append("the request has an empty document; leave it out if the server accepts none")
    if status == 413 and request.count > 1:
        hints.append("lower pairs_a_request")
    if status in (400, 413):
        hints.append(length_hint)
    return "; ".join(hints) or _HINTS.get(status)


def error_from_response(
    url: str, response: Any, content: bytes, redact: Callable[[object], str], hint_of: HintOf
) -> ServerError:
    """The error to raise for a response with a status from 300 up.

    Args:
        url: of the request.
        response: of httpx2 or httpx; its status and headers are read.
        content: its body; the server's message in it is quoted.
        redact: removes secrets from that message.
        hint_of: status -> what to do about it.
    """
    status = response.status_code
    message = f"{url} answered {status}: {redact(_text_of(content))}"
    return _error(status, message, _seconds(response.headers.get("Retry-After")), hint_of)


def error_in_body(url: str, body: object, redact: Callable[[object], str], hint_of: HintOf) -> ServerError | None:
    """The error that a response of status 200 reports in its JSON body; None if it reports none."""
    if not isinstance(body, dict) or (body.get("object") != "error" and any(body.get(name) for name in RESULT_NAMES)):
        return None
    name = next((name for name in _ERRORS if body.get(name)), None)
    if name is None and body.get("object") != "error":
        return None
    inner = body[name] if name is not None and isinstance(body[name], dict) else body
    codes = [part.get(each) for part in (inner, body) for each in _CODES]
    code = next((_number_in(each) for each in codes if each is not None), None)
    if name in _MESSAGES and code in (0, 200):
        return None
    message = f"{url} answered 200 with an error: {redact(_message_in(body))}"
    if code is not None and str(code) not in message:
        message = f"{message} ({redact(code)})"
    return _error(code if type(code) is int else 200, message, 0.0, hint_of)


def _number_in(code: object) -> object:
    """A code as a number, if it is the text of one that is not too long for Python; else as it is."""
    return int(code) if isinstance(code, str) and re.fullmatch("[0-9]{1,9}", code) else code


def _error(status: int, message: str, wait_s: float, hint_of: HintOf) -> ServerError:
    if status in RETRIED_STATUSES:
        return RetryableError(message, wait_s)
    hint = hint_of(status)
    return ServerError(f"{message} ({hint})" if hint else message)


def _text_of(content: bytes) -> str:
    """The server's error message, from any of the usual JSON forms; the text itself if it is not JSON."""
    try:
        body = parsed_json(content)
    except ValueError:
        return content.decode("utf-8", "replace")
    return _message_in(body)


def _message_in(body: object) -> str:
    if not isinstance(body, dict):
        return str(body)
    error = next((body[name] for name in _ERRORS if body.get(name)), body)
    return str(error.get("message", error) if isinstance(error, dict) else error)


def _seconds(retry_after: str | None) -> float:
    try:
        wait_s = float(retry_after or 0)
    except ValueError:
        return 0.0  # dates are rare, and the usual backoff is enough
    return min(max(wait_s, 0.0), MAX_WAIT_S) if math.isfinite(wait_s) else 0.0
