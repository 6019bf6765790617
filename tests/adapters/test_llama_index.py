"""The LlamaIndex adapter: engines, events, prompts and serialisation."""

import pickle
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest
from llama_index.core import Settings, SummaryIndex
from llama_index.core.bridge.pydantic import Field
from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload, LlamaDebugHandler
from llama_index.core.chat_engine import ContextChatEngine
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events import BaseEvent
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.instrumentation.span_handlers import SimpleSpanHandler
from llama_index.core.llms import MockLLM
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.query_engine import CitationQueryEngine, RetrieverQueryEngine
from llama_index.core.retrievers import BaseRetriever, QueryFusionRetriever
from llama_index.core.retrievers.fusion_retriever import FUSION_MODES
from llama_index.core.schema import (
    BaseNode,
    Document,
    ImageNode,
    IndexNode,
    MediaResource,
    MetadataMode,
    Node,
    NodeWithScore,
    QueryBundle,
    TextNode,
)

from llama_index.postprocessor.onelogit_rerank import OnelogitRerank
from onelogit import DEMO_MODEL, CheckpointError, InputError
from support.tiny import Tiny

QUERY = "What is the capital of China?"
NODES = [
    TextNode(text="Bananas are yellow.", id_="banana"),
    TextNode(text="The capital of France is Paris.", id_="paris"),
    TextNode(text="Beijing is the capital of China.", id_="beijing"),
]


class EventRecorder(BaseEventHandler):
    """Records reranking events, in order."""

    events: list[Any] = Field(default_factory=list)

    def handle(self, event: BaseEvent, **kwargs: Any) -> None:
        if isinstance(event, ReRankStartEvent | ReRankEndEvent):
            self.events.append(event)


@pytest.fixture
def recorder() -> Iterator[EventRecorder]:
    dispatcher, handler = get_dispatcher(), EventRecorder()
    before = list(dispatcher.event_handlers)
    dispatcher.add_event_handler(handler)
    yield handler
    dispatcher.event_handlers = before


@pytest.fixture
def index() -> SummaryIndex:
    Settings.llm = MockLLM()
    return SummaryIndex(NODES)


@pytest.fixture
def rerank() -> OnelogitRerank:
    return OnelogitRerank(model=DEMO_MODEL, top_n=2)


def scored() -> list[NodeWithScore]:
    return [NodeWithScore(node=node, score=0.5) for node in NODES]


def ids(nodes: list[NodeWithScore]) -> list[str]:
    return [node.node_id for node in nodes]


def test_it_reranks_in_a_query_engine(index: SummaryIndex, rerank: OnelogitRerank):
    engine = index.as_query_engine(node_postprocessors=[rerank])
    assert isinstance(engine, RetrieverQueryEngine)

    assert ids(engine.query(QUERY).source_nodes) == ["beijing", "paris"]


async def test_it_reranks_in_an_async_query_engine(index: SummaryIndex, rerank: OnelogitRerank):
    response = await index.as_query_engine(node_postprocessors=[rerank]).aquery(QUERY)

    assert ids(response.source_nodes) == ["beijing", "paris"]


async def test_it_reranks_in_a_chat_engine(index: SummaryIndex, rerank: OnelogitRerank):
    engine = ContextChatEngine.from_defaults(index.as_retriever(), node_postprocessors=[rerank])

    for response in (engine.chat(QUERY), await engine.achat(QUERY)):
        assert ids(response.source_nodes) == ["beijing", "paris"]


def test_it_reranks_in_a_citation_engine(index: SummaryIndex, rerank: OnelogitRerank):
    engine = CitationQueryEngine.from_args(index, node_postprocessors=[rerank])

    assert "Beijing" in engine.query(QUERY).source_nodes[0].text


def test_two_rerankers_can_be_chained(rerank: OnelogitRerank, tiny_qwen: Tiny):
    first = OnelogitRerank(model=str(tiny_qwen.folder)).postprocess_nodes(scored(), query_str=QUERY)

    second = rerank.postprocess_nodes(first, query_str=QUERY)

    assert ids(second) == ["beijing", "paris"]
    assert second[0].node.metadata["retrieval_score"] == next(n.score for n in first if n.node_id == "beijing")


