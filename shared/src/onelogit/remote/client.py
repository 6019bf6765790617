"""Requests -> a server's responses: connection pooling, retries, a deadline, and one plain error. Knows no model.

All requests run on one event loop in a separate thread, so that callers on any thread or event loop share connections.
"""

import asyncio
import json
import logging
import os
import random
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt

from onelogit.endpoint import checked_endpoint
from onelogit.errors import OnelogitError, ServerError
from onelogit.io.nested_json import parsed_json
from onelogit.remote.environment import proxy_of
from onelogit.remote.event_loop import LoopCall, LoopThread, Work
from onelogit.remote.http_errors import (
    MAX_WAIT_S,
    HintOf,
    RetryableError,
    UnreachableError,
    error_from_response,
    error_in_body,
    hint_for,
    no_hint,
    unreachable_error,
)
from onelogit.remote.protocols import ProtocolSpec, ScoreRequest, UnknownFormError
from onelogit.threads import in_temporary_thread

if TYPE_CHECKING:
    import httpx2

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

_FIRST_WAIT_S = 0.2
_MAX_RESPONSE_BYTES = 64 * 2**20  # uncompressed; the logits of a request take a ten-thousandth of this
_ENCODINGS = ("", "identity", "gzip", "deflate")  # others, and several, can make a few bytes gigabytes at once


