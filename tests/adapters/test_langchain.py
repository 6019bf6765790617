"""The LangChain adapter: retrievers, chains, tools, trace events and serialisation."""

import pickle
import threading
from copy import deepcopy
from typing import Any
from uuid import UUID

import pytest
from langchain_classic.retrievers import ContextualCompressionRetriever, MultiQueryRetriever
from langchain_classic.retrievers.document_compressors import DocumentCompressorPipeline
from langchain_core.callbacks import (
    AsyncCallbackManagerForRetrieverRun,
    BaseCallbackHandler,
    CallbackManagerForRetrieverRun,
)
from langchain_core.documents import Document
from langchain_core.language_models import FakeListChatModel
from langchain_core.load import dumpd
from langchain_core.messages import AIMessage
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import ConfigurableField, RunnableLambda, RunnablePassthrough
from langchain_core.tools import create_retriever_tool
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode

from langchain_onelogit import OnelogitRerank, RerankRetriever
from onelogit import DEMO_MODEL, InputError, Reranker
from support.tiny import Tiny

QUERY = "What is the capital of China?"
DOCUMENTS = [
    Document(page_content="Bananas are yellow.", id="banana"),
    Document(page_content="The capital of France is Paris.", id="paris"),
    Document(page_content="Beijing is the capital of China.", id="beijing"),
]


class AllDocuments(BaseRetriever):
    def _get_relevant_documents(self, query: str, *, run_manager: CallbackManagerForRetrieverRun) -> list[Document]:
        return DOCUMENTS


class Events(BaseCallbackHandler):
    """Records trace events: started runs with the names of their parents, outputs and errors."""

    def __init__(self) -> None:
        self.names: dict[UUID, str] = {}
        self.starts: list[tuple[str, str | None]] = []
        self.outputs: dict[str, Any] = {}
        self.errors: list[str] = []

    def _start(self, run_id: UUID, parent_run_id: UUID | None, name: str) -> None:
        self.names[run_id] = name
        self.starts.append((name, None if parent_run_id is None else self.names[parent_run_id]))

    def on_chain_start(
        self, serialized: Any, inputs: Any, *, run_id: UUID, parent_run_id: UUID | None = None, **kwargs: Any
    ) -> None:
        self._start(run_id, parent_run_id, kwargs["name"])

    def on_retriever_start(
        self, serialized: Any, query: str, *, run_id: UUID, parent_run_id: UUID | None = None, **kwargs: Any
    ) -> None:
        self._start(run_id, parent_run_id, kwargs["name"])

    def on_chain_end(self, outputs: Any, *, run_id: UUID, **kwargs: Any) -> None:
        self.outputs[self.names[run_id]] = outputs

    def on_chain_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        self.errors.append(self.names[run_id])


def ids(documents: list[Document]) -> list[str | None]:
    return [document.id for document in documents]


@pytest.fixture
def rerank() -> OnelogitRerank:
    return OnelogitRerank(model=DEMO_MODEL, top_n=2)


@pytest.fixture
def retriever(rerank: OnelogitRerank) -> ContextualCompressionRetriever:
    return ContextualCompressionRetriever(base_compressor=rerank, base_retriever=AllDocuments())


def test_it_reranks_in_a_contextual_compression_retriever(retriever: ContextualCompressionRetriever):
    documents = retriever.invoke(QUERY)

    assert ids(documents) == ["beijing", "paris"]
    assert documents[0].metadata["relevance_score"] > documents[1].metadata["relevance_score"]


async def test_it_reranks_in_an_async_chain(retriever: ContextualCompressionRetriever):
    assert ids(await retriever.ainvoke(QUERY)) == ["beijing", "paris"]


def test_a_call_can_configure_another_reranker(retriever: ContextualCompressionRetriever):
    configurable = retriever.configurable_fields(base_compressor=ConfigurableField(id="rerank"))

    documents = configurable.invoke(QUERY, {"configurable": {"rerank": OnelogitRerank(model=DEMO_MODEL, top_n=1)}})

    assert ids(documents) == ["beijing"]


def test_it_reranks_in_a_compressor_pipeline():
    pipeline = DocumentCompressorPipeline(transformers=[OnelogitRerank(model=DEMO_MODEL, top_n=1)])

    assert ids(list(pipeline.compress_documents(DOCUMENTS, QUERY))) == ["beijing"]


