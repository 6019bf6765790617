"""A server's own list of models -> the name by which it is asked."""

from collections.abc import Sequence

from onelogit.errors import InputError, ServerError
from onelogit.remote.client import Client
from onelogit.remote.http_errors import RetryableError


async def listed_models(client: Client) -> list[str]:
    """The models that a server lists; none where it has no such list."""
    try:
        return [str(each["id"]) for each in (await client.get("/v1/models"))["data"]]
    except RetryableError:
        raise
    except (ServerError, KeyError, TypeError):
        return []


def served_name(listed: Sequence[str], model: str | None, template: str, client: Client) -> str:
    """What the server calls the model; "" for nothing.

    Args:
        listed: what it lists.
        model: as the caller calls it.
        template: "client", or "server" where the model is no more than a name.
        client: to the server, which is named.

    Raises:
        InputError: the server serves several models, and it is not said which.
    """
    if model is not None and (model in listed or (template == "server" and len(listed) != 1)):
        return model
    if len(listed) > 1:
        raise InputError(f"{client.url} serves {client.shown(', '.join(listed[:20]))}: name one as served_name")
    return listed[0] if listed else ""
