"""Bodies of requests -> a server's answers: one pooled client, retries, a deadline, one plain error. Knows no model.

All requests of a wire run on one event loop in a thread of its own, so that callers of any thread or loop share its
connections.
"""

import asyncio
import json
import logging
import os
import random
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, ParamSpec, TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt

from onelogit.errors import OnelogitError, ServerError
from onelogit.remote.endpoint import checked_address
from onelogit.remote.event_loop import LoopThread
from onelogit.remote.http_errors import LONGEST_WAIT_S, Answer, RetryableError, refusal

if TYPE_CHECKING:
    import httpx2

logger = logging.getLogger(__name__)

Result = TypeVar("Result")
Arguments = ParamSpec("Arguments")

_FIRST_WAIT_S = 0.2
_MOST_BYTES = 64 * 2**20  # of an answer, unpacked; a request's logits take a ten-thousandth


class ClientLimits(NamedTuple):
    """How hard a server is asked.

    Attributes:
        timeout_s: for a whole call, retries and all; a request that hangs is cut with it.
        attempts: of each request.
        requests_at_once: over all callers of the wire.
    """

    timeout_s: float = 60.0
    attempts: int = 5
    requests_at_once: int = 8


class Client:
    """A server's address, and how it is asked.

    Args:
        url: the server's root, with the prefix of a proxy, if there is one.
        api_key: sent as a bearer token; it is in no error, log or repr.
        headers: sent with each request.
        limits: see `ClientLimits`.
        client: an `AsyncClient` of httpx2 or httpx in place of one made here; its connections live on the wire's own
            loop, and are closed with it.

    Raises:
        InputError: as `checked_address`.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        headers: Mapping[str, str] | None = None,
        limits: ClientLimits = ClientLimits(),  # noqa: B008  it cannot be changed
        client: "httpx2.AsyncClient | None" = None,
    ) -> None:
        self._address = checked_address(url, api_key, headers)
        self.url = self._address.url
        self.shown = self._address.shown
        self._limits = limits
        self._given_client = client
        self._lines: dict[int, LoopThread] = {}
        self._guards: dict[int, threading.Lock] = {}
        self.is_closed = False
        if self._address.is_open_to_readers():
            logger.warning("%s is asked over plain HTTP: whoever is on the way can read the API key", self.url)

    def run(
        self, work: Callable[Arguments, Coroutine[Any, Any, Result]], *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> "Future[Result]":
        """Start some work on the wire's loop; cancelling its future cancels it.

        Raises:
            OnelogitError: the wire is closed; also in the future, where it is closed meanwhile.
        """
        with self._guard():
            loop = self._line().loop
            return asyncio.run_coroutine_threadsafe(self._until_closed(partial(work, *args, **kwargs)), loop)

    async def _until_closed(self, work: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
        try:
            return await work()
        except asyncio.CancelledError:
            if self.is_closed:  # by another: who waits here was not cancelled
                raise OnelogitError("this reranker was closed while a call waited") from None
            raise

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
            async with self._deadline(path), asyncio.TaskGroup() as group:
                tasks = [group.create_task(ask_one(place)) for place in range(len(bodies))]
        except BaseExceptionGroup as errors:
            raise _first(errors) from None
        return [task.result() for task in tasks]

    async def get(self, path: str) -> Any:
        """The answer to a GET; on the wire's loop. Raises as `ask_all`."""
        async with self._deadline(path):
            return await self._ask("GET", path, None)

    async def list_models(self) -> list[str]:
        """The names in the server's list of models; empty if it has no such list."""
        try:
            return [str(each["id"]) for each in (await self.get("/v1/models"))["data"]]
        except RetryableError:
            raise
        except (ServerError, KeyError, TypeError):
            return []

    def close(self) -> None:
        """End the wire's thread and connections; what still waits ends with an error."""
        with self._guard():
            self.is_closed = True
            line = self._lines.pop(os.getpid(), None)
        if line is not None:
            line.close()

    @asynccontextmanager
    async def _deadline(self, path: str) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._limits.timeout_s):
                yield
        except TimeoutError:
            raise RetryableError(f"{self.url}{path} took longer than timeout_s={self._limits.timeout_s:g}") from None

    async def _ask(self, method: str, path: str, body: object) -> Any:
        line = self._line()
        retrying = AsyncRetrying(
            stop=stop_after_attempt(self._limits.attempts),
            wait=_wait_s,
            retry=retry_if_exception_type(RetryableError),
            reraise=True,
        )
        async for attempt in retrying:
            with attempt:
                async with line.gate:
                    return await self._ask_once(line, method, path, body)
        raise AssertionError("tenacity raises when it gives up")

    async def _ask_once(self, line: LoopThread, method: str, path: str, body: object) -> Any:
        url = self.url + path
        sent = {"headers": self._address.headers, "follow_redirects": False, "timeout": line.timeout}
        sent |= {} if body is None else {"json": body}
        try:
            async with line.client.stream(method, url, **sent) as stream:
                answer = Answer(stream.status_code, await _read(stream, url), stream.headers.get("Retry-After"))
        except line.transport_error as error:
            raise RetryableError(f"{url} does not answer: {self.shown(error) or type(error).__name__}") from None
        except (line.decoding_error, line.url_error) as error:
            raise ServerError(f"{url} cannot be asked or understood: {self.shown(error)}") from None
        if answer.code >= 300:
            raise refusal(url, answer, self.shown)
        try:
            return json.loads(answer.content)
        except (ValueError, RecursionError):
            text = self.shown(answer.content.decode("utf-8", "replace"))
            raise ServerError(f"{url} answered with no JSON: {text!r}") from None

    def _line(self) -> LoopThread:
        """The line of this process.

        By process: after a fork, the parent's thread is not there, and its connections are the parent's.

        Raises:
            OnelogitError: the wire is closed, or its client was used before a fork.
        """
        pid = os.getpid()
        if self.is_closed:
            raise OnelogitError("this reranker is closed; make it again")
        if pid not in self._lines:
            if self._given_client is not None and self._lines:
                raise OnelogitError("a client of one's own does not outlive a fork; make this in each process")
            self._lines[pid] = LoopThread(self._given_client, self._limits.timeout_s, self._limits.requests_at_once)
        return self._lines[pid]

    def _guard(self) -> threading.Lock:
        # By process, too: who held it when the parent forked is not there to let it go.
        return self._guards.setdefault(os.getpid(), threading.Lock())


async def _read(stream: Any, url: str) -> bytes:
    content = bytearray()
    async for part in stream.aiter_bytes():
        content += part
        if len(content) > _MOST_BYTES:
            raise ServerError(f"{url} answers with more than {_MOST_BYTES >> 20} MiB, which cannot be scores")
    return bytes(content)


def _wait_s(state: RetryCallState) -> float:
    """Twice as long each time, at least what the server asks for, and never in step with other clients."""
    error = state.outcome.exception() if state.outcome else None
    asked = error.wait_s if isinstance(error, RetryableError) else 0.0
    grown = min(_FIRST_WAIT_S * 2 ** (state.attempt_number - 1), LONGEST_WAIT_S)
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
