"""How servers are asked for logits, and how their answers are read: facts with sources, and no connection."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from onelogit.errors import ServerError
from onelogit.options import Protocol

Numbers = Mapping[object, object]  # by index


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreRequest:
    """One request: rows of token ids, or a query and its documents.

    Attributes:
        rows: for `vllm-tokens`; empty for all others.
        query: "" where the documents are whole prompts.
        documents: texts.
        model: the name by which the server knows the model; None where it needs none.
        instruction: for a server that writes prompts; None for none.
        raw: ask for numbers before the server's activation.
    """

    rows: Sequence[Sequence[int]] = ()
    query: str = ""
    documents: Sequence[str] = ()
    model: str | None = None
    instruction: str | None = None
    raw: bool = True

    @property
    def count(self) -> int:
        return len(self.rows) or len(self.documents)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProtocolSpec:
    """One form of request and response.

    Attributes:
        path: behind the server's address.
        build: the body of a request.
        parse: an answer -> numbers by index.
        takes_instruction: whether a server that writes the prompts can be told one.
        source: where this can be checked.
    """

    path: str
    build: Callable[[ScoreRequest], dict[str, Any]]
    parse: Callable[[Any], Numbers]
    takes_instruction: bool
    source: str


def read(protocol_spec: ProtocolSpec, answer: object, count: int) -> list[float]:
    """The numbers of an answer in the order that was asked in: each once, each finite, or nothing is believed.

    Raises:
        ServerError: the answer has another form, lacks an index or has one twice, or a number is not finite.
    """
    try:
        numbers = protocol_spec.parse(answer)
    except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
        raise ServerError(
            f"{protocol_spec.path} answered in another form than {protocol_spec.source} describes: {_short(error)}"
        ) from error
    if set(numbers) != set(range(count)):
        raise ServerError(f"{protocol_spec.path} answered for the indices {_few(numbers)}, not for each of {count}")
    for index, number in numbers.items():
        if not _is_finite(number):
            raise ServerError(
                f"{protocol_spec.path} gave {_plain(number)} for index {index}; is the model's head initialised?"
            )
    return [float(numbers[index]) for index in range(count)]  # type: ignore[arg-type]


def _is_finite(number: object) -> bool:
    try:
        return isinstance(number, int | float) and not isinstance(number, bool) and math.isfinite(number)
    except OverflowError:  # an integer that no float can hold
        return False


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]} ..."


def _plain(value: object) -> str:
    """A number as it is; of all else what kind it is: a server may repeat a key in it."""
    return _short(value) if value is None or isinstance(value, int | float) else f"a {type(value).__name__}"


def _few(numbers: Numbers) -> str:
    shown = sorted(map(_plain, numbers))
    return ", ".join(each[:20] for each in shown[:8]) + (f", ... ({len(shown)})" if len(shown) > 8 else "")


def _by_index(results: Sequence[Mapping[str, Any]], number: Callable[[Mapping[str, Any]], object]) -> Numbers:
    indices = [each["index"] for each in results]
    if len(set(indices)) != len(indices):
        raise ValueError("an index comes twice")
    return {each["index"]: number(each) for each in results}


def _only(values: Sequence[object]) -> object:
    if len(values) != 1:
        raise ValueError(f"{len(values)} labels, not one logit")
    return values[0]


def _given(**fields: object) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _of_texts(ask: ScoreRequest, **more: object) -> dict[str, Any]:
    """What Cohere's form and its kin have in common; servers leave aside what they do not know."""
    texts = list(ask.documents)
    return _given(model=ask.model, query=ask.query, documents=texts, return_documents=False, **more)


PROTOCOLS: Mapping[Protocol, ProtocolSpec] = {
    "vllm-tokens": ProtocolSpec(
        path="/classify",
        build=lambda ask: _given(model=ask.model, input=[*map(list, ask.rows)], use_activation=not ask.raw),
        parse=lambda answer: _by_index(answer["data"], lambda each: _only(each["probs"])),
        takes_instruction=True,
        source="vLLM 0.32's /classify, recorded",
    ),
    "rerank": ProtocolSpec(
        path="/v1/rerank",
        # vLLM's word for raw numbers, and Infinity's; each leaves the other's aside.
        build=lambda ask: _of_texts(
            ask, instruction=ask.instruction, **({"use_activation": False, "raw_scores": True} if ask.raw else {})
        ),
        parse=lambda answer: _by_index(answer["results"], lambda each: each["relevance_score"]),
        takes_instruction=True,
        source="https://docs.cohere.com/reference/rerank and vLLM 0.32's /v1/rerank, recorded",
    ),
    "tei": ProtocolSpec(
        path="/rerank",
        build=lambda ask: _given(query=ask.query, texts=list(ask.documents), raw_scores=ask.raw, truncate=False),
        parse=lambda answer: _by_index(answer, lambda each: each["score"]),
        takes_instruction=False,
        source="https://huggingface.github.io/text-embeddings-inference, /rerank",
    ),
    "sglang": ProtocolSpec(
        path="/v1/rerank",
        build=lambda ask: _of_texts(ask, instruct=ask.instruction),
        parse=lambda answer: _by_index(answer, lambda each: each["score"]),
        takes_instruction=True,
        source="SGLang 0.5.23, /v1/rerank",
    ),
}
