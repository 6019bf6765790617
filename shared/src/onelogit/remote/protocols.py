"""Score requests -> request bodies, and responses -> numbers, for each server protocol. Makes no connection."""

import re
import reprlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from onelogit.contents import ContentDocument
from onelogit.errors import ServerError
from onelogit.options import Protocol, TokenProtocol, TruncatingProtocol

NumberByIndex = Mapping[object, object]
RESULT_NAMES = ("results", "data", "output")  # of a server that answers


class UnknownFormError(ServerError):
    """A response that does not have the form of the protocol."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreRequest:
    """One request: rows of token ids, or a query and its documents.

    Attributes:
        rows: token ids, for protocols that send tokens; empty for all others.
        query: "" if the documents are whole prompts.
        documents: texts, or texts and images for protocols that send images.
        model: the server's name for the model; None if it needs none.
        instruction: for a server that writes the prompts; None for none.
        raw: ask for raw logits, without the server's activation.
        truncate: ask the server to truncate texts that are too long for it.
    """

    rows: Sequence[Sequence[int]] = ()
    query: str = ""
    documents: Sequence[str | ContentDocument] = ()
    model: str | None = None
    instruction: str | None = None
    raw: bool = True
    truncate: bool = False

    @property
    def count(self) -> int:
        """The number of logits or scores that the response must have."""
        return len(self.rows) or len(self.documents)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProtocolSpec:
    """One form of request and response.

    Attributes:
        name: as in the option `protocol`.
        path: appended to the server's url.
        body: a request -> its JSON body.
        parse: a JSON response -> its numbers by index.
        takes_instruction: whether a request to a server that writes the prompts can carry an instruction.
        needs_model_name: whether a request names the model.
        sends_images: whether a request to a server that writes the prompts can carry images.
        path_hint: what to do if the server does not know the path.
        activated_hosts: servers of this form that have no logits to send, by their documentation.
        source: where the form is documented.
    """

    name: Protocol
    path: str
    body: Callable[[ScoreRequest], dict[str, Any]]
    parse: Callable[[Any], NumberByIndex]
    takes_instruction: bool = True
    needs_model_name: bool = True
    sends_images: bool = False
    activated_hosts: tuple[str, ...] = ()
    path_hint: str = "the server must serve a reranker at this path; pass another as path, such as '/rerank'"
    source: str

    @property
    def sends_tokens(self) -> bool:
        """Whether requests carry token ids, so that the client writes the prompts; `options` needs to know it too."""
        return self.name in get_args(TokenProtocol)

    @property
    def can_truncate(self) -> bool:
        """Whether the server can be asked to truncate a text, and then keeps what the model needs after it."""
        return self.name in get_args(TruncatingProtocol)

    def is_always_activated(self, host: str) -> bool:
        """Whether the servers of this host are known to send scores only, never logits."""
        return any(host == known or host.endswith(f".{known}") for known in self.activated_hosts)

    def checked_numbers(self, response: object, count: int) -> list[float]:
        """The numbers of a response, in the order of the request.

        Raises:
            UnknownFormError: the response has another form.
            ServerError: an index is missing or occurs twice, or a number is not finite.
        """
        try:
            numbers = self.parse(response)
        except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
            reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            raise UnknownFormError(
                f"the response of {self.path} does not have the form of {self.source}: {reason[:100]}"
            ) from error
        if set(numbers) != set(range(count)):
            few = "index " + ", ".join(sorted(map(_shown, numbers))[:8])
            raise ServerError(f"{self.path} returned {len(numbers)} results ({few}), not one for each of {count} texts")
        return [self._checked_number(numbers[index], index) for index in range(count)]

    def _checked_number(self, number: object, index: int) -> float:
        # NaN compares as false; math.isfinite would raise for an integer that is too large for a float.
        is_real = isinstance(number, int | float) and abs(number) <= sys.float_info.max
        if isinstance(number, bool) or not is_real:
            advice = "is the model's head initialised?" if isinstance(number, float) else "a score must be a number"
            raise ServerError(f"{self.path} returned {_shown(number)} for index {index}; {advice}")
        return float(number)  # type: ignore[arg-type]


def _number_from(value: object) -> object:
    """The number in a text, which some servers send; anything else as it is."""
    try:
        return float(value) if isinstance(value, str) and "_" not in value else value
    except ValueError:
        return value


def _shown(value: object) -> str:
    """A number itself, and of any other value only the type: a server may repeat the API key in it."""
    return reprlib.repr(value) if value is None or isinstance(value, int | float) else f"a {type(value).__name__}"


def _by_index(results: Sequence[Mapping[str, Any]], number: Callable[[Mapping[str, Any]], object]) -> NumberByIndex:
    numbers = {each["index"]: number(each) for each in results}
    if len(numbers) != len(results):
        raise ValueError("an index occurs twice")
    return numbers


def _index_from(value: object) -> object:
    return int(value) if isinstance(value, str) and re.fullmatch("[0-9]{1,9}", value) else value


def _ranked(response: Any) -> NumberByIndex:
    """The scores of any rerank server: the results stand at the top, or in `results`, `data` or `output`, or in these.

    Sources: Cohere, Jina, vLLM, Infinity, llama.cpp, Xinference and LocalAI use `results`, Voyage `data`, DashScope
    `output.results`, TEI and SGLang none of them.
    """
    while isinstance(response, dict):
        values = [response.get(name) for name in RESULT_NAMES]
        lists = [value for value in values if isinstance(value, list)]
        nested = [value for value in values if isinstance(value, dict)]
        found: list[Any] = [each for each in lists if each] or lists or nested
        if len(found) != 1:
            raise ValueError(f"{len(found)} lists of results")
        response = found[0]
    return _by_index([{**each, "index": _index_from(each["index"])} for each in response], _relevance)


def _relevance(result: Mapping[str, Any]) -> object:
    scores = [_number_from(result[name]) for name in ("relevance_score", "score") if name in result]
    if not scores:
        raise ValueError(f"no 'relevance_score' or 'score' among {', '.join(map(repr, result))}")
    known = [score for score in scores if score is not None]
    if len(known) > 1 and known[0] != known[1]:
        raise ValueError("two scores that differ")
    return known[0] if known else None


def _only(values: Sequence[object]) -> object:
    if len(values) != 1:
        raise ValueError(f"{len(values)} labels, not one logit")
    return values[0]


# vLLM reads the first, Infinity the second, and `onelogit serve` both; SGLang neither, which has no such choice.
_RAW = {"use_activation": False, "raw_scores": True}


def _body(**fields: object) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _rerank_body(request: ScoreRequest, **more: object) -> dict[str, Any]:
    """The fields of Cohere's form, which other servers share; servers ignore fields that they do not know."""
    documents = [each if isinstance(each, str) else each.content() for each in request.documents]
    return _body(model=request.model, query=request.query, documents=documents, return_documents=False, **more)


