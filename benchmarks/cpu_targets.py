"""A checkpoint's folder -> targets on a CPU: onelogit, and its peers as their documentation shows them."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stderr
from functools import partial
from importlib import import_module
from io import StringIO
from typing import Any, NamedTuple

import torch
from llama_cpp_target import load_llama_cpp
from targets import (
    CACHED,
    CARD,
    CARDS,
    CHUNK_OPTIONS,
    CHUNKS,
    COMPILED,
    CONVERTED,
    FLAG,
    INT8,
    LLAMA,
    LLAMA_Q8,
    ONELOGIT,
    SENTENCE_TRANSFORMERS,
    Loaded,
)
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer
from vllm_target import load_vllm
from workload import CallWork, counted_tokens, messages_of

from checkpoints import RandomCheckpoint
from onelogit import LoadOptions, Reranker
from onelogit.benchmarking.machine import MemoryUse, reset_peak_memory
from onelogit.benchmarking.targets import Target

DOCUMENT_CACHE_BYTES = 4_000_000_000
ST_BATCH = 32  # the default
CARD_BATCH = 8  # the card scores all prompts at once, whose logits over the vocabulary would fill gigabytes


class BenchmarkCall(NamedTuple):
    """One query with its documents, and the work that they require."""

    query: str
    documents: Sequence[str]
    workload: CallWork


class CountedCall(NamedTuple):
    """The seconds of one call by the wall clock, the logits of its documents, and the tokens that the model embedded.

    The tokens of a model in another process are None.
    """

    seconds: float
    logits: list[float]
    tokens: int | None


class CpuTarget(Target):
    """A target that loads a checkpoint, for a `TargetProcess`; its name is one without a reason in `missing`."""

    def __init__(self, name: str, checkpoint: RandomCheckpoint, vllm_url: str | None) -> None:
        loaded = load_vllm(checkpoint, vllm_url) if vllm_url is not None else _LOADERS[name](checkpoint)
        modules = () if loaded.model is None else loaded.model.modules()
        self._embeddings = next((each for each in modules if isinstance(each, nn.Embedding)), None)
        self._allowed = loaded.allowed
        super().__init__(loaded.score, torch.device("cpu"))

    def allowed(self) -> dict[str, Any]:
        """What the target may use, and its settings."""
        return self._allowed

    def time(self, query: str, documents: Sequence[str]) -> CountedCall:
        """Time one call, and count its tokens."""
        with counted_tokens(self._embeddings) as counts:
            timed = super().time(query, documents)
        return CountedCall(*timed, None if self._embeddings is None else sum(counts))

    def time_one_by_one(self, calls: Sequence[BenchmarkCall]) -> tuple[float, list[list[float]]]:
        """The seconds that all calls take one after the other, and the logits of each."""
        start = time.perf_counter()
        logits = [self._score(call.query, call.documents) for call in calls]
        return time.perf_counter() - start, logits

    def time_at_once(self, calls: Sequence[BenchmarkCall]) -> tuple[float, list[list[float]]]:
        """Like `time_one_by_one`, with a thread for each call."""
        start = time.perf_counter()
        with ThreadPoolExecutor(len(calls)) as threads:
            logits = list(threads.map(lambda call: self._score(call.query, call.documents), calls))
        return time.perf_counter() - start, logits

    def memory_of_call(self, query: str, documents: Sequence[str]) -> MemoryUse | None:
        """The memory after scoring one pair, and its peak while scoring the documents."""
        self._score(query, documents[:1])
        self._loaded = reset_peak_memory(torch.device("cpu"))
        self._score(query, documents)
        return self.memory()


def missing(name: str, checkpoint: RandomCheckpoint) -> str | None:
    """The reason why a target is not available; None if it is, or if only loading it can tell."""
    if name == INT8 and "quantization" not in LoadOptions.__annotations__:
        return "this version of onelogit has no option quantization"
    if name == CARD and checkpoint.recipe.family not in CARDS:
        return f"the loop of {checkpoint.recipe.family}'s card is not implemented here"
    if name in (LLAMA, LLAMA_Q8) and checkpoint.recipe.family != "qwen3-reranker":
        return "its GGUF file is written for shapes of Qwen3-Reranker only"
    packages = _PACKAGES.get(name, {})
    for module in packages:
        try:
            import_module(module)
        except ImportError as error:
            return f"it cannot be imported ({error}): pip install {' '.join(packages.values())}"
    return None


_PACKAGES = {
    FLAG: {"FlagEmbedding": "FlagEmbedding"},
    LLAMA: {"llama_cpp": "llama-cpp-python", "gguf": "gguf"},
    LLAMA_Q8: {"llama_cpp": "llama-cpp-python", "gguf": "gguf"},
}


def _onelogit(checkpoint: RandomCheckpoint, **options: object) -> Loaded:
    given = {"device": "cpu", "dtype": checkpoint.dtype, "recipe": checkpoint.recipe}
    reranker = Reranker.load(checkpoint.folder, **given, **options)
    return Loaded(reranker.logits, reranker.classifier, {**_threads(), **options})


def _threads() -> dict[str, int]:
    return {"threads": torch.get_num_threads()}


def _sentence_transformers(checkpoint: RandomCheckpoint, *, is_converted: bool = False) -> Loaded:
    from sentence_transformers import CrossEncoder  # noqa: PLC0415  slow, and not needed for other targets

    folder = checkpoint.converted if is_converted else checkpoint.folder
    model = CrossEncoder(str(folder), device="cpu", model_kwargs={"dtype": checkpoint.dtype})

    def score(query: str, documents: Sequence[str]) -> list[float]:
        pairs = [(query, document) for document in documents]
        options = {"batch_size": ST_BATCH, "show_progress_bar": False, "activation_fn": nn.Identity()}
        return model.predict(pairs, **options).tolist()

    return Loaded(score, model, {**_threads(), "prompts at a time": ST_BATCH})


def _card(checkpoint: RandomCheckpoint) -> Loaded:
    """The model card's loop: left padding, and the last token's logits, computed for all tokens and the vocabulary."""
    model = AutoModelForCausalLM.from_pretrained(checkpoint.folder, dtype=checkpoint.dtype).eval()
    tokenizer = AutoTokenizer.from_pretrained(checkpoint.folder, padding_side="left")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    read = partial(CARDS[checkpoint.recipe.family], checkpoint.recipe.read_out)
    prompt = partial(tokenizer.apply_chat_template, tokenize=False, add_generation_prompt=True)

    @torch.no_grad()
    def score(query: str, documents: Sequence[str]) -> list[float]:
        texts = [prompt(messages_of(checkpoint.recipe, query, document)) for document in documents]
        logits: list[float] = []
        for start in range(0, len(texts), CARD_BATCH):
            batch = texts[start : start + CARD_BATCH]
            inputs = tokenizer(batch, padding=True, truncation=True, return_tensors="pt", max_length=8192)
            logits += read(model(**inputs).logits[:, -1, :])
        return logits

    return Loaded(score, model, {**_threads(), "prompts at a time": CARD_BATCH})


def _flag_embedding(checkpoint: RandomCheckpoint) -> Loaded:
    from FlagEmbedding import FlagLLMReranker  # noqa: PLC0415  optional

    is_half = checkpoint.dtype == "bfloat16"
    reranker = FlagLLMReranker(str(checkpoint.folder), use_fp16=False, use_bf16=is_half, devices="cpu", max_length=8192)

    def score(query: str, documents: Sequence[str]) -> list[float]:
        with redirect_stderr(StringIO()):  # hides a progress bar for each call
            return reranker.compute_score([(query, document) for document in documents])

    return Loaded(score, reranker.model, _threads())


_LOADERS: dict[str, Callable[[RandomCheckpoint], Loaded]] = {
    ONELOGIT: _onelogit,
    COMPILED: partial(_onelogit, compile=True),
    INT8: partial(_onelogit, quantization="int8"),
    CHUNKS: partial(_onelogit, **CHUNK_OPTIONS),
    CACHED: partial(_onelogit, document_cache_bytes=DOCUMENT_CACHE_BYTES),
    SENTENCE_TRANSFORMERS: _sentence_transformers,
    CONVERTED: partial(_sentence_transformers, is_converted=True),
    CARD: _card,
    LLAMA: partial(load_llama_cpp, kind="BF16"),
    LLAMA_Q8: partial(load_llama_cpp, kind="Q8_0"),
    FLAG: _flag_embedding,
}
