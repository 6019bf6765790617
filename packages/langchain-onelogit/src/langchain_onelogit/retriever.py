"""A retriever -> a retriever that reranks its documents, with options per call."""

from typing import Annotated, Any

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import Runnable
from pydantic import BeforeValidator, ConfigDict, model_validator
from typing_extensions import Unpack

from langchain_onelogit.compressor import OnelogitRerank
from onelogit import InputError
from onelogit.adapters import RankOptions, check_names, checked_top_n

_OTHER_NAMES = {"base_retriever": "retriever", "base_compressor": "rerank"}


class RerankRetriever(BaseRetriever):
    """Reranks the documents of another retriever. `invoke` accepts `top_n`, `score_threshold` and `instruction`, too.

    Its dump can be loaded if that of its retriever can.

    Attributes:
        retriever: finds the documents; any runnable from a query to documents. Also given as `base_retriever`.
        rerank: orders them. Also given as `base_compressor`, as in `ContextualCompressionRetriever`.
        top_n: return at most this many documents; None for as many as `rerank` returns.
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    retriever: Runnable[str, Any]
    rerank: OnelogitRerank
    top_n: Annotated[int | None, BeforeValidator(checked_top_n)] = None

    @property
    def base_retriever(self) -> Runnable[str, Any]:
        """The retriever."""
        return self.retriever

    @property
    def base_compressor(self) -> OnelogitRerank:
        """The compressor that orders the documents."""
        return self.rerank

    @classmethod
    def is_lc_serializable(cls) -> bool:
        return True

    @model_validator(mode="before")
    @classmethod
    def _rename(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        fields = [*cls.model_fields, *_OTHER_NAMES]
        check_names(given, fields, is_call=True)
        for other, name in _OTHER_NAMES.items():
            if other in given and name in given:
                raise InputError(f"{name} is given twice, also as {other}; leave one out")
        return {_OTHER_NAMES.get(name, name): value for name, value in given.items()}

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