VLLM_TOKENS = ProtocolSpec(
    name="vllm-tokens",
    path="/classify",
    body=lambda request: _body(model=request.model, input=request.rows, use_activation=not request.raw),
    parse=lambda response: _by_index(response["data"], lambda each: _only(each["probs"])),
    path_hint="the url must be the server's root, and the server must serve this model as a classifier with one label",
    source="vLLM 0.32 /classify (recorded)",
)
_PROTOCOLS = (
    VLLM_TOKENS,
    ProtocolSpec(
        name="rerank",
        path="/v1/rerank",
        body=lambda request: _rerank_body(request, instruction=request.instruction, **(_RAW if request.raw else {})),
        parse=_ranked,
        sends_images=True,
        activated_hosts=("api.cohere.com", "api.cohere.ai", "api.jina.ai", "api.voyageai.com"),
        source="https://docs.cohere.com/reference/rerank and vLLM 0.32 /v1/rerank (recorded)",
    ),
    ProtocolSpec(
        name="tei",
        path="/rerank",
        body=lambda request: _body(
            query=request.query, texts=request.documents, raw_scores=request.raw, truncate=request.truncate
        ),
        parse=_ranked,
        takes_instruction=False,
        needs_model_name=False,
        source="https://huggingface.github.io/text-embeddings-inference, /rerank",
    ),
    ProtocolSpec(
        name="sglang",
        path="/v1/rerank",
        body=lambda request: _rerank_body(request, instruct=request.instruction, **(_RAW if request.raw else {})),
        parse=_ranked,
        source="SGLang 0.5.23, /v1/rerank",
    ),
)
PROTOCOLS: Mapping[Protocol, ProtocolSpec] = {spec.name: spec for spec in _PROTOCOLS}
