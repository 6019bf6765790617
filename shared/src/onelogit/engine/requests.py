"""Requests of many callers -> one batch of items; its logits -> their futures. Knows neither text nor torch."""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from onelogit.errors import LogitError, OnelogitError

Item = TypeVar("Item")
OnProgress = Callable[[int], object]


@dataclass(eq=False)
class Request(Generic[Item]):
    """The items of one caller, their cost, and the logits computed so far, by the index of their item."""

    items: list[Item]
    cost: int
    on_progress: OnProgress | None
    future: Future[list[float]] | None
    logits: dict[int, float] = field(default_factory=dict)

    @property
    def is_settled(self) -> bool:
        """Whether the caller has its result, or no longer waits."""
        return self.future is None or self.future.done()

    def missing(self) -> list[int]:
        """The indices of the items without a logit."""
        return [index for index in range(len(self.items)) if index not in self.logits]

    def add(self, logits: Sequence[tuple[int, float]]) -> None:
        """Store new logits, report progress, and settle the request once it is complete."""
        if self.is_settled:
            return
        self.logits.update(logits)
        try:
            if self.on_progress is not None:
                self.on_progress(len(logits))
        except BaseException as error:
            self.settle(error)
        if len(self.logits) == len(self.items):
            self.settle([self.logits[index] for index in range(len(self.items))])

    def settle(self, result: list[float] | BaseException) -> None:
        """Give the caller its logits or an error, unless it has a result already or no longer waits."""
        # Drop the future: an error refers to frames that refer to this request, a cycle that would keep GPU memory.
        future, self.future = self.future, None
        if future is None or not future.set_running_or_notify_cancel():
            return
        if isinstance(result, BaseException):
            future.set_exception(result)
        else:
            future.set_result(result)


class RequestBatch(Generic[Item]):
    """Requests that are computed together.

    Attributes:
        items: the requests' items without a logit.
        is_launched: whether no more items will be launched.
        has_failed: whether to compute missing logits again, each request on its own.
    """

    def __init__(self, requests: list[Request[Item]]) -> None:
        self.is_launched = self.has_failed = False
        self._requests = requests
        self._owners = dict(enumerate((request, index) for request in requests for index in request.missing()))
        self.items = [request.items[index] for request, index in self._owners.values()]

    def unsettled(self) -> list[Request[Item]]:
        return [request for request in self._requests if not request.is_settled]

    def deliver(self, logits: Sequence[tuple[int, float]]) -> None:
        """Give each request its logits; each logit comes with the index of its item in the batch.

        Raises:
            LogitError: a logit is not finite, and several requests were computed: such an item may spoil others.
            OnelogitError: an item has a logit already, or does not exist.
        """
        if len(self._requests) > 1 and not all(math.isfinite(logit) for _, logit in logits):
            raise LogitError("the logit of an item is not finite, and may have spoilt those of other requests")
        shares: dict[Request[Item], list[tuple[int, float]]] = {}
        for index, logit in logits:
            if index not in self._owners:
                raise OnelogitError(f"item {index} got a second logit, or does not exist; please report this")
            request, own_index = self._owners.pop(index)
            shares.setdefault(request, []).append((own_index, logit))
        for request, share in shares.items():
            request.add(share)

    def fail(self, error: BaseException) -> None:
        """Settle the request with the error if it is the only one; otherwise, any request may have caused the error."""
        self.has_failed = True
        if len(self._requests) == 1:
            self._requests[0].settle(error)
