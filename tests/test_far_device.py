"""A forest on a device that the processor cannot look into: PyTorch's "meta", which has shapes and no numbers.

It stands for a GPU where there is none. What would wait for a GPU's numbers fails on it; what mixes its tensors with
the processor's is found by watching every operation. It says nothing of numbers, kernels or speed.
"""

from collections import Counter
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoModel, PreTrainedModel, Qwen3Config

from onelogit import attention
from onelogit.attention import Reading
from onelogit.convert import Head, sequence_classifier
from onelogit.decoder import use_in
from onelogit.forest import Cursor, Known, next_batch
from onelogit.key_memory import KeyMemory
from onelogit.keys import Block
from onelogit.passes import read_forest, read_out, read_token, reading_of
from test_forward import FIELDS

FRAME = (1, 2, 3)
TRANSFERS = ("aten.to.", "aten._to_copy", "aten.copy_")
LAYERS = 3


class Watch(TorchDispatchMode):
    """Counts the operations on the far device, and lets none but transfers take tensors of both sides."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves((args, kwargs, output)) if isinstance(leaf, torch.Tensor)]
        sides = {tensor.device.type for tensor in tensors if tensor.dim()}
        name = str(func)
        assert len(sides) < 2 or name.startswith(TRANSFERS), f"{name} takes tensors of {sides}"
        self.seen[name] += "meta" in sides
        return output


@pytest.fixture
def classifier(monkeypatch: pytest.MonkeyPatch) -> PreTrainedModel:
    """On the far device, in bfloat16, attending by PyTorch's own call of variable length."""
    with torch.device("meta"):
        backbone = AutoModel.from_config(Qwen3Config(**FIELDS)).to(torch.bfloat16).eval()
        classifier = sequence_classifier(backbone, Head(torch.randn(1, 64), None), 0)
    use_in(classifier)
    monkeypatch.setattr(attention, "can_attend_at_once", lambda query: True)
    return classifier


def documents(count: int) -> list[tuple[int, ...]]:
    """Rows of a document-first family: frame, document, query."""
    return [(*FRAME, *[100 + number] * (5 + number % 7), 8, 9) for number in range(count)]


def read(classifier: PreTrainedModel, rows: list[tuple[int, ...]], kept: Block | None, **how: Any) -> Reading:
    """The reading of the second batch of two, each of half of the rows' tokens, so that keys are carried over."""
    first = next_batch(rows, Cursor(), sum(map(len, rows)) // 3, **how)
    reading = reading_of(first, classifier, 100, None, kept)
    read_forest(classifier, reading)
    second = next_batch(rows, first.after, 10_000, **how)
    return reading_of(second, classifier, 10_000, reading.carry, kept)


def keep(memory: KeyMemory, reading: Reading) -> None:
    """Some of the stems, so that they are not one piece."""
    count = len(reading.stems[0].keys)
    memory.write([(100, 98 + count)], reading.stems, [(0, 3), (5, count)])


@pytest.mark.parametrize("is_kept", [False, True], ids=["nothing kept", "documents kept"])
def test_a_pass_waits_for_nothing_and_mixes_no_sides(classifier: PreTrainedModel, is_kept: bool):
    rows = documents(20)
    memory = KeyMemory(read_token(classifier), 10**6)
    find = (lambda row: Known(4, [(row, row + 2), (50 + row, 52 + row)]) if row % 3 else None) if is_kept else None
    stem_lengths = [(3, len(row) - 2) for row in rows]
    reading = read(classifier, rows, memory.layers, find_known=find, stem_lengths=stem_lengths)

    with Watch() as watch:
        logits = read_out(classifier, read_forest(classifier, reading))
        keep(memory, reading)

    assert logits.shape == (len(reading.batch.ends),)
    assert logits.is_meta
    assert watch.seen["torch_attn._varlen_attn.default"] == LAYERS
    assert len(reading.batch.stems) > 5
    assert reading.batch.segments[0].ancestors


def test_no_step_of_a_layer_is_one_for_each_document(classifier: PreTrainedModel):
    """Kept documents included: a batch of five times as many launches as much."""
    memory = KeyMemory(read_token(classifier), 10**6)

    def steps(count: int) -> int:
        rows = documents(count)
        reading = read(
            classifier,
            rows,
            memory.layers,
            find_known=lambda row: Known(4, [(row, row + 2), (50 + row, 52 + row)]) if row % 2 else None,
            stem_lengths=[(3, len(row) - 2) for row in rows],
        )
        with Watch() as watch:
            read_forest(classifier, reading)
            keep(memory, reading)
        return watch.seen.total()

    assert steps(50) == steps(10) > LAYERS * 20