def test_a_retriever_accepts_options_with_each_call(rerank: OnelogitRerank, tiny_qwen: Tiny):
    retriever = RerankRetriever(retriever=AllDocuments(), rerank=rerank)
    scores = [document.metadata["relevance_score"] for document in retriever.invoke(QUERY)]
    other = RerankRetriever(retriever=AllDocuments(), rerank=OnelogitRerank(model=str(tiny_qwen.folder)))
    logits = [document.metadata["relevance_logit"] for document in other.invoke(QUERY)]

    assert len(scores) == 2
    assert len(retriever.invoke(QUERY, top_n=3)) == 3
    assert ids(retriever.invoke(QUERY, score_threshold=scores[0])) == ["beijing"]
    assert logits != [
        document.metadata["relevance_logit"] for document in other.invoke(QUERY, instruction="Find lies.")
    ]


def test_the_retrievers_top_n_overrides_the_rerankers(rerank: OnelogitRerank):
    retriever = RerankRetriever(retriever=AllDocuments(), rerank=rerank, top_n=1)

    assert ids(retriever.invoke(QUERY)) == ["beijing"]
    assert len(retriever.invoke(QUERY, top_n=3)) == 3


class AsyncDocuments(AllDocuments):
    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun
    ) -> list[Document]:
        return DOCUMENTS[:2]


async def test_a_retriever_awaits_its_retriever_and_loads_the_model_in_a_thread(monkeypatch: pytest.MonkeyPatch):
    threads = []
    load = Reranker.load
    note = lambda *args, **options: (threads.append(threading.current_thread()), load(*args, **options))[1]  # noqa: E731
    monkeypatch.setattr(Reranker, "load", note)
    rerank = OnelogitRerank(model=DEMO_MODEL, options={"batch_tokens": 20_001})
    retriever = RerankRetriever(retriever=AsyncDocuments(), rerank=rerank)

    documents = await retriever.ainvoke(QUERY)

    assert ids(documents) == ["paris", "banana"]
    assert [thread is threading.main_thread() for thread in threads] == [False]


async def test_a_retriever_can_be_awaited(rerank: OnelogitRerank):
    retriever = RerankRetriever(retriever=AllDocuments(), rerank=rerank)

    assert ids(await retriever.ainvoke(QUERY, top_n=1)) == ["beijing"]


def test_a_retriever_refuses_unknown_options(rerank: OnelogitRerank):
    with pytest.raises(InputError, match="topn"):
        RerankRetriever(retriever=AllDocuments(), rerank=rerank).invoke(QUERY, topn=1)
    with pytest.raises(ValueError, match="topn"):
        RerankRetriever(retriever=AllDocuments(), rerank=rerank, topn=1)


def test_any_runnable_can_be_the_retriever(rerank: OnelogitRerank):
    retriever = RerankRetriever(retriever=RunnableLambda(lambda query: DOCUMENTS), rerank=rerank)

    assert ids(retriever.invoke(QUERY)) == ["beijing", "paris"]


def test_it_can_be_a_step_of_a_chain(rerank: OnelogitRerank):
    chain = {"query": RunnablePassthrough(), "documents": AllDocuments()} | rerank.as_runnable()

    assert ids(chain.invoke(QUERY)) == ["beijing", "paris"]


def test_a_step_accepts_options_with_each_call(rerank: OnelogitRerank):
    documents = rerank.as_runnable().invoke({"query": QUERY, "documents": DOCUMENTS, "top_n": 1})

    assert ids(documents) == ["beijing"]


def test_it_can_be_a_tool_of_an_agent(rerank: OnelogitRerank):
    retriever = RerankRetriever(retriever=AllDocuments(), rerank=rerank, top_n=1)
    tool = create_retriever_tool(retriever, "search", "Searches the atlas.")
    call = {"name": "search", "args": {"query": QUERY}, "id": "1", "type": "tool_call"}

    graph = StateGraph(MessagesState).add_node("tools", ToolNode([tool])).add_edge(START, "tools").compile()

    answer = graph.invoke({"messages": [AIMessage("", tool_calls=[call])]})["messages"][-1]

    assert answer.content == "Beijing is the capital of China."


def test_reranking_is_a_trace_event_under_its_parent(retriever: ContextualCompressionRetriever):
    events = Events()

    documents = retriever.invoke(QUERY, {"callbacks": [events]})

    assert ("OnelogitRerank", "ContextualCompressionRetriever") in events.starts
    assert events.outputs["OnelogitRerank"] == documents


