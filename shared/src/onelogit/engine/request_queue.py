"""What callers wait for -> groups that are computed together, and the way back. Knows no thread, and no model."""

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

from onelogit.errors import OnelogitError
from onelogit.ranking import Computed, Launched

Item = TypeVar("Item")
OnProgress = Callable[[int], object]


@dataclass(eq=False)
class Request(Generic[Item]):
    """What one caller asks for, and as much of it as is done: logits by their places."""

    items: list[Item]
    weight: int
    on_progress: OnProgress | None
    future: Future[list[float]] | None
    done: dict[int, float] = field(default_factory=dict)

    @property
    def is_settled(self) -> bool:
        """Whether the caller has its answer, or wants none any more."""
        return self.future is None or self.future.done()

    def missing(self) -> list[int]:
        return [place for place in range(len(self.items)) if place not in self.done]

    def add(self, logits: Sequence[tuple[int, float]]) -> None:
        """Keep new logits, tell the caller, and answer when all are there."""
        if self.is_settled:
            return
        self.done.update(logits)
        try:
            if self.on_progress is not None:
                self.on_progress(len(logits))
        except BaseException as error:
            self.settle(error)
        if len(self.done) == len(self.items):
            self.settle([self.done[place] for place in range(len(self.items))])

    def settle(self, answer: list[float] | BaseException) -> None:
        """Give the caller its answer, if it has none and still waits."""
        # An error holds the frames it came through, and they this job: a ring, with the memory of a failed batch in it.
        future, self.future = self.future, None
        if future is None or not future.set_running_or_notify_cancel():
            return
        if isinstance(answer, BaseException):
            future.set_exception(answer)
        else:
            future.set_result(answer)


class RequestBatch(Generic[Item]):
    """Jobs that are computed together.

    Attributes:
        items: what is missing of all of them.
        is_launched: whether no batch of it is going to be launched any more.
        has_failed: whether what is missing is to be computed again, each job alone.
    """

    def __init__(self, jobs: list[Request[Item]]) -> None:
        self.is_launched = False
        self.has_failed = False
        self._jobs = jobs
        self._places = dict(enumerate((job, place) for job in jobs for place in job.missing()))
        self.items = [job.items[place] for job, place in self._places.values()]

    def unsettled(self) -> list[Request[Item]]:
        """The jobs whose callers still wait."""
        return [job for job in self._jobs if not job.is_settled]

    def hand_out(self, computed: Computed) -> None:
        """Give each job what one batch has for it.

        Raises:
            OnelogitError: a logit came twice, or for no item.
        """
        shares: dict[Request[Item], list[tuple[int, float]]] = {}
        for index, logit in zip(computed.indices, computed.logits, strict=True):
            if index not in self._places:
                raise OnelogitError(f"a logit came for item {index}, which is done or not there; please report this")
            job, place = self._places.pop(index)
            shares.setdefault(job, []).append((place, logit))
        for job, share in shares.items():
            job.add(share)

    def fail(self, error: BaseException) -> None:
        """Settle a job that is alone; who is not may have failed for another, and is to be computed again."""
        self.has_failed = True
        if len(self._jobs) == 1:
            self._jobs[0].settle(error)


class Coming(NamedTuple, Generic[Item]):
    """A batch whose logits nobody has read yet, and whose it is."""

    group: RequestBatch[Item]
    batch: Launched


@dataclass(eq=False)
class RequestQueue(Generic[Item]):
    """The jobs that wait: those to be computed again, each alone, and all others in the order of their arrival."""

    again: deque[Request[Item]] = field(default_factory=deque)
    jobs: deque[Request[Item]] = field(default_factory=deque)

    def take(self, most_weight: int) -> RequestBatch[Item] | None:
        """The oldest jobs up to a weight, at least one; None where nobody waits."""
        while self.again:
            job = self.again.popleft()
            if not job.is_settled:
                return RequestBatch([job])
        jobs: list[Request[Item]] = []
        while self.jobs and (not jobs or self.jobs[0].weight <= most_weight):
            job = self.jobs.popleft()
            if not job.is_settled:
                jobs.append(job)
                most_weight -= job.weight
        return RequestBatch(jobs) if jobs else None