@pytest.mark.parametrize("top_n", [None, 1])
async def test_both_event_systems_receive_events(recorder: EventRecorder, top_n: int | None):
    debug = LlamaDebugHandler(print_trace_on_end=False)
    rerank = OnelogitRerank(model=DEMO_MODEL, top_n=top_n, callback_manager=CallbackManager([debug]))

    nodes = await rerank.apostprocess_nodes(scored(), query_str=QUERY)

    start, end = recorder.events
    assert (start.query.query_str, start.top_n, start.model_name) == (QUERY, top_n or 3, DEMO_MODEL)
    assert ids(start.nodes) == ["banana", "paris", "beijing"]
    assert end.nodes == nodes
    ((begun, ended),) = debug.get_event_pairs(CBEventType.RERANKING)
    assert begun.payload[EventPayload.QUERY_STR] == QUERY
    assert begun.payload[EventPayload.MODEL_NAME] == DEMO_MODEL
    assert begun.payload[EventPayload.TOP_K] == (top_n or 3)
    assert ended.payload[EventPayload.NODES] == nodes


@pytest.mark.parametrize(
    ("model", "nodes", "query", "error"),
    [
        (DEMO_MODEL, [], QUERY, None),
        (DEMO_MODEL, scored(), None, InputError),
        ("no-such/model", scored(), QUERY, CheckpointError),
    ],
    ids=["no nodes", "no query", "no model"],
)
def test_every_start_event_has_an_end_event(
    recorder: EventRecorder, model: str, nodes: list[NodeWithScore], query: str | None, error: type[Exception] | None
):
    debug = LlamaDebugHandler(print_trace_on_end=False)
    rerank = OnelogitRerank(model=model, callback_manager=CallbackManager([debug]))

    if error is None:
        assert rerank.postprocess_nodes(nodes, query_str=query) == []
    else:
        with pytest.raises(error):
            rerank.postprocess_nodes(nodes, query_str=query)

    assert [type(event) for event in recorder.events] == [ReRankStartEvent, ReRankEndEvent]
    assert recorder.events[1].nodes == []
    assert len(debug.get_event_pairs(CBEventType.RERANKING)) == 1


def test_each_call_is_a_span(rerank: OnelogitRerank):
    dispatcher, spans = get_dispatcher(), SimpleSpanHandler()
    before = list(dispatcher.span_handlers)
    dispatcher.add_span_handler(spans)
    try:
        rerank.postprocess_nodes(scored(), query_str=QUERY)
    finally:
        dispatcher.span_handlers = before

    assert any("OnelogitRerank._postprocess_nodes" in span.id_ for span in spans.completed_spans)


class FixedNodes(BaseRetriever):
    """Returns the same nodes for every query, reranked if a reranker is given."""

    def __init__(self, nodes: list[BaseNode], rerank: OnelogitRerank | None = None) -> None:
        self.nodes, self.rerank = nodes, rerank
        super().__init__()

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        nodes = [NodeWithScore(node=node, score=1 - n / 10) for n, node in enumerate(self.nodes)]
        return nodes if self.rerank is None else self.rerank.postprocess_nodes(nodes, query_bundle)


@pytest.mark.parametrize("mode", FUSION_MODES)
def test_fusion_counts_a_reranked_node_as_the_node_that_it_was(mode: FUSION_MODES):
    banana, paris, beijing = NODES
    retrievers = [FixedNodes([banana, beijing]), FixedNodes([paris, beijing], OnelogitRerank(model=DEMO_MODEL))]
    fusion = QueryFusionRetriever(retrievers, MockLLM(), mode=mode, num_queries=1, similarity_top_k=3, use_async=False)

    nodes = fusion.retrieve(QUERY)

    assert sorted(ids(nodes)) == ["banana", "beijing", "paris"]
    if mode is FUSION_MODES.RECIPROCAL_RANK:
        assert nodes[0].node_id == "beijing"
        assert nodes[0].score == pytest.approx(1 / 61 + 1 / 60)


MANY_KINDS: list[BaseNode] = [
    *NODES,
    TextNode(text="", metadata={"title": "Empty"}),
    Node(text_resource=MediaResource(text="Beijing"), metadata={"title": "Atlas", "page": 7}),
    Document(text="Paris", metadata={"title": "Atlas"}, excluded_llm_metadata_keys=["title"]),
    ImageNode(text="A map", image_path="map.png", metadata={"retrieval_score": 0.25}),
    IndexNode(text="An index", index_id="index", obj=NODES[0], metadata={"relevance_logit": 9.0}),
]


