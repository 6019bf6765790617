"""A retriever -> a retriever that reranks its documents, with options per call."""

from typing import Annotated, Any

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import Runnable
from pydantic import BeforeValidator, ConfigDict
from typing_extensions import Unpack

from langchain_onelogit.compressor import OnelogitRerank
from onelogit.adapters import RankOptions, checked_top_n


class RerankRetriever(BaseRetriever):
    """Reranks the documents of another retriever. `invoke` accepts `top_n`, `score_threshold` and `instruction`, too.

    Attributes:
        retriever: finds the documents; any runnable from a query to documents.
        rerank: orders them.
        top_n: return at most this many documents; None for as many as `rerank` returns.
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    retriever: Runnable[str, Any]
    rerank: OnelogitRerank
    top_n: Annotated[int | None, BeforeValidator(checked_top_n)] = None

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, **overrides: Unpack[RankOptions]
    ) -> list[Document]:
        callbacks = run_manager.get_child()
        documents = self.retriever.invoke(query, {"callbacks": callbacks})
        return self.rerank.compress_documents(documents, query, callbacks, **self._with_top_n(overrides))

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, **overrides: Unpack[RankOptions]
    ) -> list[Document]:
        callbacks = run_manager.get_child()
        documents = await self.retriever.ainvoke(query, {"callbacks": callbacks})
        return await self.rerank.acompress_documents(documents, query, callbacks, **self._with_top_n(overrides))

    def _with_top_n(self, overrides: RankOptions) -> RankOptions:
        return overrides if overrides.get("top_n") is not None else {**overrides, "top_n": self.top_n}
