"""Measure a LlamaIndex query engine with and without a reranker.

python examples/llama_index_before_after.py [--model Qwen/Qwen3-Reranker-0.6B]
"""

from before_after import compare, embed, parse, read_passages
from llama_index.core import VectorStoreIndex
from llama_index.core.embeddings import BaseEmbedding
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import BaseQueryEngine
from llama_index.core.schema import TextNode

from llama_index.postprocessor.onelogit_rerank import OnelogitRerank


class LetterEmbedding(BaseEmbedding):
    """Stands in for your embedding model."""

    def _get_text_embedding(self, text: str) -> list[float]:
        return embed(text)

    def _get_query_embedding(self, query: str) -> list[float]:
        return embed(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return embed(query)


def build_index() -> VectorStoreIndex:
    nodes = [TextNode(id_=id, text=text) for id, text in read_passages().items()]
    return VectorStoreIndex(nodes, embed_model=LetterEmbedding())


def ids(engine: BaseQueryEngine, question: str) -> list[str]:
    return [node.node_id for node in engine.query(question).source_nodes]


def main() -> None:
    model = parse(__doc__).model
    index = build_index()
    # Only the source nodes are measured, so the language model can be a mock that repeats the prompt.
    options = {"similarity_top_k": 10, "llm": MockLLM()}
    before = index.as_query_engine(**options)
    after = index.as_query_engine(**options, node_postprocessors=[OnelogitRerank(model=model, top_n=10)])
    compare("LlamaIndex", model, lambda question: ids(before, question), lambda question: ids(after, question))


if __name__ == "__main__":
    main()
