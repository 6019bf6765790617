"""A reranker -> whether it is warmed up."""

import asyncio
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onelogit.local.reranker import Reranker

logger = logging.getLogger(__name__)


class Readiness:
    """Warms the reranker up once, in the background: at the server's start, or when it is first asked for."""

    def __init__(self, reranker: "Reranker") -> None:
        self._reranker = reranker
        self._warming: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start the warm-up, unless it is running or done. A warm-up that was cancelled with its server starts again.

        `/ready` calls this, too, because a mounted application gets no event when the server starts.
        """
        if self._warming is None or self._warming.cancelled():
            self._warming = asyncio.create_task(self._warm_up())

    @property
    def reason(self) -> str | None:
        """Why the server is not ready; None if it is."""
        if self._reranker.is_closed:
            return "the reranker is closed"
        if self._warming is None or not self._warming.done():
            return "the model is being warmed up"
        if self._warming.cancelled():
            return "the warm-up was cancelled"
        if (error := self._warming.exception()) is None:
            return None
        return f"the warm-up failed with {type(error).__name__}; the server's log says why"

    async def _warm_up(self) -> None:
        try:
            await self._reranker.awarm_up()
        except Exception as error:
            # There is no text of a request in it.
            logger.error("the warm-up failed, so the server is not ready: %s: %s", type(error).__name__, error)
            raise
