"""LangChain's own ways: inside the retriever that its users have."""

import pytest
from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_classic.retrievers.document_compressors import DocumentCompressorPipeline
from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever

from langchain_onelogit import OnelogitRerank
from onelogit import DEMO_MODEL

QUERY = "What is the capital of China?"
DOCUMENTS = [
    Document(page_content="Bananas are yellow.", id="banana"),
    Document(page_content="The capital of France is Paris.", id="paris"),
    Document(page_content="Beijing is the capital of China.", id="beijing"),
]


class AllDocuments(BaseRetriever):
    def _get_relevant_documents(self, query: str, *, run_manager: CallbackManagerForRetrieverRun) -> list[Document]:
        return DOCUMENTS


@pytest.fixture
def retriever() -> ContextualCompressionRetriever:
    return ContextualCompressionRetriever(
        base_compressor=OnelogitRerank(model=DEMO_MODEL, top_n=2), base_retriever=AllDocuments()
    )


def test_it_reranks_in_a_contextual_compression_retriever(retriever: ContextualCompressionRetriever):
    documents = retriever.invoke(QUERY)

    assert [document.id for document in documents] == ["beijing", "paris"]
    assert documents[0].metadata["relevance_score"] > documents[1].metadata["relevance_score"]


async def test_it_reranks_in_an_async_chain(retriever: ContextualCompressionRetriever):
    assert [document.id for document in await retriever.ainvoke(QUERY)] == ["beijing", "paris"]


def test_it_stands_in_a_compressor_pipeline():
    pipeline = DocumentCompressorPipeline(transformers=[OnelogitRerank(model=DEMO_MODEL, top_n=1)])

    assert [document.id for document in pipeline.compress_documents(DOCUMENTS, QUERY)] == ["beijing"]
