"""What a server did -> the text that Prometheus reads. Contains no text of a request."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from onelogit.serving.limits import WaitingRoom
from onelogit.serving.work import ScoredWork

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class ServerMetrics:
    """The counts of one server, in a registry of its own."""

    def __init__(self, room: WaitingRoom) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "onelogit_requests", "Requests for scores.", ["path", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "onelogit_request_seconds",
            "Seconds from a request's arrival to its answer.",
            ["path"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._documents = Counter("onelogit_documents", "Documents scored.", registry=self._registry)
        self._tokens = Counter("onelogit_prompt_tokens", "Tokens of their prompts.", registry=self._registry)
        self._truncated = Counter(
            "onelogit_truncated_documents", "Documents that were cut to fit the model.", registry=self._registry
        )
        waiting = Gauge("onelogit_waiting_requests", "Requests that wait or are computed.", registry=self._registry)
        waiting.set_function(lambda: room.count)
        ProcessCollector(registry=self._registry)

    def count_request(self, path: str, status: int, seconds: float) -> None:
        """Count an answer; 499 for a client that went away."""
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def count_work(self, scored: ScoredWork) -> None:
        """Count what was scored."""
        self._documents.inc(len(scored.logits))
        self._tokens.inc(scored.prompt_tokens)
        self._truncated.inc(scored.truncated_count)

    def text(self) -> bytes:
        """All counts, in Prometheus' text format."""
        return generate_latest(self._registry)
