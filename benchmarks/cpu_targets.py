"""A checkpoint's folder -> targets on a CPU: onelogit, and its peers as their documentation shows them."""

import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stderr, suppress
from functools import partial
from importlib import import_module
from io import StringIO
from typing import NamedTuple
from urllib.error import URLError
from urllib.request import Request, urlopen
from uuid import uuid4

import torch
from targets import CACHED, CARD, CARDS, COMPILED, CONVERTED, FLAG, ONELOGIT, SENTENCE_TRANSFORMERS, VLLM, Score
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer
from workload import CallWork, counted_tokens, messages_of, prompt_rows

from checkpoints import RandomCheckpoint
from onelogit import OnelogitError, Reranker
from onelogit.benchmarking.machine import MemoryUse, reset_peak_memory
from onelogit.benchmarking.targets import Target

DOCUMENT_CACHE_BYTES = 4_000_000_000
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
        score, model = _LOADERS[name](checkpoint, vllm_url)
        modules = () if model is None else model.modules()
        self._embeddings = next((each for each in modules if isinstance(each, nn.Embedding)), None)
        super().__init__(score, torch.device("cpu"))

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


def missing(name: str, checkpoint: RandomCheckpoint, vllm_url: str | None) -> str | None:
    """The reason why a target is not available; None if it is."""
    if name == VLLM and vllm_url is None:
        return f"no --vllm-url; serve {checkpoint.converted} as README.md shows"
    if name == CARD and checkpoint.recipe.family not in CARDS:
        return f"the loop of {checkpoint.recipe.family}'s card is not implemented here"
    if name == FLAG:
        try:
            import_module("FlagEmbedding")
        except ImportError as error:
            return f"it cannot be imported ({error}): pip install FlagEmbedding"
    return None


def _onelogit(checkpoint: RandomCheckpoint, _: str | None, **options: object) -> tuple[Score, nn.Module]:
    given = {"device": "cpu", "dtype": checkpoint.dtype, "recipe": checkpoint.recipe}
    reranker = Reranker.load(checkpoint.folder, **given, **options)
    return reranker.logits, reranker.classifier


def _sentence_transformers(
    checkpoint: RandomCheckpoint, _: str | None, *, is_converted: bool = False
) -> tuple[Score, nn.Module]:
    from sentence_transformers import CrossEncoder  # noqa: PLC0415  slow, and not needed for other targets

    folder = checkpoint.converted if is_converted else checkpoint.folder
    model = CrossEncoder(str(folder), device="cpu", model_kwargs={"dtype": checkpoint.dtype})

    def score(query: str, documents: Sequence[str]) -> list[float]:
        pairs = [(query, document) for document in documents]
        return model.predict(pairs, show_progress_bar=False, activation_fn=nn.Identity()).tolist()

    return score, model


def _card(checkpoint: RandomCheckpoint, _: str | None) -> tuple[Score, nn.Module]:
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

    return score, model


def _vllm(checkpoint: RandomCheckpoint, vllm_url: str | None) -> tuple[Score, None]:
    tokenizer = AutoTokenizer.from_pretrained(checkpoint.folder)
    url = str(vllm_url).rstrip("/")
    name = _request(f"{url}/v1/models", None)["data"][0]["id"]
    salt = uuid4().hex  # otherwise the server could answer from the cache of an earlier run

    def score(query: str, documents: Sequence[str]) -> list[float]:
        rows = prompt_rows(tokenizer, checkpoint.recipe, query, documents)
        body = {"model": name, "input": rows, "use_activation": False, "cache_salt": salt}
        response = _request(f"{url}/classify", body)
        return [each["probs"][0] for each in sorted(response["data"], key=lambda each: each["index"])]

    return score, None


def _request(url: str, body: object) -> dict[str, list[dict[str, object]]]:
    data = None if body is None else json.dumps(body).encode()
    try:
        with urlopen(Request(url, data=data, headers={"Content-Type": "application/json"}), timeout=600) as response:
            return json.load(response)
    except URLError as error:
        details = ""
        with suppress(AttributeError):
            details = error.read(500).decode()
        raise OnelogitError(f"the request to {url} failed: {error} {details}") from error


def _flag_embedding(checkpoint: RandomCheckpoint, _: str | None) -> tuple[Score, nn.Module]:
    from FlagEmbedding import FlagLLMReranker  # noqa: PLC0415  optional

    is_half = checkpoint.dtype == "bfloat16"
    reranker = FlagLLMReranker(str(checkpoint.folder), use_fp16=False, use_bf16=is_half, devices="cpu", max_length=8192)

    def score(query: str, documents: Sequence[str]) -> list[float]:
        with redirect_stderr(StringIO()):  # hides a progress bar for each call
            return reranker.compute_score([(query, document) for document in documents])

    return score, reranker.model


_LOADERS: dict[str, Callable[[RandomCheckpoint, str | None], tuple[Score, nn.Module | None]]] = {
    ONELOGIT: _onelogit,
    COMPILED: partial(_onelogit, compile=True),
    CACHED: partial(_onelogit, document_cache_bytes=DOCUMENT_CACHE_BYTES),
    SENTENCE_TRANSFORMERS: _sentence_transformers,
    CONVERTED: partial(_sentence_transformers, is_converted=True),
    CARD: _card,
    VLLM: _vllm,
    FLAG: _flag_embedding,
}
