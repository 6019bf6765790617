"""The code for GPUs, on stand-in devices: the logits of the CPU, computed without waiting.

This does not test kernels, streams, memory or speed.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from torch.utils._pytree import tree_map_only
from transformers import Gemma3TextConfig, LlamaConfig, MistralConfig, PretrainedConfig, PreTrainedModel, Qwen3Config

from onelogit.engine.attention import flash_varlen, sdpa
from onelogit.engine.attention.flash_varlen import FlashVarlenAttention
from onelogit.engine.model_runner import ModelRunner
from onelogit.prompts.token_rows import TokenRow
from support.classifiers import classifier_of, random_rows
from support.stand_in_devices import VARLEN, OperationRecorder, StandInTensor, move_weights, stand_in_devices

LAYERS = 3
CALLS = 3


def documents(count: int) -> list[TokenRow]:
    """Rows of a family whose prompt begins with the document: constant start, document, query."""
    lengths = [5 + number % 7 for number in range(count)]
    rows = [(1, 2, 3, *[100 + number] * length, 8, 9) for number, length in enumerate(lengths)]
    return [TokenRow(row, cacheable_lengths=(3, 3 + length)) for row, length in zip(rows, lengths, strict=True)]


def half(config_class: type[PretrainedConfig] = Qwen3Config, **fields: Any) -> PreTrainedModel:
    classifier = classifier_of(config_class, **fields)
    classifier.base_model.to(torch.bfloat16)
    return classifier


@contextmanager
def sent(monkeypatch: pytest.MonkeyPatch, classifier: PreTrainedModel, devices: int = 1) -> Iterator[OperationRecorder]:
    """The classifier on stand-in devices; of two, the second has the later layers, as accelerate spreads a model."""
    with stand_in_devices(monkeypatch) as recorder:
        move_weights(classifier, "cuda:0")
        if devices > 1:
            for module in (*classifier.model.layers[LAYERS // 2 :], classifier.model.norm):
                move_weights(module, "cuda:1")
                module.register_forward_pre_hook(lambda _, *given: on("cuda:1", given), with_kwargs=True)
            classifier.model.register_forward_hook(lambda _, __, output: on("cuda:0", output))
        yield recorder


def on(device: str, given: Any) -> Any:
    return tree_map_only(torch.Tensor, lambda each: each.to(torch.device(device)), given)


@pytest.mark.parametrize("devices", [1, 2], ids=["one GPU", "two GPUs"])
@pytest.mark.parametrize(
    ("device_bytes", "host_bytes"),
    [(0, 0), (10**6, 0), (60_000, 10**5)],
    ids=["nothing cached", "documents cached", "documents cached, some on the host"],
)
def test_a_call_gives_the_logits_of_the_cpu_without_waiting(
    monkeypatch: pytest.MonkeyPatch, device_bytes: int, host_bytes: int, devices: int
):
    rows = documents(20)
    expected = ModelRunner(half(), 60).logits(rows)
    classifier = half()

    with sent(monkeypatch, classifier, devices) as recorder:
        runner = ModelRunner(classifier, 60, device_bytes, host_bytes)
        recorder.waits.clear()
        recorder.seen.clear()
        calls = [runner.logits(rows) for _ in range(CALLS)]

    assert runner.shares_prefixes
    assert recorder.waits == []
    assert recorder.seen[VARLEN] >= CALLS * LAYERS * (1 if device_bytes else 4)  # in several batches, with carried keys
    for logits in calls:
        assert logits == pytest.approx(expected, abs=0.05)
    assert bool(runner.prefix_cache and runner.prefix_cache.held_bytes) == bool(device_bytes)


@pytest.mark.parametrize("config_class", [LlamaConfig, MistralConfig, Gemma3TextConfig])
def test_other_families_give_the_logits_of_the_cpu_without_waiting(
    monkeypatch: pytest.MonkeyPatch, config_class: type[PretrainedConfig]
):
    rows = random_rows(20)
    expected = ModelRunner(half(config_class), 100).logits(rows)
    classifier = half(config_class)

    with sent(monkeypatch, classifier) as recorder:
        runner = ModelRunner(classifier, 100)
        recorder.waits.clear()
        logits = runner.logits(rows)

    assert recorder.waits == []
    assert recorder.seen[VARLEN]
    assert logits == pytest.approx(expected, abs=0.2)


def test_the_number_of_operations_does_not_depend_on_the_number_of_documents(monkeypatch: pytest.MonkeyPatch):
    """Also with cached documents: a batch of five times as many launches as many operations."""

    def steps(count: int) -> int:
        classifier = half()
        with sent(monkeypatch, classifier) as recorder:
            runner = ModelRunner(classifier, 10_000, 10**7)
            runner.logits(documents(count)[::2])
            recorder.seen.clear()
            runner.logits(documents(count))
        return recorder.seen.total()

    assert steps(50) == steps(10) > LAYERS * 20


@pytest.mark.parametrize("fault", ["it fails", "other numbers"])
def test_wrong_attention_on_a_gpu_is_logged_and_padded_rows_are_computed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, fault: str
):
    def attend(query: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        if fault == "it fails":
            raise RuntimeError("CUDA error: no kernel image is available for execution on the device")
        return query

    rows = random_rows(20)
    expected = ModelRunner(half(), 100).logits(rows)
    classifier = half()
    monkeypatch.setattr(flash_varlen, "_varlen_attention", lambda: attend)

    with sent(monkeypatch, classifier):
        runner = ModelRunner(classifier, 100)
        logits = runner.logits(rows)

    assert not runner.shares_prefixes
    assert "Qwen3ForSequenceClassification computes padded rows on cuda:0, which is slower" in caplog.text
    assert logits == pytest.approx(expected, abs=0.1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_sdpa_gets_as_many_key_heads_as_query_heads_on_cuda(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype):
    """With fewer key heads than query heads, CUDA would run many small kernels."""
    options_given = []

    def noted(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **options: Any) -> torch.Tensor:
        options_given.append((options["enable_gqa"], key.shape[1] == value.shape[1] == query.shape[1]))
        return scaled_dot_product_attention(query, key, value, **options)

    rows = random_rows(20)
    expected = ModelRunner(classifier_of(Qwen3Config), 100).logits(rows)
    classifier = classifier_of(Qwen3Config)
    classifier.base_model.to(dtype)
    monkeypatch.setattr(flash_varlen, "_varlen_attention", lambda: None)  # as before PyTorch 2.11
    monkeypatch.setattr(sdpa, "scaled_dot_product_attention", noted)
    with sent(monkeypatch, classifier) as recorder:
        logits = ModelRunner(classifier, 100).logits(rows)

    assert recorder.seen[VARLEN] == 0
    assert set(options_given) == {(False, True)}
    assert logits == pytest.approx(expected, abs=1e-5 if dtype == torch.float32 else 0.1)


@pytest.mark.parametrize(
    ("dtype", "width", "capability", "can"),
    [
        (torch.bfloat16, 128, (9, 0), True),
        (torch.float16, 64, (8, 0), True),
        (torch.bfloat16, 256, (12, 0), True),
        (torch.bfloat16, 264, (9, 0), False),
        (torch.bfloat16, 20, (9, 0), False),
        (torch.float32, 128, (9, 0), False),
        (torch.float16, 128, (7, 5), False),
    ],
)
def test_flash_attention_supports_only_some_dtypes_widths_and_devices(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, width: int, capability: tuple[int, int], can: bool
):
    query = torch.zeros(4, 3, width, dtype=dtype)

    with stand_in_devices(monkeypatch, capability):
        assert FlashVarlenAttention.supports(StandInTensor(query, torch.device("cuda:1"))) == can

    assert not FlashVarlenAttention.supports(query)