class Client:
    """Sends requests to one server.

    Args:
        url, api_key, headers: as in `checked_endpoint`. No error, log message or repr shows the key.
        timeout_s: for a whole call, including retries.
        attempts: maximum number of times that a request is sent.
        requests_at_once: maximum concurrent requests of all callers.
        http: an `AsyncClient` of httpx2 or httpx to use instead of a new one. Its connections belong to the event loop
            of this client, and `close` closes it.
        length_hint: what to do if a text is too long for the server.

    Raises:
        InputError: as `checked_endpoint`.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 60.0,
        attempts: int = 5,
        requests_at_once: int = 8,
        http: "httpx2.AsyncClient | None" = None,
        length_hint: str = "lower max_tokens",
    ) -> None:
        self._endpoint = checked_endpoint(url, api_key, headers)
        self.url = self._endpoint.url
        self.redact = self._endpoint.redact
        self._timeout_s = timeout_s
        self._attempts = attempts
        self._requests_at_once = requests_at_once
        self._custom_http = http
        self._length_hint = length_hint
        # By process id: a forked child has none of its parent's threads, one of which may hold the lock.
        self._loop_threads: dict[int, LoopThread] = {}
        self._locks: dict[int, threading.Lock] = {}
        self.is_closed = False
        if self._endpoint.sends_secrets_unencrypted:
            logger.warning("%s uses plain HTTP: the API key and secret headers are sent unencrypted", self.url)

    @property
    def has_custom_http(self) -> bool:
        """Whether it uses an HTTP client of the caller."""
        return self._custom_http is not None

    def run(self, work: Work[Result]) -> Result:
        """Run a coroutine function on the client's event loop, and return its result.

        Raises:
            OnelogitError: the client is closed, before or while it runs.
        """
        call = LoopCall(partial(self._until_closed, work))
        try:
            self._start(call)
            return call.outcome.result()
        finally:
            call.cancel()  # an interrupt must cancel the requests, too
            del call  # an error refers to this frame

    async def arun(self, work: Work[Result]) -> Result:
        """`run`, without blocking the event loop of the caller; cancelling it cancels the requests."""
        call = LoopCall(partial(self._until_closed, work))
        try:
            self._start(call)
            return await call.outcome.aresult()
        finally:
            call.cancel()
            del call

    def _start(self, call: LoopCall[Result]) -> None:
        if os.getpid() not in self._loop_threads:
            in_temporary_thread(self._add_loop_thread)
        with self._process_lock():
            call.start(self._loop_thread().loop)

    async def _until_closed(self, work: Work[Result]) -> Result:
        try:
            return await work()
        except RetryableError as error:  # it was retried
            raise ServerError(str(error)) from None
        except asyncio.CancelledError:
            if self.is_closed:  # cancelled by `close`, not by the caller
                raise OnelogitError("this reranker was closed while a call was waiting") from None
            raise

    async def scores(
        self, protocol: ProtocolSpec, requests: Sequence[ScoreRequest], on_done: Callable[[int], object] | None = None
    ) -> list[float]:
        """The numbers for all requests, in order. Runs on the client's event loop; the first error cancels the rest.

        Args:
            protocol: the form of the requests.
            requests: sent concurrently.
            on_done: called after each response with its count of numbers.

        Raises:
            ServerError: a request fails, its response cannot be used, or together they take longer than the limit.
        """

        async def send(request: ScoreRequest, failures: list[str]) -> list[float]:
            hint_of = partial(hint_for, protocol=protocol, request=request, length_hint=self._length_hint)
            response = await self._send_with_retries("POST", protocol.path, failures, protocol.body(request), hint_of)
            try:
                numbers = protocol.checked_numbers(response, request.count)
            except UnknownFormError as error:
                sent = self.redact(json.dumps(response, ensure_ascii=False))
                raise ServerError(f"{error}; the response is {sent}") from error
            if on_done is not None:
                on_done(len(numbers))
            return numbers

        try:
            async with self._deadline(protocol.path) as failures, asyncio.TaskGroup() as group:
                tasks = [group.create_task(send(request, failures)) for request in requests]
        except BaseExceptionGroup as errors:
            raise _first_error(errors) from None
        return [number for task in tasks for number in task.result()]

    async def list_models(self) -> list[str]:
        """The names in the server's list of models; empty if it has no such list. Raises as `scores`."""
        try:
            async with self._deadline("/v1/models") as failures:
                models = await self._send_with_retries("GET", "/v1/models", failures)
                return list(dict.fromkeys(str(each["id"]) for each in models["data"]))
        except RetryableError:
            raise
        except (ServerError, KeyError, TypeError):
            return []

    def close(self) -> None:
        """End the thread and close the connections; running calls raise OnelogitError."""
        with self._process_lock():
            self.is_closed = True
            thread = self._loop_threads.pop(os.getpid(), None)
        if thread is not None:
            thread.close()

    @asynccontextmanager
    async def _deadline(self, path: str) -> AsyncIterator[list[str]]:
        failures: list[str] = []
        try:
            async with asyncio.timeout(self._timeout_s):
                yield failures
        except TimeoutError:
            last = f"; the last attempt failed: {failures[-1]}" if failures else ""
            raise RetryableError(f"{self.url}{path} took longer than timeout_s={self._timeout_s:g}{last}") from None

    async def _send_with_retries(
        self, method: str, path: str, failures: list[str], body: object = None, hint_of: HintOf = no_hint
    ) -> Any:
        thread = self._loop_thread()
        retrying = AsyncRetrying(
            stop=stop_after_attempt(self._attempts),
            wait=_wait_s,
            retry=retry_if_exception_type(RetryableError),
            before_sleep=lambda state: failures.append(str(state.outcome and state.outcome.exception())),
            reraise=True,
        )
        try:
            return await retrying(self._send, thread, method, path, body, hint_of)
        except UnreachableError as error:
            count = f"{self._attempts} attempt{'s' * (self._attempts > 1)}"
            raise RetryableError(f"no server answers at {self.url} ({count}; {error}): is it running?") from None

    async def _send(self, thread: LoopThread, method: str, path: str, body: object, hint_of: HintOf) -> Any:
        url = self.url + path
        headers = {"Accept-Encoding": "gzip, deflate", **self._endpoint.headers}
        options = {"headers": headers, "follow_redirects": False, "timeout": thread.timeout}
        try:
            async with thread.semaphore, thread.http.stream(method, url, json=body, **options) as response:
                content = await _read(response, url)
        except thread.library.TransportError as error:
            proxy = await proxy_of(url) if thread.uses_environment else ""
            raise unreachable_error(url, self.redact(error) or type(error).__name__, proxy) from None
        except thread.library.InvalidURL as error:
            raise ServerError(f"no request can be sent to {url}: {self.redact(error)}") from None
        except thread.library.DecodingError as error:
            raise ServerError(f"the response of {url} cannot be decoded: {self.redact(error)}") from None
        if response.status_code >= 300:
            raise error_from_response(url, response, content, self.redact, hint_of)
        try:
            answer = parsed_json(content)
        except ValueError:
            text = self.redact(content.decode("utf-8", "replace"))
            raise ServerError(f"the response of {url} is not JSON: {text!r}") from None
        if reported := error_in_body(url, answer, self.redact, hint_of):
            raise reported
        return answer

    def _add_loop_thread(self) -> None:
        """Start the thread of this process, unless another caller has.

        Raises:
            OnelogitError: a custom HTTP client was used before a fork.
        """
        with self._process_lock():
            pid = os.getpid()
            if self.is_closed or pid in self._loop_threads:
                return
            if self._custom_http is not None and self._loop_threads:
                raise OnelogitError(
                    "a custom HTTP client cannot be used after fork(); create the RemoteReranker in each process"
                )
            self._loop_threads[pid] = LoopThread(self._custom_http, self._timeout_s, self._requests_at_once)

    def _loop_thread(self) -> LoopThread:
        """The thread of this process. Raises OnelogitError if the client is closed."""
        if self.is_closed:
            raise OnelogitError("this reranker is closed; create a new one")
        return self._loop_threads[os.getpid()]

    def _process_lock(self) -> threading.Lock:
        return self._locks.setdefault(os.getpid(), threading.Lock())


async def _read(response: Any, url: str) -> bytes:
    if response.headers.get("Content-Encoding", "").strip().lower() not in _ENCODINGS:
        raise ServerError(f"the response of {url} is compressed in another way than gzip or deflate, so it is not read")
    content = bytearray()
    async for part in response.aiter_bytes():
        content += part
        if len(content) > _MAX_RESPONSE_BYTES:
            raise ServerError(f"the response of {url} is larger than {_MAX_RESPONSE_BYTES >> 20} MiB; scores are not")
    return bytes(content)


def _wait_s(state: RetryCallState) -> float:
    """The wait that the server asks for, plus a backoff that doubles each time, with jitter to spread clients out."""
    error = state.outcome.exception() if state.outcome else None
    requested = error.wait_s if isinstance(error, RetryableError) else 0.0
    backoff = min(_FIRST_WAIT_S * 2 ** (state.attempt_number - 1), MAX_WAIT_S)
    return float(requested + backoff * random.uniform(0.5, 1.5))  # noqa: S311  not cryptographic


def _first_error(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """The group's first OnelogitError or, if it has none, its first error."""
    error: BaseException = errors.subgroup(OnelogitError) or errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
