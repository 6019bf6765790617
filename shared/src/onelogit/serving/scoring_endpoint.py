"""An HTTP request for scores -> its answer: key, place, body, form, scores; each refusal in the form of its client."""

import asyncio
import json
import logging
import re
import time
import traceback
import uuid
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from onelogit.errors import InputError, OnelogitError
from onelogit.io.nested_json import NestingError, parsed_json
from onelogit.serving.forms.body import ScoringBody, validated
from onelogit.serving.keys import ApiKeys
from onelogit.serving.limits import ServingLimits, WaitingRoom
from onelogit.serving.refusals import RefusalError, refusal_body, refused
from onelogit.serving.served_model import ServedModel
from onelogit.serving.server_metrics import ServerMetrics
from onelogit.serving.work import score

if TYPE_CHECKING:
    from onelogit.local.reranker import Reranker

logger = logging.getLogger(__name__)

Result = TypeVar("Result")
ChooseForm = Callable[[Mapping[str, Any]], type[ScoringBody]]

_THREAD_FROM_BYTES = 2**16  # a larger body would hold up the event loop while it is parsed
_DISCARD_S = 5.0
_GONE = 499  # nginx's status for a client that went away; only counted
_REQUEST_ID = re.compile(r"[!-~]{1,100}")


@dataclass(frozen=True, kw_only=True)
class ServingState:
    """The parts that all endpoints of a server share."""

    reranker: "Reranker"
    served: ServedModel
    keys: ApiKeys
    limits: ServingLimits
    room: WaitingRoom
    metrics: ServerMetrics
    large_texts: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "onelogit-large-texts"))


class ScoringEndpoint:
    """An ASGI application for one path.

    Args:
        path: for the metrics.
        choose: a body -> its form.
        state: of the server.
    """

    def __init__(self, path: str, choose: ChooseForm, state: ServingState) -> None:
        self._path, self._choose, self._state = path, choose, state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request. A client that goes away gets no answer, and its request leaves the queue."""
        started, status = time.monotonic(), _GONE
        try:
            response = await self._response(Request(scope, receive))
            status = response.status_code
            await response(scope, receive, send)
        except ClientDisconnect:
            return
        finally:
            self._state.metrics.count_request(self._path, status, time.monotonic() - started)

    async def _response(self, request: Request) -> JSONResponse:
        form: list[type[ScoringBody]] = []
        limits = self._state.limits
        try:
            self._state.keys.check(request.headers)
            with self._state.room.place():
                async with asyncio.timeout(limits.timeout_s):
                    return JSONResponse(await self._answer(request, form))
        except TimeoutError:
            error = RefusalError(504, f"the request took longer than timeout_s={limits.timeout_s:g}")
        except OnelogitError as raised:
            error = refused(raised)
        except (ClientDisconnect, asyncio.CancelledError):
            raise
        except Exception as raised:
            # The message of an unexpected error may quote a text, which must not be logged.
            logger.error("%s in\n%s", type(raised).__name__, "".join(traceback.format_tb(raised.__traceback__)))
            error = RefusalError(500, f"the server failed with {type(raised).__name__}; its log says where")
        if request.headers.get("Expect", "").lower() == "100-continue":
            error.headers["Connection"] = "close"  # the client reads the answer before it sends a body, and need not
        else:
            await _discard_rest(request, limits.max_body_bytes)
        is_tei = bool(form) and form[0].has_plain_errors
        return JSONResponse(refusal_body(error, is_tei=is_tei), error.status, error.headers)

    async def _answer(self, request: Request, form: list[type[ScoringBody]]) -> object:
        """The JSON answer. Sets `form`, in which errors from then on are told."""
        _check_encoding(request)
        raw = await _read(request, self._state.limits.max_body_bytes)
        is_large = len(raw) >= _THREAD_FROM_BYTES
        parse, validate = (asyncio.to_thread, asyncio.to_thread) if is_large else (_at_once, _at_once)
        content = await parse(_parsed, raw)
        _check_content_type(request)
        form.append(self._choose(content if isinstance(content, Mapping) else {}))
        body = await validate(validated, form[0], content)
        self._state.served.check_name(body.model)
        scoring = score(body.work(), self._state.reranker, self._state.limits, self._state.large_texts)
        scored = await _unless_gone(request, scoring)
        self._state.metrics.count_work(scored)
        return body.answer(scored, self._state.served, _id_of(request))


async def _at_once(work: Callable[..., Result], *arguments: Any) -> Result:
    return work(*arguments)


async def _read(request: Request, max_bytes: int) -> bytes:
    content = bytearray()
    too_large = RefusalError(413, f"the body is larger than the {max_bytes} bytes that this server takes")
    length = request.headers.get("Content-Length", "")
    if length.isdecimal() and int(length) > max_bytes:
        raise too_large
    async for part in request.stream():
        content += part
        if len(content) > max_bytes:
            raise too_large
    return bytes(content)


async def _discard_rest(request: Request, max_bytes: int) -> None:
    """Read what is left of a refused body, within bounds: most clients read no answer before they have sent it all."""
    received = 0
    with suppress(TimeoutError, RuntimeError):  # RuntimeError: the body was read already
        async with asyncio.timeout(_DISCARD_S):
            async for part in request.stream():
                received += len(part)
                if received > 8 * max_bytes:
                    return


def _parsed(raw: bytes) -> object:
    try:
        return parsed_json(raw)
    except NestingError:
        raise InputError("the body is nested too deeply") from None
    except ValueError as error:
        position = f" at character {error.pos + 1}" if isinstance(error, json.JSONDecodeError) else ""
        raise InputError(f"the body is not JSON{position}; send a JSON object") from None


def _check_encoding(request: Request) -> None:
    """Refuse compressed bodies, a few bytes of which may be gigabytes."""
    given = request.headers.get("Content-Encoding", "").strip().lower()
    if given not in ("", "identity"):
        raise RefusalError(
            415, f"the body is compressed ({given[:100]}), which this server does not read; send it as it is"
        )


def _check_content_type(request: Request) -> None:
    """Refuse types that a browser sends to any server without asking it first."""
    given = request.headers.get("Content-Type", "application/json").partition(";")[0].strip().lower()
    if given != "application/json" and not given.endswith("+json"):
        raise RefusalError(415, f"the body has the type {given[:100]}; send the header Content-Type: application/json")


async def _unless_gone(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """The result of some work, which is cancelled as soon as the client goes away.

    Raises:
        ClientDisconnect: the client went away.
    """
    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(_disconnect(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientDisconnect
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _id_of(request: Request) -> str:
    """The id that the client gave the request, or a new one."""
    given = request.headers.get("X-Request-Id", "")
    return given if _REQUEST_ID.fullmatch(given) else f"score-{uuid.uuid4().hex[:16]}"
