"""LangChain's standard tests for retrievers, run on RerankRetriever."""

from langchain_core.documents import Document
from langchain_core.runnables import RunnableLambda
from langchain_tests.integration_tests import RetrieversIntegrationTests

from langchain_onelogit import OnelogitRerank, RerankRetriever
from onelogit import DEMO_MODEL

TEXTS = ["Bananas are yellow.", "Paris is in France.", "Beijing is the capital of China.", "Seoul lies on the Han."]


class TestRerankRetriever(RetrieversIntegrationTests):
    @property
    def retriever_constructor(self) -> type[RerankRetriever]:
        return RerankRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, object]:
        found = RunnableLambda(lambda query: [Document(page_content=text) for text in TEXTS])
        return {"retriever": found, "rerank": OnelogitRerank(model=DEMO_MODEL)}

    @property
    def retriever_query_example(self) -> str:
        return "What is the capital of China?"

    @property
    def num_results_arg_name(self) -> str:
        return "top_n"
