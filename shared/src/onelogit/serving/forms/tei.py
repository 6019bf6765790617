"""The form of Text Embeddings Inference for ranking texts."""

from typing import ClassVar, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from onelogit.ranking import rank_logits
from onelogit.serving.forms.body import InstructedBody, Limit, Query, Texts
from onelogit.serving.served_model import ServedModel
from onelogit.serving.work import ScoredWork, ScoringWork


class TeiResult(TypedDict):
    """One text: its index in the request, its score, and its raw logit."""

    index: int
    score: float
    logit: float
    text: NotRequired[str]


class TeiBody(InstructedBody):
    """A query and texts to rank; the answer is a list, best first.

    Source: https://huggingface.github.io/text-embeddings-inference, /rerank.
    """

    has_plain_errors: ClassVar[bool] = True

    query: Query
    texts: Texts
    top_n: Limit = Field(None, description="return at most this many texts; not of TEI, but of its clients")
    return_text: bool | None = Field(None, description="return the texts, too")
    truncate: bool | None = Field(None, description="false: refuse the request if a text is too long")
    truncation_direction: Literal["right", "Right"] | None = Field(None, description="only ends are cut")

    def work(self) -> ScoringWork:
        """Each text with the query."""
        return ScoringWork(
            pairs=[(self.query, text) for text in self.texts],
            instruction=self.instruction,
            max_tokens_per_document=self.max_tokens_per_doc,
            may_truncate=self.truncate is not False,
        )

    def answer(self, scored: ScoredWork, served: ServedModel, request_id: str) -> list[TeiResult]:
        """The best texts first; equal logits keep the order of the request."""
        del request_id  # this form has no place for it
        ranking = rank_logits(scored.logits, served.activation, self.top_n)
        return [self._result(index, logit, served) for index, logit, _ in ranking]

    def _result(self, index: int, logit: float, served: ServedModel) -> TeiResult:
        score = served.score_of(logit, index, is_raw=self.is_raw)
        result: TeiResult = {"index": index, "score": score, "logit": logit}
        if self.return_text:
            result["text"] = self.texts[index]
        return result
