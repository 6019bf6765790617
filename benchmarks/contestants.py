"""A checkpoint -> ways to get its logits: onelogit's, and its peers', each as its makers show it."""

import json
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, suppress
from dataclasses import dataclass, field
from io import StringIO
from typing import NamedTuple
from urllib.error import URLError
from urllib.request import Request, urlopen
from uuid import uuid4

import torch
from counting import prompt_rows
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from checkpoints import Checkpoint
from onelogit import ReadOut, Reranker
from onelogit.options import LoadOptions

Score = Callable[[str, Sequence[str]], list[float]]

ONELOGIT = "onelogit"
COMPILED = "onelogit, compiled"
KEPT = "onelogit, documents kept"
SENTENCE_TRANSFORMERS = "Sentence Transformers"
CONVERTED = "Sentence Transformers, converted"
CARD = "model card's loop"
VLLM = "vLLM"
FLAG = "FlagEmbedding"
CARD_BATCH = 8  # the card takes all at once; its logits over the whole vocabulary would then fill gigabytes


class Ready(NamedTuple):
    """A contestant that has loaded its model.

    Attributes:
        name: for people.
        score: (query, documents) -> a raw logit each.
        embeddings: the model's input embeddings, where it runs in this process.
    """

    name: str
    score: Score
    embeddings: nn.Module | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a contestant may be told.

    Attributes:
        vllm_url: of a server that serves the converted checkpoint.
        document_cache_bytes: for onelogit with documents kept.
        card_batch: prompts in one forward pass of the model card's loop.
    """

    vllm_url: str | None = None
    document_cache_bytes: int = 4_000_000_000
    card_batch: int = field(default=CARD_BATCH)


def prepare(name: str, checkpoint: Checkpoint, settings: Settings) -> Ready:
    """Load one contestant by its name.

    Raises:
        SystemExit: what it needs is not there; `missing` tells beforehand.
    """
    reason = missing(name, checkpoint, settings)
    if reason is not None:
        raise SystemExit(f"{name}: {reason}")
    score, model = _PREPARE[name](checkpoint, settings)
    embeddings = None if model is None else next(each for each in model.modules() if isinstance(each, nn.Embedding))
    return Ready(name, score, embeddings)


def missing(name: str, checkpoint: Checkpoint, settings: Settings) -> str | None:
    """Why a contestant cannot take part; None where it can."""
    if name == KEPT and "document_cache_bytes" not in LoadOptions.__annotations__:
        return "this onelogit has no option document_cache_bytes: it keeps no documents between calls"
    if name == VLLM and settings.vllm_url is None:
        return f"no --vllm-url; serve {checkpoint.converted} as README.md says"
    if name == CARD and checkpoint.recipe.family not in CARDS:
        return f"no loop of {checkpoint.recipe.family}'s card is written here"
    if name == FLAG:
        try:
            import FlagEmbedding  # noqa: F401, PLC0415  optional
        except ImportError as error:
            return f"it cannot be imported ({error}): pip install FlagEmbedding"
    return None


def reference_logits(checkpoint: Checkpoint, query: str, documents: Sequence[str]) -> list[float]:
    """The truth: the causal model in float32, its whole vocabulary, one prompt at a time, without padding."""
    model = AutoModelForCausalLM.from_pretrained(checkpoint.folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint.folder)
    true, false = checkpoint.recipe.read_out.true, checkpoint.recipe.read_out.false
    logits = []
    with torch.inference_mode():
        for row in prompt_rows(tokenizer, checkpoint.recipe, query, documents):
            last = model(input_ids=torch.tensor([row]), use_cache=False).logits[0, -1]
            logits.append(float(last[true] if false is None else last[true] - last[false]))
    return logits


def _onelogit(checkpoint: Checkpoint, _: Settings) -> tuple[Score, nn.Module]:
    reranker = open_reranker(checkpoint)
    return reranker.logits, reranker.classifier


def _onelogit_compiled(checkpoint: Checkpoint, _: Settings) -> tuple[Score, nn.Module]:
    reranker = open_reranker(checkpoint, compile=True)
    return reranker.logits, reranker.classifier


def _onelogit_kept(checkpoint: Checkpoint, settings: Settings) -> tuple[Score, nn.Module]:
    reranker = open_reranker(checkpoint, document_cache_bytes=settings.document_cache_bytes)
    return reranker.logits, reranker.classifier


def open_reranker(checkpoint: Checkpoint, **options: object) -> Reranker:
    """The checkpoint in onelogit, with the options that everyone gets by default."""
    return Reranker.load(checkpoint.folder, device="cpu", dtype=checkpoint.dtype, recipe=checkpoint.recipe, **options)


def _sentence_transformers(checkpoint: Checkpoint, _: Settings) -> tuple[Score, nn.Module]:
    return _cross_encoder(checkpoint.folder, checkpoint.dtype)


def _sentence_transformers_converted(checkpoint: Checkpoint, _: Settings) -> tuple[Score, nn.Module]:
    return _cross_encoder(checkpoint.converted, checkpoint.dtype)


def _cross_encoder(folder: object, dtype: str) -> tuple[Score, nn.Module]:
    from sentence_transformers import CrossEncoder  # noqa: PLC0415  not for who does not measure it

    model = CrossEncoder(str(folder), device="cpu", model_kwargs={"dtype": dtype})

    def score(query: str, documents: Sequence[str]) -> list[float]:
        pairs = [(query, document) for document in documents]
        return model.predict(pairs, show_progress_bar=False, activation_fn=nn.Identity()).tolist()

    return score, model


def _card(checkpoint: Checkpoint, settings: Settings) -> tuple[Score, nn.Module]:
    """As the card shows it: left padding, logits of the whole vocabulary at each place, the last place read."""
    model = AutoModelForCausalLM.from_pretrained(checkpoint.folder, dtype=checkpoint.dtype).eval()
    tokenizer = AutoTokenizer.from_pretrained(checkpoint.folder, padding_side="left")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    read = CARDS[checkpoint.recipe.family](checkpoint.recipe.read_out)

    @torch.no_grad()
    def score(query: str, documents: Sequence[str]) -> list[float]:
        texts = [checkpoint_text(checkpoint, tokenizer, query, document) for document in documents]
        logits: list[float] = []
        for start in range(0, len(texts), settings.card_batch):
            batch = texts[start : start + settings.card_batch]
            inputs = tokenizer(batch, padding=True, truncation=True, return_tensors="pt", max_length=8192)
            logits += read(model(**inputs).logits[:, -1, :])
        return logits

    return score, model


def checkpoint_text(checkpoint: Checkpoint, tokenizer: object, query: str, document: str) -> str:
    """The prompt as the family's template writes it."""
    instruction = checkpoint.recipe.default_instruction
    system = [{"role": "system", "content": instruction}] if instruction else []
    messages = [*system, {"role": "query", "content": query}, {"role": "document", "content": document}]
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)


