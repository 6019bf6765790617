"""Adapters that PEFT itself writes, with random weights, and the logits of PEFT's own unmerged model."""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from onelogit import Reranker

PAIRS = [("What is the capital of China?", text) for text in ("The capital of China is Beijing.", "서울", "")]
QUERY, DOCUMENTS = PAIRS[0][0], [document for _, document in PAIRS]


def save_adapter(
    folder: Path,
    base: Path,
    settings: Any,
    *,
    kind: Any = AutoModelForCausalLM,
    prepare: Callable[[Any], object] | None = None,
    seed: int = 3,
    **load_options: Any,
) -> Any:
    """Write an adapter of a base model, whose weights are all random, and return PEFT's model.

    Args:
        folder: to write to.
        base: folder of the base model.
        settings: of PEFT, such as `LoraConfig`.
        kind: class of transformers for the base model.
        prepare: called with the base model before the adapter is added.
        seed: of the weights.
        **load_options: of the base model.
    """
    from peft import get_peft_model

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = kind.from_pretrained(base, **load_options)
        if prepare is not None:
            prepare(model)
        adapted = get_peft_model(model, settings)
        generator = torch.Generator().manual_seed(seed)
        for weight in adapted.parameters():
            if weight.requires_grad:
                weight.data += torch.randn(weight.shape, generator=generator) * 0.1
        adapted.save_pretrained(folder)
    return adapted.eval()


@torch.inference_mode()
def unmerged_logits(adapted: Any, reranker: Reranker, answers: Sequence[int] | None) -> list[float]:
    """The logits of PEFT's model for `PAIRS`: of two answer tokens, of one, or of the head's only label for None."""
    logits = []
    for query, document in PAIRS:
        ids = torch.tensor([reranker.prompt(query, document).ids])
        row = adapted(input_ids=ids).logits[0]
        terms = row if answers is None else row[-1, list(answers)]
        logits.append(float(terms[0] - terms[1:].sum()))
    return logits


def load_peft(folder: Path, base: Path, kind: Any = AutoModelForSequenceClassification, **options: Any) -> Any:
    """PEFT's own unmerged model of a folder."""
    from peft import PeftModel

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return PeftModel.from_pretrained(kind.from_pretrained(base, **options), folder).eval()
