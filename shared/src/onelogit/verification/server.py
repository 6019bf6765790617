"""Rows of token ids -> the logits that a running vLLM server gives them."""

from collections.abc import Sequence

from onelogit.errors import ServerError
from onelogit.remote.client import Client, ClientLimits
from onelogit.remote.protocols import PROTOCOLS, ScoreRequest, read

_LIMITS = ClientLimits(timeout_s=600.0)
_ROWS_A_REQUEST = 16


def server_logits(url: str, rows: Sequence[Sequence[int]]) -> list[float]:
    """The raw logit of each row, in order, from the server's `/classify`, with its activation off.

    Args:
        url: where the server listens, without a path: http://127.0.0.1:8000.
        rows: token ids; sent as they are, so that the server's prompt and truncation have no part in it.

    Raises:
        ServerError: the server is not there, or does not answer with one finite logit for each row.
    """
    client = Client(url, limits=_LIMITS)
    try:
        return client.run(_ask, client, rows).result()
    finally:
        client.close()


async def _ask(client: Client, rows: Sequence[Sequence[int]]) -> list[float]:
    protocol_spec = PROTOCOLS["vllm-tokens"]
    models = await client.list_models()
    if not models:
        raise ServerError(f"{client.url}/v1/models names no model: it is no vLLM server")
    parts = [rows[start : start + _ROWS_A_REQUEST] for start in range(0, len(rows), _ROWS_A_REQUEST)]
    answers = await client.ask_all(
        protocol_spec.path,
        [protocol_spec.build(ScoreRequest(rows=part, model=models[0])) for part in parts],
        lambda place, answer: read(protocol_spec, answer, len(parts[place])),
        lambda _: None,
    )
    return [logit for answer in answers for logit in answer]
