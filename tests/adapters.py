"""The three adapters behind one face, so that one contract can be held against all."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from haystack import Document as HaystackDocument
from langchain_core.documents import Document as LangChainDocument
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

from haystack_integrations.components.rankers.onelogit.ranker import OnelogitRanker
from langchain_onelogit import OnelogitRerank as LangChainRerank
from llama_index.postprocessor.onelogit_rerank import OnelogitRerank as LlamaIndexRerank


class Result(NamedTuple):
    """One document that came back."""

    id: str
    text: str
    metadata: dict[str, Any]
    score: float
    logit: float


class Adapter(Protocol):
    """What the contract needs to know of a framework."""

    def make(self, model: str, top: int | None = None, **fields: Any) -> Any: ...

    def documents(self, texts: Sequence[str], metadata: dict[str, Any] | None = None) -> list[Any]: ...

    def run(self, adapter: Any, query: str, documents: list[Any]) -> list[Result]: ...

    async def arun(self, adapter: Any, query: str, documents: list[Any]) -> list[Result]: ...


def _without_logit(metadata: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in metadata.items() if name not in ("relevance_logit", *names)}


class LangChain:
    def make(self, model: str, top: int | None = None, **fields: Any) -> LangChainRerank:
        return LangChainRerank(model=model, top_n=top, **fields)

    def documents(self, texts: Sequence[str], metadata: dict[str, Any] | None = None) -> list[LangChainDocument]:
        return [
            LangChainDocument(page_content=text, id=f"id-{n}", metadata=dict(metadata or {}))
            for n, text in enumerate(texts)
        ]

    def run(self, adapter: LangChainRerank, query: str, documents: list[LangChainDocument]) -> list[Result]:
        return [self._result(document) for document in adapter.compress_documents(documents, query)]

    async def arun(self, adapter: LangChainRerank, query: str, documents: list[LangChainDocument]) -> list[Result]:
        return [self._result(document) for document in await adapter.acompress_documents(documents, query)]

    def _result(self, document: LangChainDocument) -> Result:
        metadata = document.metadata
        score, logit = metadata["relevance_score"], metadata["relevance_logit"]
        return Result(document.id, document.page_content, _without_logit(metadata, "relevance_score"), score, logit)


class LlamaIndex:
    def make(self, model: str, top: int | None = None, **fields: Any) -> LlamaIndexRerank:
        return LlamaIndexRerank(model=model, top_n=top, **fields)

    def documents(self, texts: Sequence[str], metadata: dict[str, Any] | None = None) -> list[NodeWithScore]:
        hidden = list(metadata or {})
        return [
            NodeWithScore(
                node=TextNode(
                    id_=f"id-{n}", text=text, metadata=dict(metadata or {}), excluded_embed_metadata_keys=hidden
                ),
                score=0.5,
            )
            for n, text in enumerate(texts)
        ]

    def run(self, adapter: LlamaIndexRerank, query: str, documents: list[NodeWithScore]) -> list[Result]:
        return [self._result(node) for node in adapter.postprocess_nodes(documents, query_str=query)]

    async def arun(self, adapter: LlamaIndexRerank, query: str, documents: list[NodeWithScore]) -> list[Result]:
        nodes = await adapter.apostprocess_nodes(documents, query_bundle=QueryBundle(query))
        return [self._result(node) for node in nodes]

    def _result(self, scored: NodeWithScore) -> Result:
        node = scored.node
        logit = node.metadata["relevance_logit"]
        return Result(node.node_id, node.text, _without_logit(node.metadata), scored.score, logit)


class Haystack:
    def make(self, model: str, top: int | None = None, **fields: Any) -> OnelogitRanker:
        return OnelogitRanker(model=model, top_k=top, **fields)

    def documents(self, texts: Sequence[str], metadata: dict[str, Any] | None = None) -> list[HaystackDocument]:
        return [HaystackDocument(id=f"id-{n}", content=text, meta=dict(metadata or {})) for n, text in enumerate(texts)]

    def run(self, adapter: OnelogitRanker, query: str, documents: list[HaystackDocument]) -> list[Result]:
        return [self._result(document) for document in adapter.run(query=query, documents=documents)["documents"]]

    async def arun(self, adapter: OnelogitRanker, query: str, documents: list[HaystackDocument]) -> list[Result]:
        answer = await adapter.run_async(query=query, documents=documents)
        return [self._result(document) for document in answer["documents"]]

    def _result(self, document: HaystackDocument) -> Result:
        logit = document.meta["relevance_logit"]
        return Result(document.id, document.content or "", _without_logit(document.meta), document.score, logit)


ADAPTERS: list[Adapter] = [LangChain(), LlamaIndex(), Haystack()]
