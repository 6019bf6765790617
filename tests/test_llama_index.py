"""LlamaIndex's own ways: behind the retriever of a query engine, and as plain data."""

import pytest
from llama_index.core import Settings, SummaryIndex
from llama_index.core.llms import MockLLM
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import MetadataMode, NodeWithScore, TextNode

from llama_index.postprocessor.onelogit_rerank import OnelogitRerank
from onelogit import DEMO_MODEL, InputError

QUERY = "What is the capital of China?"
NODES = [
    TextNode(text="Bananas are yellow.", id_="banana"),
    TextNode(text="The capital of France is Paris.", id_="paris"),
    TextNode(text="Beijing is the capital of China.", id_="beijing"),
]


@pytest.fixture
def engine() -> RetrieverQueryEngine:
    Settings.llm = MockLLM()
    rerank = OnelogitRerank(model=DEMO_MODEL, top_n=2)
    engine = SummaryIndex(NODES).as_query_engine(node_postprocessors=[rerank])
    assert isinstance(engine, RetrieverQueryEngine)
    return engine


def test_it_reranks_in_a_query_engine(engine: RetrieverQueryEngine):
    response = engine.query(QUERY)

    assert [node.node_id for node in response.source_nodes] == ["beijing", "paris"]


async def test_it_reranks_in_an_async_query_engine(engine: RetrieverQueryEngine):
    response = await engine.aquery(QUERY)

    assert [node.node_id for node in response.source_nodes] == ["beijing", "paris"]


def test_the_logit_is_out_of_sight_of_models():
    nodes = [NodeWithScore(node=node) for node in NODES]

    (best,) = OnelogitRerank(model=DEMO_MODEL, top_n=1).postprocess_nodes(nodes, query_str=QUERY)

    assert "relevance_logit" in best.node.metadata
    for mode in (MetadataMode.LLM, MetadataMode.EMBED):
        assert best.node.get_content(mode) == "Beijing is the capital of China."


def test_metadata_for_embedding_are_part_of_the_text():
    titled = TextNode(text="It is Beijing.", metadata={"title": "The capital of China"})
    nodes = [NodeWithScore(node=TextNode(text="It is Beijing.")), NodeWithScore(node=titled)]

    ranked = OnelogitRerank(model=DEMO_MODEL).postprocess_nodes(nodes, query_str=QUERY)

    assert ranked[0].node.metadata["title"] == "The capital of China"


def test_a_missing_query_is_an_error():
    with pytest.raises(InputError, match="needs a query"):
        OnelogitRerank(model=DEMO_MODEL).postprocess_nodes([NodeWithScore(node=NODES[0])])


def test_it_is_plain_data_and_back():
    rerank = OnelogitRerank(model="org/model", top_n=3, instruction="Find it.", options={"dtype": "bfloat16"})

    copy = OnelogitRerank.from_dict(rerank.to_dict())

    assert rerank.to_dict()["class_name"] == OnelogitRerank.class_name() == "OnelogitRerank"
    assert copy.to_dict() == rerank.to_dict()
    assert BaseNodePostprocessor in OnelogitRerank.__mro__
