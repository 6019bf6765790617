"""What a caller may say when a model is loaded: one set of names for the core and every adapter."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, cast

from typing_extensions import TypedDict

from onelogit.errors import InputError
from onelogit.quantisation import check_quantisation, plain_quantisation
from onelogit.recipes.recipe import Activation, Recipe, recipe_fields

Protocol = Literal["vllm-tokens", "rerank", "tei", "sglang"]
LongDocuments = Literal["cut", "chunk_max"]
API_KEY_VARIABLE: Final = "ONELOGIT_API_KEY"
"""The environment variable that holds a server's API key."""
DEMO_MODEL: Final = str(Path(__file__).parent / "demo")
"""The path of a tiny trained model that comes with the package: for demos and tests, not for use."""
DEMO_NOTE = (
    "The demo model is there to try commands with: its order and its figures mean nothing. Name a real one, such as "
    "Qwen/Qwen3-Reranker-0.6B."
)


class ScoringOptions(TypedDict, total=False):
    """Options of a `Reranker`, however its model came to be; each may be left out, and None means the same.

    Attributes:
        instruction: replaces the recipe's default instruction; "" for none.
        max_tokens: longest prompt, in tokens.
        long_documents: what of a document that is longer counts. "cut", as when left out: its beginning. "chunk_max":
            the best of its chunks, each as long as fits and an eighth in common with the one before (MaxP of
            https://arxiv.org/abs/1905.09217); a document of n times the length takes n times the work.
        batch_tokens: most tokens in one forward pass; left out, as many as are worth it and the free memory allows.
        document_cache_bytes: keep the keys and values of documents between calls, in this much memory of the model's
            device, taken when the model is loaded. Where the family writes the document first, a document met again
            costs only the query's tokens; where it writes the query first, a query met again only the documents'. A
            token takes 2 x layers x key-value heads x head width x bytes of the dtype: 57 KB in ctxl-rerank-v2 1b. 0
            for none.
        document_cache_host_bytes: keep what has to leave there in so much of the CPU's memory; pinned, where the device
            is CUDA, and then of each layer's share the power of two below. A batch is no larger than the documents
            whose keys the device holds: give that room for a call's documents.
        compile: have PyTorch compile the layers, where shared prefixes are computed once. Each call is faster; the load
            takes as long as compiling does, up to a minute. On a CPU it needs a C++ compiler.
        activation: "sigmoid" or "identity", in place of the recipe's way from logit to score.
        allow_control_tokens: read `<|im_end|>` and the like in a query or document as the control tokens they spell,
            as the families' reference code does. Off, they are plain text.
    """

    instruction: str | None
    max_tokens: int | None
    long_documents: LongDocuments | None
    batch_tokens: int | None
    document_cache_bytes: int | None
    document_cache_host_bytes: int | None
    compile: bool
    activation: Activation | None
    allow_control_tokens: bool


class LoadOptions(ScoringOptions, total=False):
    """Options of `Reranker.load`: those of `ScoringOptions`, and these; each may be left out, and None means the same.

    Attributes:
        device: "cpu", "cuda", "cuda:1", "mps"; the fastest one present where left out.
        dtype: of the backbone, by name: "bfloat16", "float16", "float32"; where left out, the checkpoint's own, or
            float32 for one that the device has no instructions for.
        recipe: what the model needs, where onelogit cannot know it or should not believe what the model declares; as
            plain data, too, as in `recipe_fields`.
        revision: branch, tag or commit of a model on the hub.
        token: for a private or gated model on the hub; the one that is logged in where left out. Log in rather than
            put it into an adapter's options, which frameworks write into their dumps.
        device_map: passed on to transformers, in place of `device`.
        attn_implementation: passed on to transformers. Left out, or "sdpa", shared prefixes are computed once; with
            any other the model attends as named, over padded rows.
        quantization_config: passed on to transformers: a configuration of its, such as `BitsAndBytesConfig`, or the
            fields of one. It quantises the backbone, for which transformers needs accelerate. A decoder's head stays as
            it is; an encoder's own is quantised with it, but for the modules that the configuration says to skip. Some
            kinds' logits depend on what is beside them, as those of bitsandbytes' 8 bits do by its default.
        trust_remote_code: let the checkpoint's own Python code run.
    """

    device: str | None
    dtype: str | None
    recipe: Recipe | dict[str, Any] | None
    revision: str | None
    token: str | bool | None
    device_map: str | dict[str, int | str] | None
    attn_implementation: str | None
    quantization_config: Any
    trust_remote_code: bool


