"""All adapters behind one interface, so that one contract can test them all."""

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol

from haystack import Document as HaystackDocument
from haystack import Pipeline
from haystack.utils import Secret
from langchain_core.documents import Document as LangChainDocument
from langchain_core.load import dumps, loads
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

from haystack_integrations.components.rankers.onelogit.ranker import OnelogitRanker
from langchain_onelogit import OnelogitRerank as LangChainRerank
from llama_index.postprocessor.onelogit_rerank import OnelogitRerank as LlamaIndexRerank

ADDED_FIELDS = ("relevance_score", "relevance_logit", "retrieval_score")
OLD_SCORE = 0.5


class Result(NamedTuple):
    """One returned document; the logit is None if it was not ranked."""

    id: str
    text: str
    metadata: dict[str, Any]
    score: float | None
    logit: float | None


class Adapter(Protocol):
    """What the contract tests need from a framework."""

    kind: Any
    has_call_options: bool  # whether a call accepts options
    names: ClassVar[dict[str, str]]  # field names in the framework, if they differ from the usual ones

    def documents(
        self, texts: Sequence[str], metadata: dict[str, Any] | None = None, ids: Sequence[str] | None = None
    ) -> list[Any]: ...

    def call(self, adapter: Any, query: str, documents: Any) -> list[Any]: ...  # the framework's documents

    def run(self, adapter: Any, query: str, documents: Iterable[Any], **overrides: Any) -> list[Result]: ...

    async def arun(self, adapter: Any, query: str, documents: Iterable[Any], **overrides: Any) -> list[Result]: ...

    async def awarm_up(self, adapter: Any) -> None: ...

    def dumped(self, adapter: Any) -> str: ...

    def loaded(self, text: str) -> Any: ...

    def secret(self, name: str, value: str) -> Any: ...


def make(framework: Adapter, model: str, top: int | None = None, **fields: Any) -> Any:
    """Create an adapter from fields with their usual names."""
    return framework.kind(model=model, **renamed(framework, top_n=top, **fields))


def renamed(framework: Adapter, **fields: Any) -> dict[str, Any]:
    return {framework.names.get(name, name): value for name, value in fields.items()}


def _original(metadata: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in metadata.items() if name not in ADDED_FIELDS}


def _ids(texts: Sequence[str], ids: Sequence[str] | None) -> Sequence[str]:
    return [f"id-{n}" for n in range(len(texts))] if ids is None else ids


class LangChain:
    kind = LangChainRerank
    has_call_options = True
    names: ClassVar = {}

    def documents(
        self, texts: Sequence[str], metadata: dict[str, Any] | None = None, ids: Sequence[str] | None = None
    ) -> list[LangChainDocument]:
        return [
            LangChainDocument(page_content=text, id=id, metadata=dict(metadata or {}))
            for id, text in zip(_ids(texts, ids), texts, strict=True)
        ]

    def call(self, adapter: LangChainRerank, query: str, documents: Any) -> list[Any]:
        return adapter.compress_documents(documents, query)

    def run(
        self, adapter: LangChainRerank, query: str, documents: Iterable[LangChainDocument], **overrides: Any
    ) -> list[Result]:
        return [self._result(document) for document in adapter.compress_documents(documents, query, **overrides)]

    async def arun(
        self, adapter: LangChainRerank, query: str, documents: Iterable[LangChainDocument], **overrides: Any
    ) -> list[Result]:
        return [self._result(document) for document in await adapter.acompress_documents(documents, query, **overrides)]

    def _result(self, document: LangChainDocument) -> Result:
        added = [document.metadata.get(name) for name in ADDED_FIELDS[:2]]
        return Result(document.id, document.page_content, _original(document.metadata), *added)

    async def awarm_up(self, adapter: LangChainRerank) -> None:
        await adapter.awarm_up()

    def dumped(self, adapter: LangChainRerank) -> str:
        return dumps(adapter)

    def loaded(self, text: str) -> LangChainRerank:
        return loads(text, allowed_objects=[LangChainRerank], valid_namespaces=["langchain_onelogit"])

    def secret(self, name: str, value: str) -> str:
        return value


