"""The forms of all paths -> the OpenAPI document, and a page that shows it without a script or another server."""

import html
import inspect
from collections.abc import Mapping, Sequence
from typing import Any, get_type_hints

from pydantic import TypeAdapter

from onelogit import __version__
from onelogit.serving.forms.body import ScoringBody

_REFUSALS = {
    "400": "The body is wrong; the sentence says what.",
    "401": "The API key is missing or wrong.",
    "404": "There is no such model.",
    "413": "The body, the list, or with truncate: false a text is too long.",
    "429": "Too many requests wait; send it again after Retry-After seconds.",
    "500": "The model gave a logit that is not a number.",
    "503": "The server is not ready.",
    "504": "The request took too long.",
}
_INFORMATION = {
    "/v1/models": "The model and its names.",
    "/info": "The model and the limits, in TEI's form.",
    "/health": "200 while the server runs.",
    "/ready": "200 once the model is warmed up, 503 before.",
    "/metrics": "Counts for Prometheus.",
}
_OPEN = ("/health", "/ready")  # without a key


def openapi_document(forms: Mapping[str, Sequence[type[ScoringBody]]]) -> dict[str, Any]:
    """The OpenAPI 3.1 document.

    Args:
        forms: the forms that each path takes.
    """
    kinds = list(dict.fromkeys(kind for each in forms.values() for kind in each))
    answers = {kind: get_type_hints(kind.answer)["return"] for kind in kinds}
    inputs: list[Any] = [(kind.__name__, "validation", TypeAdapter(kind)) for kind in kinds]
    inputs += [(f"{kind.__name__}Answer", "serialization", TypeAdapter(answer)) for kind, answer in answers.items()]
    schemas, definitions = TypeAdapter.json_schemas(inputs, ref_template="#/components/schemas/{model}")
    body_of = {kind: schemas[kind.__name__, "validation"] for kind in kinds}
    answer_of = {kind: schemas[f"{kind.__name__}Answer", "serialization"] for kind in kinds}
    paths: dict[str, Any] = {}
    for path, each in forms.items():
        paths[path] = {
            "post": {
                "operationId": _operation_id("post", path),
                "summary": _first_sentence(each[-1]),
                "requestBody": {"required": True, **_json([body_of[kind] for kind in each])},
                "responses": {
                    "200": {"description": "The scores.", **_json([answer_of[kind] for kind in each])},
                    **{status: {"description": text} for status, text in _REFUSALS.items()},
                },
            }
        }
    for path, text in _INFORMATION.items():
        security: dict[str, Any] = {"security": []} if path in _OPEN else {}
        responses = {"200": {"description": text}}
        paths[path] = {
            "get": {"operationId": _operation_id("get", path), "summary": text, "responses": responses, **security}
        }
    return {
        "openapi": "3.1.0",
        "info": {"title": "onelogit", "version": __version__, "description": "A reranker over HTTP."},
        "paths": paths,
        "components": {
            "schemas": definitions["$defs"],
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"key": []}, {}],
    }


def description_page(document: Mapping[str, Any], address: str) -> str:
    """A page with each path, its fields and its answers.

    Args:
        document: of `openapi_document`.
        address: of the document.
    """
    link = f"<a href='{html.escape(address)}'>openapi.json</a>"
    parts = [f"<h1>onelogit {html.escape(__version__)}</h1><p>As data: {link}.</p>"]
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            parts.append(f"<h2>{method.upper()} {path}</h2><p>{html.escape(operation['summary'])}</p>")
            if "requestBody" in operation:
                parts += [_fields(name, document) for name in _names(operation["requestBody"])]
                answers = ", ".join(f"{code}: {each['description']}" for code, each in operation["responses"].items())
                parts.append(f"<p>{html.escape(answers)}</p>")
    style = "body{font:1em sans-serif;max-width:60em;margin:2em auto}td{padding:.2em 1em;vertical-align:top}"
    return f"<!doctype html><meta charset=utf-8><title>onelogit</title><style>{style}</style>{''.join(parts)}"


def _fields(name: str, document: Mapping[str, Any]) -> str:
    schema = document["components"]["schemas"][name]
    rows = [
        f"<tr><td><code>{html.escape(field)}</code>{' *' if field in schema.get('required', ()) else ''}"
        f"<td>{html.escape(about.get('description', ''))}"
        for field, about in schema["properties"].items()
    ]
    description = html.escape(schema.get("description", "").partition("\n")[0])
    return f"<p><b>{html.escape(name)}</b>: {description}</p><table>{''.join(rows)}</table>"


def _names(content: Mapping[str, Any]) -> list[str]:
    schema = content["content"]["application/json"]["schema"]
    return [each["$ref"].rpartition("/")[2] for each in schema.get("anyOf", [schema])]


def _json(schemas: Sequence[Any]) -> dict[str, Any]:
    schema = schemas[0] if len(schemas) == 1 else {"anyOf": [*schemas]}
    return {"content": {"application/json": {"schema": schema}}}


def _operation_id(method: str, path: str) -> str:
    return method + path.replace("/", "_")


def _first_sentence(kind: type[ScoringBody]) -> str:
    return (inspect.getdoc(kind) or "").partition("\n")[0]
