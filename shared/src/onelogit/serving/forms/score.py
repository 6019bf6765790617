"""The form of vLLM for the scores of pairs, in the order of the request."""

from typing import Annotated

from pydantic import AliasChoices, Field, PlainValidator, WithJsonSchema
from pydantic_core.core_schema import ValidationInfo
from typing_extensions import TypedDict

from onelogit.errors import InputError
from onelogit.serving.forms.body import InstructedBody, ListFields, checked_texts, list_fields
from onelogit.serving.served_model import ServedModel
from onelogit.serving.work import ScoredWork, ScoringWork
from onelogit.validation import checked_text


def _one_or_more(value: object, info: ValidationInfo) -> str | list[str]:
    name = str(info.field_name)
    return checked_texts([value], name)[0] if isinstance(value, str) else checked_texts(value, name)


OneOrMore = Annotated[
    str | list[str],
    PlainValidator(_one_or_more),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}),
]


class PairScore(TypedDict):
    """One pair: its index in the request, its score, and its raw logit."""

    index: int
    object: str
    score: float
    logit: float


class ScoreAnswer(ListFields):
    """The scores, in the order of the request."""

    data: list[PairScore]


class ScoreBody(InstructedBody):
    """One text with one or more others, or as many texts with as many others.

    Source: vLLM 0.32 /score (recorded), which has these names: text_1, queries or data_1; text_2, documents, items or
    data_2.
    """

    text_1: OneOrMore = Field(
        validation_alias=AliasChoices("text_1", "queries", "data_1"), description="the query or queries; also queries"
    )
    text_2: OneOrMore = Field(
        validation_alias=AliasChoices("text_2", "documents", "items", "data_2"),
        description="the document or documents; also documents",
    )

    def work(self) -> ScoringWork:
        """One query with each document, or each query with its document."""
        queries = [self.text_1] if isinstance(self.text_1, str) else self.text_1
        documents = [self.text_2] if isinstance(self.text_2, str) else self.text_2
        if len(queries) not in (1, len(documents)):
            raise InputError(
                f"there are {len(queries)} queries and {len(documents)} documents; give one query, or as many as "
                "documents"
            )
        queries = [checked_text(query, f"query {i}", is_blank_allowed=False) for i, query in enumerate(queries)]
        queries = queries * len(documents) if len(queries) == 1 else queries
        return ScoringWork(
            pairs=[*zip(queries, documents, strict=True)],
            instruction=self.instruction,
            max_tokens_per_document=self.max_tokens_per_doc,
        )

    def answer(self, scored: ScoredWork, served: ServedModel, request_id: str) -> ScoreAnswer:
        """One score for each pair."""
        data: list[PairScore] = [
            {
                "index": index,
                "object": "score",
                "score": served.score_of(logit, index, is_raw=self.is_raw),
                "logit": logit,
            }
            for index, logit in enumerate(scored.logits)
        ]
        return {**list_fields(scored, served, request_id), "data": data}