class RemoteOptions(TypedDict, total=False):
    """Options of a `RemoteReranker`; each may be left out, and None means the same.

    Attributes:
        protocol: how the server is asked. "vllm-tokens", as when left out: token ids, written and cut here, to vLLM's
            `/classify`; "rerank": the form of Cohere and Jina, on `/v1/rerank` (vLLM, Infinity, llama.cpp, LiteLLM,
            Cohere, Jina); "tei"; "sglang".
        template: who writes the prompt, for protocols of texts: "client" for whole prompts as documents, "server" for
            the plain query and documents.
        served_name: what the server calls the model; left out, what it says itself.
        api_key: sent as a bearer token; left out, the environment's ONELOGIT_API_KEY.
        headers: sent with each request.
        raw_logits: False for a server that cannot leave its activation off: its scores then stand for logits.
        timeout_s: for a whole call, retries and all.
        attempts: of each request, where the server is overloaded or away.
        requests_at_once: over all callers.
        pairs_a_request: pairs in one request.
        instruction, max_tokens, long_documents, activation, allow_control_tokens: as in `ScoringOptions`.
        recipe, revision, token: as in `LoadOptions`.
    """

    protocol: Protocol | None
    template: Literal["client", "server"] | None
    served_name: str | None
    api_key: str | None
    headers: dict[str, str] | None
    raw_logits: bool | None
    timeout_s: float | None
    attempts: int | None
    requests_at_once: int | None
    pairs_a_request: int | None
    instruction: str | None
    max_tokens: int | None
    long_documents: LongDocuments | None
    activation: Activation | None
    allow_control_tokens: bool
    recipe: Recipe | dict[str, Any] | None
    revision: str | None
    token: str | bool | None


class OpenOptions(LoadOptions, RemoteOptions, total=False):
    """Options of `open_reranker`, and of adapters: those of `LoadOptions`, or with a `url` those of `RemoteOptions`.

    Attributes:
        url: of a server that serves the model.
        model: that a server serves, where its address stands in the model's place.
    """

    url: str | None
    model: str | None


def is_url(name: str) -> bool:
    """Whether it names a server, and not a model."""
    return isinstance(name, str) and name.startswith(("http://", "https://"))


def is_demo(name: str) -> bool:
    """Whether it names the demo model; see `DEMO_NOTE`."""
    try:
        return not is_url(name) and Path(name).expanduser().resolve() == Path(DEMO_MODEL).resolve()
    except (RuntimeError, ValueError):  # nobody's home, or no path at all
        return False


def is_secret_header(name: str) -> bool:
    """Whether a header of this name may well hold a secret."""
    return any(
        word in str(name).lower() for word in ("auth", "key", "token", "secret", "cookie", "password", "credential")
    )


def check_options(options: Mapping[str, object], kind: type = LoadOptions) -> None:
    """Refuse names that are no option, and a quantisation of which nothing can be made.

    Raises:
        InputError: naming the unknown option and the known ones; a quantisation that is none.
    """
    known = kind.__annotations__
    for name in options:
        if name not in known:
            raise InputError(f"unknown option {name!r}; the options are {', '.join(known)}")
    check_quantisation(options.get("quantization_config"))


def plain_options(options: OpenOptions) -> OpenOptions:
    """The options that are given, as data that every framework can write down and read.

    Raises:
        InputError: as `check_options`; a quantisation that is no data.
    """
    check_options(options, OpenOptions)
    recipe = options.get("recipe")
    plain = {
        **options,
        "recipe": recipe_fields(recipe) if isinstance(recipe, Recipe) else recipe,
        "quantization_config": plain_quantisation(options.get("quantization_config")),
    }
    return cast("OpenOptions", {name: value for name, value in plain.items() if value is not None})


def check_place(options: OpenOptions) -> None:
    """Refuse what has no part in a server, or in a model of this process.

    Raises:
        InputError: naming the option.
    """
    is_remote = options.get("url") is not None
    kind, place = (RemoteOptions, "a server's") if is_remote else (LoadOptions, "a local model's; give a url, too")
    for name in plain_options(options).keys() - {"url", "model"}:
        if name not in kind.__annotations__:
            raise InputError(f"{name!r} is no option of {place}")


_NAMED = ("device", "dtype", "url", "protocol")


def adapter_options(made: object, *, token: str | None = None, api_key: str | None = None) -> OpenOptions:
    """The options of an adapter, together with those that it has parameters of its own for; None is not given.

    Args:
        made: the adapter, with attributes `options`, `device`, `dtype`, `url` and `protocol`.
        token: its own.
        api_key: its own.

    Raises:
        InputError: as `check_place`; an option that is given in both places; a secret among the options, which
            frameworks write into their dumps.
    """
    options: OpenOptions = getattr(made, "options")  # noqa: B009  whatever an adapter is
    for name in ("token", "api_key"):
        if options.get(name) is not None:
            raise InputError(f"{name} in the options would be written into dumps; give it as {name}=, which is not")
    for header in filter(is_secret_header, options.get("headers") or {}):
        raise InputError(
            f"the header {header} in the options would be written into dumps; give a bearer token as api_key=, which "
            "is not, or any other secret to a RemoteReranker, and make this from it"
        )
    named = {**{name: getattr(made, name) for name in _NAMED}, "token": token, "api_key": api_key}
    given = {name: value for name, value in named.items() if value is not None}
    for name in given:
        if options.get(name) is not None:
            raise InputError(f"{name} is given twice, by itself and in the options; leave one out")
    merged = plain_options(cast("OpenOptions", {**options, **given}))
    check_place(merged)
    return merged


def without_secrets(options: OpenOptions) -> OpenOptions:
    """What may stand in a dump."""
    shown = {name: value for name, value in (options.get("headers") or {}).items() if not is_secret_header(name)}
    return plain_options({**options, "token": None, "api_key": None, "headers": shown or None})


def scoring_options(options: LoadOptions) -> ScoringOptions:
    """The options that are not about loading."""
    known = ScoringOptions.__annotations__
    return cast("ScoringOptions", {name: value for name, value in options.items() if name in known})