async def test_reranking_is_a_trace_event_in_async_chains(rerank: OnelogitRerank):
    events = Events()
    retriever = RerankRetriever(retriever=AllDocuments(), rerank=rerank)

    documents = await retriever.ainvoke(QUERY, {"callbacks": [events]})

    assert events.starts == [
        ("RerankRetriever", None),
        ("AllDocuments", "RerankRetriever"),
        ("OnelogitRerank", "RerankRetriever"),
    ]
    assert events.outputs["OnelogitRerank"] == documents


def test_an_error_ends_its_trace_event():
    events = Events()

    with pytest.raises(InputError):
        OnelogitRerank(model=DEMO_MODEL).compress_documents(DOCUMENTS, " ", callbacks=[events])

    assert events.errors == ["OnelogitRerank"]


def test_metadata_is_scored_with_the_text():
    with_title = Document(page_content="It is Beijing.", metadata={"title": "The capital of China", "year": None})
    plain = Document(page_content="It is Beijing.")
    whole = Document(page_content="The capital of China: It is Beijing.")
    rerank = OnelogitRerank(model=DEMO_MODEL, metadata_fields=["title", "year", "author"], metadata_separator=": ")

    ranked = rerank.compress_documents([plain, with_title, whole], QUERY)

    logits = {
        document.page_content + str("title" in document.metadata): document.metadata["relevance_logit"]
        for document in ranked
    }
    assert logits["It is Beijing.True"] == logits["The capital of China: It is Beijing.False"]
    assert logits["It is Beijing.False"] != logits["It is Beijing.True"]


def test_without_ids_documents_with_the_same_text_are_duplicates():
    documents = [Document(page_content="No."), Document(page_content="No."), Document(page_content="No.", id="x")]

    assert len(OnelogitRerank(model=DEMO_MODEL, deduplicate=True).compress_documents(documents, QUERY)) == 2


def test_merged_queries_keep_one_of_a_document_with_several_scores(rerank: OnelogitRerank):
    retriever = RerankRetriever(retriever=AllDocuments(), rerank=rerank, top_n=3)
    llm = FakeListChatModel(responses=["Where is Beijing?\nWhat colour are bananas?\nWhat is in France?"])

    documents = MultiQueryRetriever.from_llm(retriever, llm).invoke(QUERY)

    assert sorted(document.id or "" for document in documents) == ["banana", "beijing", "paris"]


def test_a_ranked_document_equals_the_same_document_with_other_scores_only(rerank: OnelogitRerank):
    given = Document(page_content="Paris", metadata={"page": 1, "relevance_score": 0.5})
    (ranked,) = rerank.compress_documents([given], QUERY)
    (other,) = rerank.compress_documents([ranked], "What is yellow?")

    assert ranked.metadata["relevance_logit"] != other.metadata["relevance_logit"]
    for copied in (ranked, other, deepcopy(ranked), pickle.loads(pickle.dumps(ranked))):
        assert copied == ranked == given == copied
        assert copied != Document(page_content="Paris", metadata={"page": 2})
        assert copied != Document(page_content="London", metadata={"page": 1})
        assert ranked.model_dump()["metadata"].keys() == {"page", "relevance_score", "relevance_logit"}


def test_an_id_equal_to_a_text_is_not_a_duplicate():
    documents = [Document(page_content="Beijing is the capital of China.", id="No."), Document(page_content="No.")]

    assert len(OnelogitRerank(model=DEMO_MODEL, deduplicate=True).compress_documents(documents, QUERY)) == 2


def test_a_step_refuses_an_input_without_documents(rerank: OnelogitRerank):
    with pytest.raises(InputError, match="needs a dictionary with query and documents"):
        rerank.as_runnable().invoke({"query": QUERY})


def test_a_dump_names_the_secret_and_contains_what_differs_from_the_defaults():
    rerank = OnelogitRerank(model="org/model", top_n=3, token="hf_secret", options={"max_tokens": 512})

    dumped = dumpd(rerank)

    assert dumped["id"] == ["langchain_onelogit", "compressor", "OnelogitRerank"]
    assert dumped["kwargs"] == {
        "model": "org/model",
        "top_n": 3,
        "options": {"max_tokens": 512},
        "token": {"lc": 1, "type": "secret", "id": ["HF_TOKEN"]},
        "metadata_separator": "\n",
        "on_error": "raise",
    }


def test_a_document_whose_text_is_none_is_a_clear_error():
    document = Document(page_content="a")
    document.page_content = None  # type: ignore[assignment]

    with pytest.raises(InputError, match="the text of a document must be a string, not NoneType"):
        OnelogitRerank(model=DEMO_MODEL, metadata_fields=["title"]).compress_documents([document], "q")
