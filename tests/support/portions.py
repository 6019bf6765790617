"""A reranker that computes its calls in portions, and a record of what it tokenises, submits and computes."""

import threading
from collections.abc import Callable

from onelogit import Reranker
from onelogit.engine.scheduler import Request
from onelogit.prompts.token_rows import TokenRow

PATIENCE_S = 20
QUERY = "What is the capital of China?"
DOCUMENTS = [f"{number} is a number, and {number * number} its square. " * (1 + number % 3) for number in range(40)]
FAMILIES = ["Qwen3-Reranker-tiny", "ctxl-rerank-v2-1b"]  # one writes the query first, the other the document


def in_small_portions(reranker: Reranker) -> Reranker:
    reranker._scorer._portion_tokens = 100
    return reranker


class Watch:
    """What a reranker tokenises, submits and computes; each can be delayed."""

    def __init__(self, reranker: Reranker) -> None:
        scorer = reranker._scorer
        self.rows, self.submit = scorer._encoder.rows, scorer._scheduler.submit
        scorer._encoder.rows, scorer._scheduler.submit = self.read, self.record_submit
        self.tokenised = self.passes = 0
        self.submitted: list[list[TokenRow]] = []
        self.before_tokenising: Callable[[int], object] = lambda number: None
        self.before_computing: Callable[[int], object] = lambda number: None
        embeddings = reranker.classifier.get_submodule("model.embed_tokens")
        embeddings.register_forward_pre_hook(lambda *_: self.compute())

    def read(self, *args: object) -> object:
        self.before_tokenising(self.tokenised)
        self.tokenised += 1
        return self.rows(*args)

    def record_submit(self, request: Request[TokenRow]) -> None:
        self.submitted.append([*request.items])
        self.submit(request)

    def compute(self) -> None:
        self.passes += 1
        self.before_computing(self.passes - 1)


def wait(event: threading.Event) -> None:
    assert event.wait(PATIENCE_S)