class LlamaIndex:
    kind = LlamaIndexRerank
    has_call_options = False
    names: ClassVar = {"progress": "show_progress"}

    def documents(
        self, texts: Sequence[str], metadata: dict[str, Any] | None = None, ids: Sequence[str] | None = None
    ) -> list[NodeWithScore]:
        hidden = list(metadata or {})
        return [
            NodeWithScore(
                node=TextNode(id_=id, text=text, metadata=dict(metadata or {}), excluded_embed_metadata_keys=hidden),
                score=OLD_SCORE,
            )
            for id, text in zip(_ids(texts, ids), texts, strict=True)
        ]

    def call(self, adapter: LlamaIndexRerank, query: str, documents: Any) -> list[Any]:
        return adapter.postprocess_nodes(documents, query_str=query)

    def run(self, adapter: LlamaIndexRerank, query: str, documents: Iterable[NodeWithScore]) -> list[Result]:
        return [self._result(node) for node in adapter.postprocess_nodes(documents, query_str=query)]

    async def arun(self, adapter: LlamaIndexRerank, query: str, documents: Iterable[NodeWithScore]) -> list[Result]:
        nodes = await adapter.apostprocess_nodes(documents, query_bundle=QueryBundle(query))
        return [self._result(node) for node in nodes]

    def _result(self, scored: NodeWithScore) -> Result:
        node = scored.node
        return Result(
            node.node_id, node.text, _original(node.metadata), scored.score, node.metadata.get("relevance_logit")
        )

    async def awarm_up(self, adapter: LlamaIndexRerank) -> None:
        await adapter.awarm_up()

    def dumped(self, adapter: LlamaIndexRerank) -> str:
        return adapter.to_json()

    def loaded(self, text: str) -> LlamaIndexRerank:
        return LlamaIndexRerank.from_json(text)

    def secret(self, name: str, value: str) -> str:
        return value


class Haystack:
    kind = OnelogitRanker
    has_call_options = True
    names: ClassVar = {"top_n": "top_k", "progress": "progress_bar"}

    def documents(
        self, texts: Sequence[str], metadata: dict[str, Any] | None = None, ids: Sequence[str] | None = None
    ) -> list[HaystackDocument]:
        return [
            HaystackDocument(id=id, content=text, meta=dict(metadata or {}))
            for id, text in zip(_ids(texts, ids), texts, strict=True)
        ]

    def call(self, adapter: OnelogitRanker, query: str, documents: Any) -> list[Any]:
        return adapter.run(query=query, documents=documents)["documents"]

    def run(
        self, adapter: OnelogitRanker, query: str, documents: Iterable[HaystackDocument], **overrides: Any
    ) -> list[Result]:
        answer = adapter.run(query=query, documents=documents, **renamed(self, **overrides))
        return [self._result(document) for document in answer["documents"]]

    async def arun(
        self, adapter: OnelogitRanker, query: str, documents: Iterable[HaystackDocument], **overrides: Any
    ) -> list[Result]:
        answer = await adapter.run_async(query=query, documents=documents, **renamed(self, **overrides))
        return [self._result(document) for document in answer["documents"]]

    def _result(self, document: HaystackDocument) -> Result:
        logit = document.meta.get("relevance_logit")
        return Result(document.id, document.content or "", _original(document.meta), document.score, logit)

    async def awarm_up(self, adapter: OnelogitRanker) -> None:
        await adapter.warm_up_async()

    def dumped(self, adapter: OnelogitRanker) -> str:
        pipeline = Pipeline()
        pipeline.add_component("ranker", OnelogitRanker.from_dict(adapter.to_dict()))
        return pipeline.dumps()

    def loaded(self, text: str) -> OnelogitRanker:
        return Pipeline.loads(text).get_component("ranker")

    def secret(self, name: str, value: str) -> Secret:
        return Secret.from_env_var(name)


ADAPTERS: list[Adapter] = [LangChain(), LlamaIndex(), Haystack()]
