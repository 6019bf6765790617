"""Measure a Haystack pipeline with and without a reranker.

python examples/haystack_before_after.py [--model Qwen/Qwen3-Reranker-0.6B]
"""

from before_after import compare, parse, read_passages
from haystack import Document, Pipeline
from haystack.components.retrievers.in_memory import InMemoryBM25Retriever
from haystack.document_stores.in_memory import InMemoryDocumentStore

from haystack_integrations.components.rankers.onelogit import OnelogitRanker


def build_pipeline(model: str | None) -> Pipeline:
    """A pipeline with a retriever and, if a model is given, a ranker."""
    store = InMemoryDocumentStore()
    store.write_documents([Document(id=id, content=text) for id, text in read_passages().items()])
    pipeline = Pipeline()
    pipeline.add_component("retriever", InMemoryBM25Retriever(store, top_k=10))
    if model is not None:
        pipeline.add_component("ranker", OnelogitRanker(model=model, top_k=10))
        pipeline.connect("retriever.documents", "ranker.documents")
    return pipeline


def ids(pipeline: Pipeline, last: str, question: str) -> list[str]:
    """The ids of the documents that the component `last` returns."""
    inputs = {name: {"query": question} for name in ("retriever", last)}
    return [document.id for document in pipeline.run(inputs)[last]["documents"]]


def main() -> None:
    model = parse(__doc__).model
    before, after = build_pipeline(None), build_pipeline(model)
    compare(
        "Haystack",
        model,
        lambda question: ids(before, "retriever", question),
        lambda question: ids(after, "ranker", question),
    )


if __name__ == "__main__":
    main()
