"""The options of loading, scoring and servers: their types and meanings. Loads no torch."""

import os
import re
from pathlib import Path
from typing import Any, Final, Literal

from typing_extensions import TypedDict

from onelogit.recipes.recipe import Activation, Recipe

TokenProtocol = Literal["vllm-tokens"]  # the client writes and tokenises the prompts
Protocol = Literal[TokenProtocol, "rerank", "tei", "sglang"]
TruncatingProtocol = Literal["tei"]  # the server can be asked to truncate texts
DEFAULT_PROTOCOL: Final = "vllm-tokens"
Template = Literal["client", "server"]
LongDocuments = Literal["cut", "chunk_max"]
Quantization = Literal["int8"]
API_KEY_VARIABLE: Final = "ONELOGIT_API_KEY"
TOKEN_VARIABLE: Final = "HF_TOKEN"  # noqa: S105  of the hub's client
DEMO_MODEL: Final = str(Path(__file__).parent / "demo")
"""The path of a tiny trained model that comes with the package: for demos and tests, not for use."""
DEMO_NOTE = (
    "The demo model is for trying out commands: its rankings and results are meaningless. Use a real model, such as "
    "Qwen/Qwen3-Reranker-0.6B."
)


class _PromptOptions(TypedDict, total=False):
    instruction: str | None
    max_tokens: int | None
    long_documents: LongDocuments | None
    activation: Activation | None
    allow_control_tokens: bool


class SourceOptions(TypedDict, total=False):
    """Options of finding a model's files; see `LoadOptions`."""

    recipe: Recipe | dict[str, Any] | str | os.PathLike[str] | None
    base_model: str | os.PathLike[str] | None
    revision: str | None
    token: str | bool | None
    cache_dir: str | os.PathLike[str] | None
    local_files_only: bool


class ScoringOptions(_PromptOptions, total=False):
    """Options of a `Reranker`. All are optional; None means the default.

    Attributes:
        instruction: replaces the recipe's default instruction; "" for none.
        max_tokens: maximum length of a prompt, in tokens.
        long_documents: what to read of a document that does not fit. "cut" (the default): its beginning. "chunk_max":
            all of it, in chunks that overlap by an eighth; the best chunk counts (MaxP,
            https://arxiv.org/abs/1905.09217). A document n times as long takes n times the work.
        batch_tokens: maximum tokens in one forward pass; by default as many as speed needs and free memory allows.
        document_cache_bytes: memory on the model's device, allocated at load, that keeps keys and values between
            calls; 0 for none. The prompt's first text, query or document by family, costs nothing when it is repeated.
            A token takes 2 x layers x key-value heads x head width x bytes of the dtype: 57 KB in ctxl-rerank-v2 1b.
            With recurrent layers (Qwen3.5), the memory is allocated as needed, and each text takes a state more: layers
            x value heads x key width x value width x 4 bytes, of the recurrent layers.
        document_cache_host_bytes: CPU memory for entries evicted from the device. It is pinned with CUDA, where each
            layer's share is rounded down to a power of two. The keys of a batch must still fit on the device.
        max_waiting: calls that wait or are computed at the same time, of all threads and event loops together; one more
            raises `OverloadError` at once, so that no call waits longer than these take. By default all calls wait.
        compile: compile the layers, if prefixes are shared and none has 8 bits: faster calls, up to a minute more to
            load. On a CPU it needs a C++ compiler.
        activation: "sigmoid" or "identity", from logit to score, instead of the recipe's activation.
        allow_control_tokens: read `<|im_end|>` and the like in a query or document as control tokens, as the
            families' reference code does. By default they are plain text.
    """

    batch_tokens: int | None
    document_cache_bytes: int | None
    document_cache_host_bytes: int | None
    max_waiting: int | None
    compile: bool


