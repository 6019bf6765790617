"""Rows of token ids -> the logits that a running vLLM server gives them."""

from collections.abc import Sequence

from onelogit.errors import ServerError
from onelogit.remote.client import Limits, Wire
from onelogit.remote.protocols import DIALECTS, Ask, read
from onelogit.remote.served import listed_models

_LIMITS = Limits(timeout_s=600.0)
_ROWS_A_REQUEST = 16


def server_logits(url: str, rows: Sequence[Sequence[int]]) -> list[float]:
    """The raw logit of each row, in order, from the server's `/classify`, with its activation off.

    Args:
        url: where the server listens, without a path: http://127.0.0.1:8000.
        rows: token ids; sent as they are, so that the server's prompt and truncation have no part in it.

    Raises:
        ServerError: the server is not there, or does not answer with one finite logit for each row.
    """
    wire = Wire(url, limits=_LIMITS)
    try:
        return wire.run(_ask, wire, rows).result()
    finally:
        wire.close()


async def _ask(wire: Wire, rows: Sequence[Sequence[int]]) -> list[float]:
    dialect = DIALECTS["vllm-tokens"]
    models = await listed_models(wire)
    if not models:
        raise ServerError(f"{wire.url}/v1/models names no model: it is no vLLM server")
    parts = [rows[start : start + _ROWS_A_REQUEST] for start in range(0, len(rows), _ROWS_A_REQUEST)]
    answers = await wire.ask_all(
        dialect.path,
        [dialect.build(Ask(rows=part, model=models[0])) for part in parts],
        lambda place, answer: read(dialect, answer, len(parts[place])),
        lambda _: None,
    )
    return [logit for answer in answers for logit in answer]
