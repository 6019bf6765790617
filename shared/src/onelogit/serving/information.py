"""The state of a server -> what it says about itself: models, health, readiness, metrics, and its description."""

import functools
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from onelogit import __version__
from onelogit.serving.description import description_page, openapi_document
from onelogit.serving.forms.body import ScoringBody
from onelogit.serving.readiness import Readiness
from onelogit.serving.refusals import RefusalError, refusal_body
from onelogit.serving.scoring_endpoint import ServingState

Handler = Callable[[Request], Awaitable[Response]]


def information_routes(
    state: ServingState, readiness: Readiness, forms: Mapping[str, Sequence[type[ScoringBody]]]
) -> list[Route]:
    """The GET routes. `/health`, `/ready`, and the description need no key."""
    served, limits, created = state.served, state.limits, int(time.time())
    # Fields of TEI for what this server does not have; clients require them.
    unknown = dict.fromkeys(("max_batch_tokens", "max_batch_requests", "tokenization_workers", "sha", "docker_label"))
    document = openapi_document(forms)

    async def models(_: Request) -> Response:
        shared = {"object": "model", "created": created, "owned_by": "onelogit", "max_model_len": served.max_tokens}
        return JSONResponse({"object": "list", "data": [{"id": name, **shared} for name in served.names]})

    async def info(_: Request) -> Response:
        return JSONResponse(
            {
                "model_id": served.name,
                "model_sha": None,
                "model_dtype": served.dtype,
                "model_type": {"reranker": {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}},
                "max_concurrent_requests": limits.max_waiting,
                "max_input_length": served.max_tokens,
                "max_client_batch_size": limits.max_documents,
                "auto_truncate": True,
                "version": __version__,
                **unknown,
            }
        )

    async def health(_: Request) -> Response:
        return Response()

    async def ready(_: Request) -> Response:
        readiness.start()
        if (reason := readiness.reason) is None:
            return Response()
        return JSONResponse(refusal_body(RefusalError(503, reason)), 503, {"Retry-After": "1"})

    async def metrics(_: Request) -> Response:
        return Response(state.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    async def openapi(request: Request) -> Response:
        root = request.scope.get("root_path")  # where the application is mounted
        return JSONResponse({**document, "servers": [{"url": root}]} if root else document)

    async def docs(request: Request) -> Response:
        return HTMLResponse(description_page(document, f"{request.scope.get('root_path', '')}/openapi.json"))

    guarded = {"/v1/models": models, "/info": info, "/metrics": metrics}
    open_to_all = {"/health": health, "/ready": ready, "/openapi.json": openapi, "/docs": docs}
    routes = [Route(path, _with_key(handler, state)) for path, handler in guarded.items()]
    return routes + [Route(path, handler) for path, handler in open_to_all.items()]


def _with_key(handler: Handler, state: ServingState) -> Handler:
    @functools.wraps(handler)
    async def guarded(request: Request) -> Response:
        try:
            state.keys.check(request.headers)
        except RefusalError as error:
            return JSONResponse(refusal_body(error), error.status, error.headers)
        return await handler(request)

    return guarded
