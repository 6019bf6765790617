"""Measure a LangChain retriever with and without a reranker.

python examples/langchain_before_after.py [--model Qwen/Qwen3-Reranker-0.6B]
"""

from before_after import compare, embed, parse, read_passages
from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_core.embeddings import Embeddings
from langchain_core.retrievers import BaseRetriever
from langchain_core.vectorstores import InMemoryVectorStore

from langchain_onelogit import OnelogitRerank


class LetterEmbeddings(Embeddings):
    """Stands in for your embedding model."""

    def embed_query(self, text: str) -> list[float]:
        return embed(text)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [embed(text) for text in texts]


def build_retriever() -> BaseRetriever:
    passages = read_passages()
    store = InMemoryVectorStore(LetterEmbeddings())
    store.add_texts(list(passages.values()), ids=list(passages))
    return store.as_retriever(search_kwargs={"k": 10})


def ids(retriever: BaseRetriever, question: str) -> list[str]:
    return [document.id for document in retriever.invoke(question)]


def main() -> None:
    model = parse(__doc__).model
    before = build_retriever()
    after = ContextualCompressionRetriever(base_retriever=before, base_compressor=OnelogitRerank(model=model, top_n=10))
    compare("LangChain", model, lambda question: ids(before, question), lambda question: ids(after, question))


if __name__ == "__main__":
    main()