@pytest.mark.parametrize("node", MANY_KINDS, ids=lambda node: node.class_name())
def test_a_reranked_node_cannot_be_told_from_the_node_that_it_was(node: BaseNode):
    given = NodeWithScore(node=node)
    before = deepcopy(given)

    (once,) = OnelogitRerank(model=DEMO_MODEL).postprocess_nodes([given], query_str=QUERY)
    (twice,) = OnelogitRerank(model=DEMO_MODEL).postprocess_nodes([once], query_str=QUERY)

    assert given == before
    assert twice.node.metadata["retrieval_score"] == once.score
    for ranked in (once, twice, deepcopy(once), once.model_copy(), pickle.loads(pickle.dumps(once))):
        assert ranked.node == node
        assert ranked.node.hash == node.hash
        assert ranked.node.to_dict() == node.to_dict()
        assert [ranked.get_content(mode) for mode in MetadataMode] == [node.get_content(mode) for mode in MetadataMode]
    for ranked in (once, twice, deepcopy(once), once.model_copy()):
        assert "relevance_logit" in ranked.metadata
        assert ranked.metadata["relevance_logit"] == once.metadata.get("relevance_logit") != 9.0
        assert ranked.metadata.get("retrieval_score", "missing") in (None, once.score)
        assert ranked.metadata.get("author", "missing") == "missing"


def test_logit_and_retrieval_score_are_hidden_from_models(rerank: OnelogitRerank):
    (best, _) = rerank.postprocess_nodes(scored(), query_str=QUERY)

    assert best.node.metadata["retrieval_score"] == 0.5
    assert "relevance_logit" in best.node.metadata
    for mode in (MetadataMode.LLM, MetadataMode.EMBED):
        assert best.node.get_content(mode) == "Beijing is the capital of China."


def test_the_metadata_mode_decides_which_metadata_is_scored():
    hidden = ["source"]
    with_title = TextNode(
        text="It is Beijing.",
        metadata={"title": "The capital of China", "source": "atlas"},
        excluded_embed_metadata_keys=hidden,
    )
    nodes = [NodeWithScore(node=with_title)]

    def logit(mode: MetadataMode) -> float:
        rerank = OnelogitRerank(model=DEMO_MODEL, metadata_mode=mode)
        return rerank.postprocess_nodes(nodes, query_str=QUERY)[0].node.metadata["relevance_logit"]

    def logit_of(text: str) -> float:
        (node,) = OnelogitRerank(model=DEMO_MODEL).postprocess_nodes(
            [NodeWithScore(node=TextNode(text=text))], query_str=QUERY
        )
        return node.node.metadata["relevance_logit"]

    assert logit(MetadataMode.NONE) == logit_of("It is Beijing.")
    assert logit(MetadataMode.EMBED) == logit_of("title: The capital of China\n\nIt is Beijing.")
    assert logit(MetadataMode.ALL) == logit_of("title: The capital of China\nsource: atlas\n\nIt is Beijing.")


def test_an_image_is_scored_by_its_caption():
    picture = ImageNode(text="A map of Beijing, the capital of China.", image_path="map.png", id_="map")

    ranked = OnelogitRerank(model=DEMO_MODEL).postprocess_nodes(
        [*scored()[:1], NodeWithScore(node=picture)], query_str=QUERY
    )

    assert ids(ranked) == ["map", "banana"]


def test_a_missing_query_is_an_error(rerank: OnelogitRerank):
    with pytest.raises(InputError, match="needs a query"):
        rerank.postprocess_nodes(scored())


def test_it_can_be_converted_to_a_dictionary_and_back():
    rerank = OnelogitRerank(model="org/model", top_n=3, instruction="Find it.", options={"max_tokens": 512})

    assert OnelogitRerank.from_dict(rerank.to_dict()).to_dict() == rerank.to_dict()
    assert rerank.to_dict()["class_name"] == OnelogitRerank.class_name() == "OnelogitRerank"
    assert BaseNodePostprocessor in OnelogitRerank.__mro__
