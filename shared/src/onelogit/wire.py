"""Bodies of requests -> a server's answers: one pooled client, retries, a deadline, one plain error. Knows no model.

All requests of a wire run on one event loop in a thread of its own, so that callers of any thread or loop share its
connections.
"""

import asyncio
import ipaddress
import logging
import os
import random
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt

from onelogit.errors import InputError, OnelogitError, ServerError
from onelogit.line import Line
from onelogit.options import is_url

if TYPE_CHECKING:
    import httpx2

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504, 529})
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.2, 20.0
_SHOWN = 300  # characters of what a server said


class Limits(NamedTuple):
    """How hard a server is asked.

    Attributes:
        timeout_s: for a whole call, retries and all; a request that hangs is cut with it.
        attempts: of each request.
        requests_at_once: over all callers of the wire.
    """

    timeout_s: float = 60.0
    attempts: int = 5
    requests_at_once: int = 8


class AwayError(ServerError):
    """No answer, or one that may be another in a while."""

    def __init__(self, message: str, wait_s: float = 0.0) -> None:
        super().__init__(message)
        self.wait_s = wait_s


class Wire:
    """A server's address, and how it is asked.

    Args:
        url: the server's root, with the prefix of a proxy, if there is one.
        api_key: sent as a bearer token; it is in no error, log or repr.
        headers: sent with each request.
        limits: see `Limits`.
        client: an `AsyncClient` of httpx2 or httpx in place of one made here; its connections live on the wire's own
            loop, and are closed with it.

    Raises:
        InputError: no http or https address, or one with a password in it.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        headers: Mapping[str, str] | None = None,
        limits: Limits = Limits(),  # noqa: B008  it cannot be changed
        client: "httpx2.AsyncClient | None" = None,
    ) -> None:
        self.url = _checked(url)
        self._api_key = api_key
        self._headers = {**(headers or {}), **({"Authorization": f"Bearer {api_key}"} if api_key else {})}
        self._limits = limits
        self._given_client = client
        self._lines: dict[int, Line] = {}
        self._lock = threading.Lock()
        self.is_closed = False
        if api_key and url.startswith("http://") and not _is_local(urlsplit(url).hostname or ""):
            logger.warning("%s is asked over plain HTTP: whoever is on the way can read the API key", self.url)

    def run(self, work: Coroutine[Any, Any, Result]) -> "Future[Result]":
        """Start some work on the wire's loop; cancelling its future cancels it.

        Raises:
            OnelogitError: the wire is closed.
        """
        if self.is_closed:
            work.close()
            raise OnelogitError("this reranker is closed; make it again")
        return asyncio.run_coroutine_threadsafe(work, self._line().loop)

    async def ask_all(
        self, path: str, bodies: Sequence[object], read: Callable[[int, Any], Result], on_done: Callable[[int], object]
    ) -> list[Result]:
        """What `read` makes of the answer to each body, in order; on the wire's loop.

        The first that fails ends the others.

        Args:
            path: behind the url.
            bodies: each is a request of its own.
            read: takes a body's place and its answer.
            on_done: called with each place when its answer is read.

        Raises:
            ServerError: one of them has no answer that can be used, or they take longer than the limit.
        """

        async def ask_one(place: int) -> Result:
            result = read(place, await self._ask("POST", path, bodies[place]))
            on_done(place)
            return result

        try:
            async with asyncio.timeout(self._limits.timeout_s), asyncio.TaskGroup() as group:
                tasks = [group.create_task(ask_one(place)) for place in range(len(bodies))]
        except TimeoutError:
            raise AwayError(f"{self.url}{path} took longer than timeout_s={self._limits.timeout_s:g}") from None
        except BaseExceptionGroup as errors:
            raise _first(errors) from None
        return [task.result() for task in tasks]

    async def get(self, path: str) -> Any:
        """The answer to a GET; on the wire's loop. Raises as `ask_all`."""
        try:
            async with asyncio.timeout(self._limits.timeout_s):
                return await self._ask("GET", path, None)
        except TimeoutError:
            raise AwayError(f"{self.url}{path} took longer than timeout_s={self._limits.timeout_s:g}") from None

    def close(self) -> None:
        """End the wire's thread and connections; what still waits is cancelled."""
        self.is_closed = True
        if (line := self._lines.pop(os.getpid(), None)) is not None:
            line.close()

    async def _ask(self, method: str, path: str, body: object) -> Any:
        line = self._line()
        retrying = AsyncRetrying(
            stop=stop_after_attempt(self._limits.attempts),
            wait=_wait_s,
            retry=retry_if_exception_type(AwayError),
            reraise=True,
        )
        async for attempt in retrying:
            with attempt:
                async with line.gate:
                    return await self._ask_once(line, method, path, body)
        raise AssertionError("tenacity raises when it gives up")

    async def _ask_once(self, line: Line, method: str, path: str, body: object) -> Any:
        url = self.url + path
        content = {} if body is None else {"json": body}
        try:
            answer = await line.client.request(
                method, url, headers=self._headers, follow_redirects=False, timeout=line.timeout, **content
            )
        except line.transport_error as error:
            raise AwayError(f"{url} does not answer: {self._clean(error) or type(error).__name__}") from None
        if answer.status_code >= 300:
            raise self._refusal(url, answer)
        try:
            return answer.json()
        except ValueError:
            raise ServerError(f"{url} answered with no JSON: {self._clean(answer.text)!r}") from None

    def _refusal(self, url: str, answer: Any) -> ServerError:
        code = answer.status_code
        said = f"{url} answered {code}: {self._clean(_message(answer))}"
        if code in RETRIED:
            return AwayError(said, _retry_after_s(answer.headers.get("Retry-After")))
        hints = {400: _HINT_LONG, 401: _HINT_KEY, 403: _HINT_KEY, 404: _HINT_PATH, 405: _HINT_PATH, 413: _HINT_LARGE}
        hint = "redirects are not followed; name the address they lead to" if code < 400 else hints.get(code)
        return ServerError(f"{said} ({hint})" if hint else said)

    def _clean(self, said: object) -> str:
        text = str(said)
        text = text.replace(self._api_key, "***") if self._api_key else text
        return text if len(text) <= _SHOWN else f"{text[:_SHOWN]} ..."

    def _line(self) -> Line:
        # By process: after a fork, the parent's thread is not there, and its connections are the parent's.
        pid = os.getpid()
        with self._lock:
            if pid not in self._lines:
                self._lines[pid] = Line(self._given_client, self._limits.timeout_s, self._limits.requests_at_once)
            return self._lines[pid]


