"""A document whose logit is NaN spoils neither later calls, whose prefixes are computed anew, nor calls beside it."""

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from queue import SimpleQueue

import pytest
import torch
from transformers import PreTrainedModel, Qwen3Config

from onelogit.engine.device_transfer import PendingLogits
from onelogit.engine.model_runner import ModelRunner
from onelogit.engine.scheduler import Request, Scheduler
from onelogit.prompts.token_rows import TokenRow
from support.classifiers import classifier_of, recurrent_classifier

PREFIX, SPOILT = tuple(range(10, 40)), 399
GOOD = [TokenRow((*PREFIX, 50 + document, 60, 61), (), (30,)) for document in range(5)]
OTHER = [TokenRow((70, 71))]
BAD = TokenRow((*PREFIX, 52, SPOILT, 61), (), (30,))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    "new", [lambda: classifier_of(Qwen3Config), recurrent_classifier], ids=["decoder", "recurrent"]
)
@pytest.mark.parametrize("batch_tokens", [16, 1000])
@pytest.mark.parametrize("host_bytes", [0, 10**6])
def test_a_call_after_one_with_a_nan_gives_its_own_logits(
    new: Callable[[], PreTrainedModel], dtype: torch.dtype, batch_tokens: int, host_bytes: int
):
    classifier = new()
    classifier.base_model.to(dtype)
    expected = ModelRunner(classifier, batch_tokens).logits(GOOD)
    classifier.get_input_embeddings().weight.data[SPOILT] = float("nan")
    runner = ModelRunner(classifier, batch_tokens, 10**6, host_bytes)

    for mates in ([], GOOD[:2]):
        assert runner.logits([BAD, *mates])[0] != runner.logits([BAD])[0]  # NaN
        assert runner.logits(GOOD) == pytest.approx(expected, abs=1e-4 if dtype == torch.float32 else 0.1)
    assert runner.prefix_cache.held_bytes > 0


def test_callers_beside_a_document_with_a_nan_get_their_logits():
    classifier = recurrent_classifier()
    classifier.get_input_embeddings().weight.data[SPOILT] = float("nan")
    runner = ModelRunner(classifier, 16)  # tokens in a batch, so that the callers' prefix is in more than one
    expected = [runner.logits([row])[0] for row in GOOD]
    all_wait = threading.Event()

    def compute(rows: Sequence[TokenRow]) -> Iterator[PendingLogits]:
        assert all_wait.wait(60)
        return runner.compute(rows)

    scheduler = Scheduler(compute, cost_of=lambda row: len(row.ids), max_batch_cost=10_000)
    results: list[SimpleQueue[list[float]]] = [SimpleQueue() for _ in range(4)]
    for rows, result in zip((OTHER, GOOD[:3], [BAD], GOOD[3:]), results, strict=True):
        scheduler.submit(Request(rows, result.put))
    all_wait.set()
    _, first, spoilt, last = [result.get(timeout=60) for result in results]
    scheduler.close()

    assert [*first, *last] == pytest.approx(expected, abs=1e-4)
    assert math.isnan(*spoilt)