def _qwen3_card(read_out: ReadOut) -> Callable[[torch.Tensor], list[float]]:
    def read(scores: torch.Tensor) -> list[float]:
        answers = torch.stack([scores[:, read_out.false], scores[:, read_out.true]], dim=1)
        both = torch.nn.functional.log_softmax(answers, dim=1)
        return (both[:, 1] - both[:, 0]).float().tolist()  # the card takes exp of the first: the same order

    return read


def _ctxl_card(read_out: ReadOut) -> Callable[[torch.Tensor], list[float]]:
    return lambda scores: scores[:, read_out.true].to(torch.bfloat16).float().tolist()


def _vllm(checkpoint: Checkpoint, settings: Settings) -> tuple[Score, None]:
    tokenizer = AutoTokenizer.from_pretrained(checkpoint.folder)
    url = str(settings.vllm_url).rstrip("/")
    name = _ask(f"{url}/v1/models", None)["data"][0]["id"]
    salt = uuid4().hex  # the server would know the texts of an earlier run, and answer from its cache

    def score(query: str, documents: Sequence[str]) -> list[float]:
        rows = prompt_rows(tokenizer, checkpoint.recipe, query, documents)
        body = {"model": name, "input": rows, "use_activation": False, "cache_salt": salt}
        answer = _ask(f"{url}/classify", body)
        return [each["probs"][0] for each in sorted(answer["data"], key=lambda each: each["index"])]

    return score, None


def _ask(url: str, body: object) -> dict[str, list[dict[str, object]]]:
    data = None if body is None else json.dumps(body).encode()
    try:
        with urlopen(Request(url, data=data, headers={"Content-Type": "application/json"}), timeout=600) as response:
            return json.load(response)
    except URLError as error:
        said = ""
        with suppress(AttributeError):
            said = error.read(500).decode()
        raise SystemExit(f"{url} does not answer: {error} {said}") from error


def _flag_embedding(checkpoint: Checkpoint, _: Settings) -> tuple[Score, nn.Module]:
    from FlagEmbedding import FlagLLMReranker  # noqa: PLC0415  optional

    is_half = checkpoint.dtype == "bfloat16"
    reranker = FlagLLMReranker(str(checkpoint.folder), use_fp16=False, use_bf16=is_half, devices="cpu", max_length=8192)

    def score(query: str, documents: Sequence[str]) -> list[float]:
        with redirect_stderr(StringIO()):  # a progress bar for every call
            return reranker.compute_score([(query, document) for document in documents])

    return score, reranker.model


CARDS = {"qwen3-reranker": _qwen3_card, "ctxl-rerank-v2": _ctxl_card}
_PREPARE: dict[str, Callable[[Checkpoint, Settings], tuple[Score, nn.Module | None]]] = {
    ONELOGIT: _onelogit,
    COMPILED: _onelogit_compiled,
    KEPT: _onelogit_kept,
    SENTENCE_TRANSFORMERS: _sentence_transformers,
    CONVERTED: _sentence_transformers_converted,
    CARD: _card,
    VLLM: _vllm,
    FLAG: _flag_embedding,
}