class LoadOptions(ScoringOptions, SourceOptions, total=False):
    """Options of `Reranker.load`: `ScoringOptions`, and these. All are optional; None means the default.

    Attributes:
        device: "cpu", "cuda", "cuda:1" or "mps"; by default the fastest device of this machine.
        dtype: "bfloat16", "float16" or "float32", of the backbone; by default the checkpoint's, if the device has it.
        recipe: replaces the recipe of the model's files: the name of a family, such as "qwen3-reranker"; a `Recipe`, or
            the dictionary of `recipe_fields`; a family's name and what differs, such as `{"family": "qwen3-reranker",
            "default_instruction": "..."}`; or the path of a JSON file with such a dictionary, which is read at once.
        relevant_label: of a classifier with two labels, the one that means relevant, by its name or index; needed if
            their names do not tell.
        base_model: hub id or folder of the model that a PEFT adapter, such as a LoRA, was trained on; by default the
            one that its adapter_config.json names. The adapter is merged into it; needs the extra `lora`.
        revision: branch, tag or commit of a model on the hub.
        token: for a private or gated model on the hub; by default the token of the hub's login.
        cache_dir: folder of downloaded models; by default the hub's own (the environment variable HF_HUB_CACHE).
        local_files_only: use only what the cache contains, without asking the hub.
        device_map: passed to transformers, instead of `device`.
        attn_implementation: passed to transformers. Prefixes are shared only with "sdpa", the default.
        quantization_config: passed to transformers: one of its configurations, such as `BitsAndBytesConfig`, or its
            fields. Needs accelerate. It quantises the backbone and an encoder's head, never a decoder's head. With
            some methods, such as bitsandbytes' 8 bits, a document's logit depends on the others in its batch.
        quantization: "int8", on an x86 CPU with VNNI or AMX: approximate, but faster. The linear layers multiply 8-bit
            integers; weights have a scale for each output, and inputs one for each token. Head, norms, embeddings and
            attention stay exact. `Reranker.quantization_report` says how far logits move.
        trust_remote_code: allow the checkpoint's own Python code to run.
    """

    relevant_label: str | int | None
    device: str | None
    dtype: str | None
    device_map: str | dict[str, int | str] | None
    attn_implementation: str | None
    quantization_config: Any
    quantization: Quantization | None
    trust_remote_code: bool


class RemoteOptions(_PromptOptions, SourceOptions, total=False):
    """Options of a `RemoteReranker`. All are optional; None means the default.

    Attributes:
        protocol: the form of requests. "vllm-tokens" (the default): token ids, which the client builds and truncates,
            to vLLM's `/classify`. "rerank": the form of Cohere and Jina, on `/v1/rerank` (vLLM, Infinity, llama.cpp,
            LiteLLM, Cohere, Jina, Voyage, Xinference, LocalAI). "tei". "sglang".
        path: of the requests, instead of the protocol's: "/rerank" for Infinity, "/v2/rerank" for Cohere. A url that
            already ends in such a path needs none.
        template: which side writes the prompts, for protocols that send texts: "client" sends whole prompts as
            documents, "server" sends the plain query and documents.
        served_name: the server's name for the model; by default the one that the server lists.
        api_key: sent as a bearer token; by default the environment variable ONELOGIT_API_KEY.
        headers: sent with each request.
        raw_logits: False if the server cannot turn its activation off: its scores are then used as they are, as logits
            and as scores. True if its answers are logits although all lie in [0, 1]. By default logits are asked for,
            and a warning is logged if the server seems to send scores; False for Cohere, Jina and Voyage.
        timeout_s: for a whole call, including retries.
        attempts: how often to send a request if the server is overloaded or unreachable.
        requests_at_once: maximum concurrent requests, of all callers together.
        pairs_a_request: maximum pairs in one request.
        instruction, max_tokens, long_documents, activation, allow_control_tokens: as in `ScoringOptions`. If the server
            writes the prompts, `max_tokens` and `long_documents` need a model, whose tokenizer cuts the documents;
            without either of them, the server decides. "tei" with "cut" and no model lets the server truncate. A
            document with images (`ContentDocument`, for "rerank" with template="server") is sent whole.
        recipe, base_model, revision, token, cache_dir, local_files_only: as in `LoadOptions`.
    """

    protocol: Protocol | None
    path: str | None
    template: Template | None
    served_name: str | None
    api_key: str | None
    headers: dict[str, str] | None
    raw_logits: bool | None
    timeout_s: float | None
    attempts: int | None
    requests_at_once: int | None
    pairs_a_request: int | None


class OpenOptions(LoadOptions, RemoteOptions, total=False):
    """Options of `open_reranker` and of adapters: `LoadOptions` for a local model, `RemoteOptions` for a server.

    Attributes:
        url: of a server that serves the model.
        model: the model that the server serves, if the server's url is given as the model.
    """

    url: str | None
    model: str | None


def is_url(name: object) -> bool:
    """Whether this is the url of a server, not a model."""
    return isinstance(name, str) and name.startswith(("http://", "https://"))


def is_demo(name: str) -> bool:
    """Whether this names the demo model; see `DEMO_NOTE`."""
    try:
        return not is_url(name) and Path(name).expanduser().resolve() == Path(DEMO_MODEL).resolve()
    except (RuntimeError, ValueError):  # no such user, or not a path
        return False


def is_secret_header(name: str, value: object) -> bool:
    """Whether a header may hold a secret, by its name or its value."""
    is_named_so = re.search("auth|key|token|secret|cookie|password|credential", str(name), re.IGNORECASE)
    return bool(is_named_so or re.match("(bearer|basic|digest) ", str(value), re.IGNORECASE))
