"""A document whose logit is NaN spoils no later call: the prefixes computed with it are not kept."""

from collections.abc import Callable

import pytest
import torch
from transformers import PreTrainedModel, Qwen3Config

from onelogit.engine.model_runner import ModelRunner
from onelogit.prompts.token_rows import TokenRow
from support.classifiers import classifier_of, recurrent_classifier

PREFIX, SPOILT = tuple(range(10, 40)), 399
GOOD = [TokenRow((*PREFIX, 50 + document, 60, 61), (), (30,)) for document in range(5)]
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
