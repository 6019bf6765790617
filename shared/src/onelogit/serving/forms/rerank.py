"""The forms of Cohere (v1 and v2), Jina, vLLM and SGLang for ranking the documents of a query."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar, NotRequired

from pydantic import Field, model_validator
from typing_extensions import TypedDict

from onelogit.errors import InputError
from onelogit.ranking import rank_logits
from onelogit.serving.forms.body import (
    InstructedBody,
    Limit,
    Query,
    Texts,
    TextsOrObjects,
    Usage,
    created_now,
    json_type,
    usage_of,
)
from onelogit.serving.served_model import ServedModel
from onelogit.serving.work import ScoredWork, ScoringWork

_DOCUMENTS_A_UNIT = 100


class RerankedText(TypedDict):
    """A document of an answer."""

    text: str


class RerankResult(TypedDict):
    """One document: its index in the request, its score, and its raw logit."""

    index: int
    relevance_score: float
    logit: float
    document: NotRequired[RerankedText]


class ApiVersion(TypedDict):
    """The version of Cohere's form."""

    version: str


class BilledUnits(TypedDict):
    """Cohere's unit of price: a query with up to 100 documents."""

    search_units: int


class RerankMeta(TypedDict):
    """What Cohere's SDK reads beside the results. LangChain4j's fails without `billed_units`."""

    api_version: ApiVersion
    billed_units: BilledUnits
    warnings: NotRequired[list[str]]


class RerankAnswer(TypedDict):
    """Documents from most to least relevant."""

    id: str
    object: str
    created: int
    model: str
    results: list[RerankResult]
    usage: Usage
    meta: RerankMeta


class RerankBody(InstructedBody):
    """A query and documents to rank.

    Sources: https://docs.cohere.com/v1/reference/rerank, https://api.jina.ai/redoc, vLLM 0.32 /rerank (recorded);
    `object` is infinity-client's, which accepts no other.
    """

    api_version: ClassVar[str] = "1"

    query: Query
    documents: TextsOrObjects
    top_n: Limit = Field(None, description="return at most this many documents; by default all")
    return_documents: bool | None = Field(None, description="return the documents' texts, too")

    @model_validator(mode="before")
    @classmethod
    def _check_rank_fields(cls, content: Mapping[str, Any]) -> Mapping[str, Any]:
        """Cohere's SDK v1 may name the fields of documents that are objects; how Cohere joins several is not known."""
        fields, documents = content.get("rank_fields"), content.get("documents")
        has_objects = isinstance(documents, list) and any(isinstance(each, dict) for each in documents)
        if has_objects and fields is not None and fields != ["text"]:
            given = repr(fields)[:100] if isinstance(fields, list) else json_type(fields)
            raise InputError(
                f"rank_fields must be ['text'], not {given}; join the fields to be ranked into one text, and send that"
            )
        return content

    def work(self) -> ScoringWork:
        """Each document with the query."""
        return ScoringWork(
            pairs=[(self.query, document) for document in self.documents],
            instruction=self.instruction,
            max_tokens_per_document=self.max_tokens_per_doc,
        )

    def answer(self, scored: ScoredWork, served: ServedModel, request_id: str) -> RerankAnswer:
        """The best documents first; equal logits keep the order of the request."""
        meta: RerankMeta = {
            "api_version": {"version": self.api_version},
            "billed_units": {"search_units": math.ceil(len(self.documents) / _DOCUMENTS_A_UNIT)},
        }
        if scored.truncated_count:
            count = f"{scored.truncated_count} of {len(self.documents)} documents"
            meta["warnings"] = [f"{count} were truncated to fit the model's {served.max_tokens} tokens"]
        return {
            "id": request_id,
            "object": "rerank",
            "created": created_now(),
            "model": served.name,
            "results": [
                self._result(index, logit, served)
                for index, logit, _ in rank_logits(scored.logits, served.activation, self.top_n)
            ],
            "usage": usage_of(scored),
            "meta": meta,
        }

    def _result(self, index: int, logit: float, served: ServedModel) -> RerankResult:
        score = served.score_of(logit, index, is_raw=self.is_raw)
        result: RerankResult = {"index": index, "relevance_score": score, "logit": logit}
        if self.return_documents:
            result["document"] = {"text": self.documents[index]}
        return result


class RerankV2Body(RerankBody):
    """A query and documents to rank; the documents are strings.

    Source: https://docs.cohere.com/reference/rerank.
    """

    api_version: ClassVar[str] = "2"

    documents: Texts
