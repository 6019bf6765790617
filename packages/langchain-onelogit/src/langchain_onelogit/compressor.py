"""LangChain documents -> the same documents, reranked. Translates; the core scores."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from langchain_core.callbacks import Callbacks
from langchain_core.documents import BaseDocumentCompressor, Document
from pydantic import ConfigDict, Field, PrivateAttr

from onelogit import LoadOptions, Ranked, open_reranker

if TYPE_CHECKING:
    from onelogit import Reranker


class OnelogitRerank(BaseDocumentCompressor):
    """Reorders documents by a decoder language model's relevance logit.

    Each document that comes back is a copy, with its id, and with two more metadata entries: `relevance_score`, on
    the scale of the model's card, and `relevance_logit`, which the order is by.

    Attributes:
        model: hub id or path of a folder; loaded when the first documents come.
        top_n: keep this many at most; None for all.
        instruction: what "relevant" means here; None for the model's default.
        options: see `onelogit.LoadOptions`.
    """

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    model: str
    top_n: int | None = Field(default=None, ge=1, strict=True)
    instruction: str | None = None
    options: LoadOptions = Field(default_factory=LoadOptions)
    _reranker: "Reranker | None" = PrivateAttr(default=None)

    def compress_documents(
        self,
        documents: Sequence[Document],
        query: str,
        callbacks: Callbacks | None = None,  # noqa: ARG002  the framework's signature
    ) -> list[Document]:
        """The most relevant documents first; none for none, without loading the model."""
        documents = list(documents)
        if not documents:
            return []
        self._reranker = open_reranker(self.model, **self.options)  # the one that is open already, if there is one
        texts = [document.page_content for document in documents]
        ranking = self._reranker.rank(query, texts, top_n=self.top_n, instruction=self.instruction)
        return [_with_relevance(documents[ranked.index], ranked) for ranked in ranking]


def _with_relevance(document: Document, ranked: Ranked) -> Document:
    relevance = {"relevance_score": ranked.score, "relevance_logit": ranked.logit}
    return document.model_copy(update={"metadata": {**document.metadata, **relevance}})
