"""Rows of token ids -> the logits that a running vLLM server gives them."""

import json
import math
from collections.abc import Sequence
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from onelogit.errors import InputError, ServerError

_TIMEOUT_S = 120.0
_ROWS_A_REQUEST = 16


def is_url(against: str) -> bool:
    """Whether it names a server, and not a folder."""
    return against.startswith(("http://", "https://"))


def server_logits(url: str, rows: Sequence[Sequence[int]]) -> list[float]:
    """The raw logit of each row, in order, from the server's `/classify`, with its activation off.

    Args:
        url: where the server listens, without a path: http://127.0.0.1:8000.
        rows: token ids; sent as they are, so that the server's prompt and truncation have no part in it.

    Raises:
        ServerError: the server is not there, or does not answer with one finite logit for each row.

    Source: recorded from vLLM 0.32.
    """
    base = url.rstrip("/")
    models = _ask(f"{base}/v1/models", None).get("data")
    if not isinstance(models, list) or not models or "id" not in models[0]:
        raise ServerError(f"{base}/v1/models names no model: it is no vLLM server")
    logits: list[float] = []
    for start in range(0, len(rows), _ROWS_A_REQUEST):
        asked = [list(row) for row in rows[start : start + _ROWS_A_REQUEST]]
        body = {"model": models[0]["id"], "input": asked, "use_activation": False}
        logits += _read(_ask(f"{base}/classify", body), len(asked), base)
    return logits


def _read(answer: dict[str, Any], count: int, base: str) -> list[float]:
    data = answer.get("data")
    by_index = {each.get("index"): each.get("probs") for each in data} if isinstance(data, list) else {}
    if set(by_index) != set(range(count)):
        raise ServerError(f"{base}/classify answered for rows {sorted(map(str, by_index))}, not for all {count}")
    for index, values in by_index.items():
        if not isinstance(values, list) or len(values) != 1:
            labels = len(values) if isinstance(values, list) else "no"
            raise ServerError(f"{base}/classify answered with {labels} labels, not with one logit")
        if not isinstance(values[0], int | float) or not math.isfinite(values[0]):
            raise ServerError(f"{base}/classify gave {values[0]!r} for row {index}: its head may be uninitialised")
    return [float(by_index[index][0]) for index in range(count)]


def _ask(url: str, body: dict[str, Any] | None) -> dict[str, Any]:
    data = None if body is None else json.dumps(body).encode()
    request = Request(url, data=data, headers={"Content-Type": "application/json"})  # noqa: S310  is_url checked it
    if not is_url(url):
        raise InputError(f"{url!r} is no http or https address")
    try:
        with urlopen(request, timeout=_TIMEOUT_S) as response:  # noqa: S310
            answer = json.load(response)
    except HTTPError as error:
        with error:
            said = error.read(500).decode(errors="replace")
        raise ServerError(f"{url} answered {error.code}: {said}") from error
    except (URLError, OSError, ValueError) as error:
        raise ServerError(f"{url} does not answer: {error}") from error
    if not isinstance(answer, dict):
        raise ServerError(f"{url} answered with a {type(answer).__name__}, not with an object")
    return answer
