"""A reranker whose real model computes nothing until the test lets it, and counts the rows that it computes."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from onelogit import Reranker
from onelogit.prompts.token_rows import TokenRow

PATIENCE_S = 20


class HeldModel:
    """While it is held, the model waits before each group of rows that the scheduler hands it."""

    def __init__(self, compute: Any) -> None:
        self.rows: list[TokenRow] = []
        self.arrived = threading.Semaphore(0)
        self._compute = compute
        self._free = threading.Event()

    def let_go(self) -> None:
        self._free.set()

    def wait(self) -> None:
        """Wait until the model has been handed some rows."""
        assert self.arrived.acquire(timeout=PATIENCE_S)

    def __call__(self, rows: Sequence[TokenRow]) -> Iterator[Any]:
        self.arrived.release()
        assert self._free.wait(PATIENCE_S)
        self.rows += rows
        yield from self._compute(rows)


@contextmanager
def held(reranker: Reranker) -> Iterator[HeldModel]:
    """Hold a reranker's model until the block ends."""
    scheduler = reranker.scorer._scheduler
    compute = scheduler._compute
    model = HeldModel(compute)
    scheduler._compute = model
    try:
        yield model
    finally:
        model.let_go()
        scheduler._compute = compute
