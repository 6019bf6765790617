"""The form of vLLM for prompts that the client wrote and tokenised: token ids -> the probability or logit of each."""

from typing import Annotated

from pydantic import Field, PlainValidator, WithJsonSchema
from typing_extensions import TypedDict

from onelogit.errors import InputError
from onelogit.serving.forms.body import ListFields, ScoringBody, json_type, list_fields
from onelogit.serving.served_model import ServedModel
from onelogit.serving.work import ScoredWork, ScoringWork


def _checked_rows(value: object) -> list[list[int]]:
    if not isinstance(value, list):
        raise InputError(f"input must be a list of lists of token ids, not {json_type(value)}; /rerank takes texts")
    if not value:
        raise InputError("input is empty; it must have at least one list of token ids")
    rows = value if isinstance(value[0], list) else [value]
    for index, row in enumerate(rows):
        if not isinstance(row, list):
            raise InputError(f"input[{index}] must be a list of token ids, not {json_type(row)}; /rerank takes texts")
        wrong = next((each for each in row if type(each) is not int), 0)
        if type(wrong) is not int:
            raise InputError(f"input[{index}] must have token ids only, not {json_type(wrong)}; /rerank takes texts")
    return rows


_ROW_SCHEMA = {"type": "array", "items": {"type": "integer"}, "minItems": 1}

Rows = Annotated[
    list[list[int]],
    PlainValidator(_checked_rows),
    WithJsonSchema({"anyOf": [_ROW_SCHEMA, {"type": "array", "items": _ROW_SCHEMA, "minItems": 1}]}),
]


class Classification(TypedDict):
    """One prompt: its index in the request, its only score in `probs`, and its raw logit."""

    index: int
    label: str
    probs: list[float]
    num_classes: int
    logit: float


class ClassifyAnswer(ListFields):
    """The scores, in the order of the request."""

    data: list[Classification]


class ClassifyBody(ScoringBody):
    """Whole prompts as token ids: the form of RemoteReranker's default protocol.

    Source: vLLM 0.32 /classify (recorded).
    """

    input: Rows = Field(description="the token ids of each prompt")

    def work(self) -> ScoringWork:
        """The prompts as they are."""
        return ScoringWork(rows=self.input)

    def answer(self, scored: ScoredWork, served: ServedModel, request_id: str) -> ClassifyAnswer:
        """One label for each prompt."""
        data: list[Classification] = [
            {
                "index": index,
                "label": "LABEL_0",
                "probs": [served.score_of(logit, index, is_raw=self.is_raw)],
                "num_classes": 1,
                "logit": logit,
            }
            for index, logit in enumerate(scored.logits)
        ]
        return {**list_fields(scored, served, request_id), "data": data}
