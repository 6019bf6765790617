"""The parts that targets on CPUs and GPUs share: names, how model cards read logits, and the reference logits."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from onelogit import ReadOut

ONELOGIT = "onelogit"
COMPILED = "onelogit, compiled"
INT8 = "onelogit, int8"
CACHED = "onelogit, documents kept"
CHUNKS = "onelogit, in chunks"
SENTENCE_TRANSFORMERS = "Sentence Transformers"
CONVERTED = "Sentence Transformers, converted"
HEAD_ALONE = "Sentence Transformers, head alone"
UNPADDED = "Sentence Transformers, unpadded"
CARD = "model card's loop"
VLLM = "vLLM"
LLAMA = "llama.cpp, BF16"
LLAMA_Q8 = "llama.cpp, Q8_0"
FLAG = "FlagEmbedding"
OURS = (ONELOGIT, COMPILED, INT8)
CHUNK_OPTIONS = {"long_documents": "chunk_max", "max_tokens": 512}

Score = Callable[[str, Sequence[str]], list[float]]


class Loaded(NamedTuple):
    """A target that is ready.

    Attributes:
        score: query, documents -> logits.
        model: whose tokens are counted; None if it is in another process, or not PyTorch's.
        allowed: what it may use, and its settings, for the results.
    """

    score: Score
    model: nn.Module | None
    allowed: dict[str, Any]


@torch.inference_mode()
def reference_logits(model: Any, rows: Sequence[Sequence[int]], read_out: ReadOut) -> list[float]:
    """Logits of a causal model with its whole vocabulary, one row at a time, without padding."""
    logits = []
    for row in rows:
        last = model(input_ids=torch.tensor([row], device=model.device), use_cache=False).logits[0, -1]
        logits.append(last[read_out.true] if read_out.false is None else last[read_out.true] - last[read_out.false])
    return torch.stack(logits).tolist()


def _qwen3_card(read_out: ReadOut, logits: torch.Tensor) -> list[float]:
    answers = torch.stack([logits[:, read_out.false], logits[:, read_out.true]], dim=1)
    both = torch.nn.functional.log_softmax(answers, dim=1)
    return (both[:, 1] - both[:, 0]).float().tolist()  # the card takes exp of the first, which has the same order


def _ctxl_card(read_out: ReadOut, logits: torch.Tensor) -> list[float]:
    return logits[:, read_out.true].to(torch.bfloat16).float().tolist()


# By recipe family: how the model card reads one logit per row from logits of shape (rows, vocabulary).
CARDS = {"qwen3-reranker": _qwen3_card, "ctxl-rerank-v2": _ctxl_card}
