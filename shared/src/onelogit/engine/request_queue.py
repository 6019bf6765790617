"""Requests that wait -> batches of requests that are computed together. Knows neither threads nor torch."""

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from onelogit.errors import OnelogitError

Item = TypeVar("Item")
OnProgress = Callable[[int], object]


@dataclass(eq=False)
class Request(Generic[Item]):
    """The items of one caller, their cost, and the logits computed so far, by the place of their item."""

    items: list[Item]
    cost: int
    on_progress: OnProgress | None
    future: Future[list[float]] | None
    logits: dict[int, float] = field(default_factory=dict)

    @property
    def is_settled(self) -> bool:
        """Whether the caller has its answer, or no longer waits."""
        return self.future is None or self.future.done()

    def missing(self) -> list[int]:
        """The places of the items without a logit."""
        return [place for place in range(len(self.items)) if place not in self.logits]

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
            self.settle([self.logits[place] for place in range(len(self.items))])

    def settle(self, answer: list[float] | BaseException) -> None:
        """Answer the caller, unless it has an answer or no longer waits."""
        # Drop the future: an error refers to frames that refer to this request, a cycle that would keep GPU memory.
        future, self.future = self.future, None
        if future is None or not future.set_running_or_notify_cancel():
            return
        if isinstance(answer, BaseException):
            future.set_exception(answer)
        else:
            future.set_result(answer)


class RequestBatch(Generic[Item]):
    """Requests that are computed together.

    Attributes:
        items: the items of all requests that have no logit yet.
        is_launched: whether all items that will be launched are launched.
        has_failed: whether to compute missing logits again, each request alone.
    """

    def __init__(self, requests: list[Request[Item]]) -> None:
        self.is_launched = False
        self.has_failed = False
        self._requests = requests
        self._places = dict(enumerate((request, place) for request in requests for place in request.missing()))
        self.items = [request.items[place] for request, place in self._places.values()]

    def unsettled(self) -> list[Request[Item]]:
        """The requests whose callers still wait."""
        return [request for request in self._requests if not request.is_settled]

    def deliver(self, logits: Sequence[tuple[int, float]]) -> None:
        """Give each request its share of the logits; each comes with the index of its item.

        Raises:
            OnelogitError: an item has a logit already, or does not exist.
        """
        shares: dict[Request[Item], list[tuple[int, float]]] = {}
        for index, logit in logits:
            if index not in self._places:
                raise OnelogitError(f"a second or stray logit came for item {index}; please report this")
            request, place = self._places.pop(index)
            shares.setdefault(request, []).append((place, logit))
        for request, share in shares.items():
            request.add(share)

    def fail(self, error: BaseException) -> None:
        """Settle the request with the error if it is the only one; else another request may have caused it."""
        self.has_failed = True
        if len(self._requests) == 1:
            self._requests[0].settle(error)


@dataclass(eq=False)
class RequestQueue(Generic[Item]):
    """Requests that wait: first those to be retried, each alone, then all others in the order of their arrival."""

    retries: deque[Request[Item]] = field(default_factory=deque)
    requests: deque[Request[Item]] = field(default_factory=deque)

    def take(self, max_cost: int) -> RequestBatch[Item] | None:
        """The oldest requests up to a total cost, at least one; None if no caller waits."""
        while self.retries:
            request = self.retries.popleft()
            if not request.is_settled:
                return RequestBatch([request])
        taken: list[Request[Item]] = []
        while self.requests and (not taken or self.requests[0].cost <= max_cost):
            request = self.requests.popleft()
            if not request.is_settled:
                taken.append(request)
                max_cost -= request.cost
        return RequestBatch(taken) if taken else None
