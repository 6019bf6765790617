"""Haystack documents -> the same documents, reranked. Translates; the core scores."""

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from haystack import Document, component, default_from_dict, default_to_dict

from onelogit import LoadOptions, Ranked, check_options, check_top_n, open_reranker

if TYPE_CHECKING:
    from onelogit import Reranker


@component
class OnelogitRanker:
    """Reorders documents by a decoder language model's relevance logit.

    Each document that comes back is a copy with the same id: its score is the one on the scale of the model's card,
    and its meta hold the `relevance_logit`, which the order is by.
    """

    def __init__(
        self,
        model: str,
        top_k: int | None = None,
        instruction: str | None = None,
        options: LoadOptions | None = None,
    ) -> None:
        """A ranker that loads its model when it is warmed up, or when the first documents come.

        Args:
            model: hub id or path of a folder.
            top_k: keep this many at most; None for all.
            instruction: what "relevant" means here; None for the model's default.
            options: see `onelogit.LoadOptions`.
        """
        check_top_n(top_k, "top_k")
        check_options(options or {})
        self.model = model
        self.top_k = top_k
        self.instruction = instruction
        self.options = options
        self._reranker: Reranker | None = None

    def warm_up(self) -> None:
        """Load the model."""
        self._open()

    async def warm_up_async(self) -> None:
        """Load the model in a thread: the event loop goes on meanwhile."""
        await asyncio.to_thread(self.warm_up)

    @component.output_types(documents=list[Document])
    def run(
        self, query: str, documents: list[Document], top_k: int | None = None, instruction: str | None = None
    ) -> dict[str, list[Document]]:
        """The most relevant documents first; none for none, without loading the model.

        Args:
            query: what is looked for.
            documents: to reorder; a document without text counts as empty.
            top_k: as in the constructor, for this run.
            instruction: as in the constructor, for this run.
        """
        top_k = self.top_k if top_k is None else top_k
        check_top_n(top_k, "top_k")
        documents = list(documents)
        if not documents:
            return {"documents": []}
        texts = [document.content or "" for document in documents]
        instruction = self.instruction if instruction is None else instruction
        ranking = self._open().rank(query, texts, top_k, instruction=instruction)
        return {"documents": [_with_relevance(documents[ranked.index], ranked) for ranked in ranking]}

    @component.output_types(documents=list[Document])
    async def run_async(
        self, query: str, documents: list[Document], top_k: int | None = None, instruction: str | None = None
    ) -> dict[str, list[Document]]:
        """`run`, in a thread: the event loop goes on meanwhile."""
        return await asyncio.to_thread(self.run, query, documents, top_k, instruction)

    def _open(self) -> "Reranker":
        # The one that is open already, if there is one.
        self._reranker = open_reranker(self.model, **(self.options or LoadOptions()))
        return self._reranker

    def to_dict(self) -> dict[str, Any]:
        """The component as plain data, for a pipeline's YAML."""
        return default_to_dict(
            self, model=self.model, top_k=self.top_k, instruction=self.instruction, options=self.options
        )

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "OnelogitRanker":
        """The component that `to_dict` described."""
        return default_from_dict(cls, data)


def _with_relevance(document: Document, ranked: Ranked) -> Document:
    return replace(document, score=ranked.score, meta={**document.meta, "relevance_logit": ranked.logit})
