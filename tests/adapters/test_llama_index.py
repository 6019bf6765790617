"""The LlamaIndex adapter: engines, events, prompts and serialisation."""

from collections.abc import Iterator
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
from llama_index.core.prompts import PromptTemplate
from llama_index.core.query_engine import CitationQueryEngine, RetrieverQueryEngine
from llama_index.core.schema import ImageNode, MetadataMode, NodeWithScore, TextNode

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


def test_the_instruction_is_a_prompt_that_can_be_shown_and_changed(rerank: OnelogitRerank):
    assert rerank.get_prompts()["instruction"].get_template() == ""
    rerank.update_prompts(rerank.get_prompts())
    assert rerank.instruction is None

    rerank.update_prompts({"instruction": PromptTemplate("Find {lies}.")})

    assert rerank.instruction == "Find {lies}."
    assert rerank.get_prompts()["instruction"].get_template() == "Find {lies}."


def test_it_can_be_converted_to_a_dictionary_and_back():
    rerank = OnelogitRerank(model="org/model", top_n=3, instruction="Find it.", options={"max_tokens": 512})

    assert OnelogitRerank.from_dict(rerank.to_dict()).to_dict() == rerank.to_dict()
    assert rerank.to_dict()["class_name"] == OnelogitRerank.class_name() == "OnelogitRerank"
    assert BaseNodePostprocessor in OnelogitRerank.__mro__