_HINT_KEY = "is the API key right, and given?"
_HINT_PATH = (
    "the url must be the server's root, and the server must serve a classifier with one label under this model's name"
)
_HINT_LONG = "if a prompt is too long for the server, lower max_tokens"
_HINT_LARGE = "ask for fewer pairs_a_request"


def _checked(url: str) -> str:
    parts = urlsplit(url) if isinstance(url, str) else None
    if parts is None or not is_url(url) or not parts.hostname:
        raise InputError(f"the url must be an http or https address such as http://127.0.0.1:8000, not {url!r}")
    if parts.username or parts.password:
        raise InputError("the url holds a password; give it as api_key, or in the headers")
    if parts.query or parts.fragment:
        raise InputError(f"the url must be the server's root, without {parts.query or parts.fragment!r}")
    return url.rstrip("/")


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _message(answer: Any) -> str:
    """What a server says of its refusal, in whichever of the usual forms."""
    try:
        said = answer.json()
    except ValueError:
        return str(answer.text)
    if isinstance(said, dict):
        error = said.get("error", said.get("detail", said.get("message", said)))
        return str(error.get("message", error) if isinstance(error, dict) else error)
    return str(said)


def _retry_after_s(header: str | None) -> float:
    try:
        return min(max(float(header or 0), 0.0), _LONGEST_WAIT_S)
    except ValueError:
        return 0.0  # a date: rare, and the usual wait does


def _wait_s(state: RetryCallState) -> float:
    """Twice as long each time, at least what the server asks for, and never in step with other clients."""
    error = state.outcome.exception() if state.outcome else None
    asked = error.wait_s if isinstance(error, AwayError) else 0.0
    grown = min(_FIRST_WAIT_S * 2 ** (state.attempt_number - 1), _LONGEST_WAIT_S)
    return float(asked + grown * random.uniform(0.5, 1.5))  # noqa: S311  no secret


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """One plain error of a group: one of ours, if there is one."""
    leaves = [*_leaves(errors)]
    return next((each for each in leaves if isinstance(each, OnelogitError)), leaves[0])


def _leaves(errors: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    return [
        leaf
        for error in errors.exceptions
        for leaf in (_leaves(error) if isinstance(error, BaseExceptionGroup) else [error])
    ]
