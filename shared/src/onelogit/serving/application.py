"""A reranker -> an ASGI application with all routes, for uvicorn or to mount in another application."""

import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from onelogit.errors import InputError
from onelogit.serving.forms.body import ScoringBody
from onelogit.serving.forms.classify import ClassifyBody
from onelogit.serving.forms.rerank import RerankBody, RerankV2Body
from onelogit.serving.forms.score import ScoreBody
from onelogit.serving.forms.tei import TeiBody
from onelogit.serving.information import information_routes
from onelogit.serving.keys import ApiKeys
from onelogit.serving.limits import ServingLimits, WaitingRoom
from onelogit.serving.readiness import Readiness
from onelogit.serving.refusals import RefusalError, refusal_body
from onelogit.serving.scoring_endpoint import ScoringEndpoint, ServingState
from onelogit.serving.served_model import ServedModel
from onelogit.serving.server_metrics import ServerMetrics

if TYPE_CHECKING:
    from onelogit.local.reranker import Reranker

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s]+")

# The forms of each path. Where there are two, a body with `texts` has the first, and any other body the last.
FORMS: Mapping[str, Sequence[type[ScoringBody]]] = {
    "/rerank": (TeiBody, RerankBody),
    "/v1/rerank": (TeiBody, RerankBody),
    "/v2/rerank": (TeiBody, RerankV2Body),
    "/score": (ScoreBody,),
    "/v1/score": (ScoreBody,),
    "/classify": (ClassifyBody,),
}


def app(
    reranker: "Reranker",
    *,
    served_names: Sequence[str] = (),
    api_keys: Sequence[str] = (),
    allowed_origins: Sequence[str] = (),
    limits: ServingLimits | None = None,
) -> Starlette:
    """An ASGI application that scores with a reranker. Requests that wait at the same time are computed together.

    Args:
        reranker: a local one, which the caller closes. It is warmed up at the start; `/ready` says when that is done.
        served_names: of the model, in requests and answers; by default its hub id, or its folder's name.
        api_keys: any of which a request must have; none to accept every request.
        allowed_origins: of web pages that may send requests (CORS); none by default.
        limits: by default those of `ServingLimits`.

    Raises:
        InputError: the reranker is not a local one, a name or key is blank, or an origin has a path or no scheme.
    """
    for origin in allowed_origins:
        if origin != "*" and not _ORIGIN.fullmatch(origin):
            raise InputError(f"an allowed origin is a scheme and a host, such as https://example.org, not {origin!r}")
    if not hasattr(reranker, "scorer"):
        raise InputError(f"only a local Reranker can be served, not a {type(reranker).__name__}")
    limits = ServingLimits() if limits is None else limits
    room, readiness = WaitingRoom(limits.max_waiting), Readiness(reranker)
    state = ServingState(
        reranker=reranker,
        served=ServedModel(reranker, served_names),
        keys=ApiKeys(api_keys),
        limits=limits,
        room=room,
        metrics=ServerMetrics(room),
    )

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        readiness.start()
        yield

    scoring = [
        Route(path, ScoringEndpoint(path, _chooser(forms), state), methods=["POST"]) for path, forms in FORMS.items()
    ]
    routes = [*scoring, *information_routes(state, readiness, FORMS)]
    # Starlette would redirect a path with a slash at its end to plain http, and clients would send their key there.
    routes += [Route(f"{route.path}/", route.endpoint, methods=[*(route.methods or ())]) for route in routes]
    cors = Middleware(
        CORSMiddleware,
        allow_origins=[*allowed_origins],
        allow_methods=["GET", "POST"],
        allow_headers=["*"],  # clients' SDKs send headers of their own, such as X-Client-Name
        expose_headers=["Retry-After"],
    )
    application = Starlette(
        routes=routes,
        middleware=[cors] if allowed_origins else [],
        exception_handlers={HTTPException: _no_such_path},
        lifespan=lifespan,
    )
    application.router.redirect_slashes = False
    return application


def _chooser(forms: Sequence[type[ScoringBody]]) -> Callable[[Mapping[str, Any]], type[ScoringBody]]:
    def choose(body: Mapping[str, Any]) -> type[ScoringBody]:
        return forms[0] if body.get("texts") is not None and body.get("documents") is None else forms[-1]

    return choose


async def _no_such_path(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    headers = dict(getattr(error, "headers", None) or {})
    allowed = f"; it takes {headers['Allow']}" if "Allow" in headers else ""
    description = f"{request.scope.get('root_path', '')}/openapi.json"
    message = f"there is no {request.method} {request.url.path[:200]}{allowed}; see {description}"
    return JSONResponse(refusal_body(RefusalError(status, message)), status, headers)
