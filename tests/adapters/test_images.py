"""Images of the frameworks' documents: each adapter sends them to a server, and gives back the documents."""

import asyncio
import base64
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from haystack import Document as HaystackDocument
from haystack import Pipeline
from haystack.dataclasses import ByteStream, ImageContent
from langchain_core.documents import Document as LangChainDocument
from langchain_core.load import dumps, loads
from langchain_core.messages.content import create_image_block
from llama_index.core.schema import (
    ImageDocument,
    ImageNode,
    MediaResource,
    MetadataMode,
    Node,
    NodeWithScore,
    QueryBundle,
    TextNode,
)

from haystack_integrations.components.rankers.onelogit import OnelogitRanker
from langchain_onelogit import OnelogitRerank as LangChainRerank
from llama_index.postprocessor.onelogit_rerank import OnelogitRerank as LlamaIndexRerank
from onelogit import InputError, RemoteReranker, Reranker
from support.image_server import ImageServer, image
from support.servers import FakeServer, Server, serving
from support.tiny import Tiny

QUERY = "What is the capital of China?"
SHADES = [200, 30, None, 90, 250]
TEXTS = ["", "서울", "Beijing.", "No.", ""]


def base64_of(shade: int) -> str:
    return base64.b64encode(image(shade)).decode()


@pytest.fixture
def server(reranker: Reranker) -> Iterator[Server]:
    with serving(ImageServer(fake=FakeServer(reranker=reranker))) as server:
        yield server


@pytest.fixture
def expected(reranker: Reranker) -> list[float]:
    """The logits of `TEXTS` with images of `SHADES`."""
    return [logit + (shade or 0) / 1000 for logit, shade in zip(reranker.logits(QUERY, TEXTS), SHADES, strict=True)]


def remote(server: Server) -> dict[str, Any]:
    return {
        "model": "tiny",
        "url": server.url,
        "protocol": "rerank",
        "options": {"template": "server", "activation": "identity"},
    }


def llama_index_nodes(folder: Path) -> list[NodeWithScore]:
    file = folder / "image.png"
    file.write_bytes(image(30))
    nodes = [
        ImageNode(image=base64_of(200)),
        ImageNode(text="서울", image_path=str(file), metadata={"hidden": 1}, excluded_embed_metadata_keys=["hidden"]),
        TextNode(text="Beijing."),
        Node(text_resource=MediaResource(text="No."), image_resource=MediaResource(data=image(90))),
        ImageDocument(image=base64_of(250)),
    ]
    return [NodeWithScore(node=node, score=0.5) for node in nodes]


def haystack_documents() -> list[HaystackDocument]:
    return [
        HaystackDocument(blob=ByteStream(image(200), mime_type="image/png")),
        HaystackDocument(content="서울", blob=ByteStream(image(30))),
        HaystackDocument(content="Beijing.", blob=ByteStream(b"%PDF-1.7", mime_type="application/pdf")),
        HaystackDocument(content="No.", meta={"picture": ImageContent(base64_of(90))}),
        HaystackDocument(meta={"picture": [ByteStream(image(250), mime_type="image/png")]}),
    ]


def langchain_documents(folder: Path) -> list[LangChainDocument]:
    file = folder / "image.png"
    file.write_bytes(image(250))
    block = create_image_block(base64=base64_of(30), mime_type="image/png")
    openai = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{base64_of(90)}"}}
    return [
        LangChainDocument(page_content="", metadata={"picture": base64_of(200)}),
        LangChainDocument(page_content="서울", metadata={"picture": dict(block)}),
        LangChainDocument(page_content="Beijing.", metadata={"picture": None}),
        LangChainDocument(page_content="No.", metadata={"picture": [{"type": "text", "text": "x"}, openai]}),
        LangChainDocument(page_content="", metadata={"picture": file}),
    ]


def ranking(expected: list[float]) -> list[int]:
    return sorted(range(len(expected)), key=lambda index: -expected[index])


def test_llama_index_sends_the_images_of_nodes(server: Server, expected: list[float], tmp_path: Path):
    nodes = llama_index_nodes(tmp_path)
    rerank = LlamaIndexRerank(**remote(server))

    for result in (
        rerank.postprocess_nodes(nodes, query_str=QUERY),
        asyncio.run(rerank.apostprocess_nodes(nodes, QueryBundle(QUERY))),
    ):
        assert [each.node_id for each in result] == [nodes[index].node_id for index in ranking(expected)]
        assert [each.score for each in result] == pytest.approx(sorted(expected, reverse=True), abs=1e-5)
    assert LlamaIndexRerank.from_dict({**rerank.to_dict(), "read_images": False}).read_images is False


def test_haystack_sends_the_images_of_documents(server: Server, expected: list[float]):
    documents = haystack_documents()
    ranker = OnelogitRanker(**remote(server), image_meta_fields=["picture"])

    for result in (ranker.run(QUERY, documents), asyncio.run(ranker.run_async(QUERY, documents))):
        assert [each.id for each in result["documents"]] == [documents[index].id for index in ranking(expected)]
        logits = [each.meta["relevance_logit"] for each in result["documents"]]
        assert logits == pytest.approx(sorted(expected, reverse=True), abs=1e-5)
    pipeline = Pipeline()
    pipeline.add_component("ranker", ranker)
    assert Pipeline.loads(pipeline.dumps()).get_component("ranker").image_meta_fields == ["picture"]


def test_langchain_sends_the_images_in_metadata(server: Server, expected: list[float], tmp_path: Path):
    documents = langchain_documents(tmp_path)
    rerank = LangChainRerank(**remote(server), image_fields=["picture"], deduplicate=True)

    for result in (
        rerank.compress_documents(documents, QUERY),
        asyncio.run(rerank.acompress_documents(documents, QUERY)),
    ):
        assert [each.page_content for each in result] == [TEXTS[index] for index in ranking(expected)]
        logits = [each.metadata["relevance_logit"] for each in result]
        assert logits == pytest.approx(sorted(expected, reverse=True), abs=1e-5)
    relevance = rerank.rerank(documents, QUERY)
    assert [each["index"] for each in relevance] == ranking(expected)
    copied = loads(dumps(rerank), allowed_objects=[LangChainRerank], valid_namespaces=["langchain_onelogit"])
    assert copied.image_fields == ["picture"]


Call = Callable[[dict[str, Any], Path], list[Any]]
CALLS: dict[str, Call] = {
    "llama_index": lambda fields, folder: LlamaIndexRerank(**fields).postprocess_nodes(
        llama_index_nodes(folder), query_str=QUERY
    ),
    "haystack": lambda fields, folder: OnelogitRanker(**fields).run(QUERY, haystack_documents())["documents"],
    "langchain": lambda fields, folder: LangChainRerank(**fields, image_fields=["picture"]).compress_documents(
        langchain_documents(folder), QUERY
    ),
}


@pytest.mark.parametrize("framework", CALLS)
def test_a_local_model_refuses_images_and_names_the_way(framework: str, tiny_qwen: Tiny, tmp_path: Path):
    with pytest.raises(InputError, match="serve the model with vLLM.*read_images=False"):
        CALLS[framework]({"model": str(tiny_qwen.folder)}, tmp_path)
    kept = CALLS[framework]({"model": str(tiny_qwen.folder), "on_error": "keep_order"}, tmp_path)
    assert len(kept) == 5


@pytest.mark.parametrize("framework", ["llama_index", "haystack"])
def test_texts_alone_are_ranked_on_request(framework: str, tiny_qwen: Tiny, reranker: Reranker, tmp_path: Path):
    result = CALLS[framework]({"model": str(tiny_qwen.folder), "read_images": False}, tmp_path)

    scores = sorted((each.score for each in reranker.rank(QUERY, TEXTS)), reverse=True)
    assert [each.score for each in result] == pytest.approx(scores, abs=1e-5)


def test_metadata_of_langchain_is_no_image_unless_it_is_named(tiny_qwen: Tiny):
    document = LangChainDocument(page_content="a", metadata={"image_url": "https://a/b.png", "image": base64_of(3)})

    assert LangChainRerank(model=str(tiny_qwen.folder)).compress_documents([document], QUERY)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("/etc/passwd", r"pass a pathlib\.Path for a file"),
        ("file:///etc/passwd", r"pass a pathlib\.Path for a file"),
        (3, "must be bytes, a Path, or a string, not int"),
        ({"type": "video", "url": "https://a/b.mp4"}, "a content block must be a text, or an image"),
        ({"type": "image", "file_id": "abc"}, "a content block must be a text, or an image"),
        (b"%PDF-1.7", "not an image in one of the formats"),
    ],
)
def test_what_is_no_image_is_an_error_or_keeps_the_order(value: Any, message: str, server: Server):
    documents = [LangChainDocument(page_content="a", metadata={"picture": value}), LangChainDocument(page_content="b")]
    fields = {**remote(server), "image_fields": ["picture"], "deduplicate": True}

    with pytest.raises(InputError, match=message):
        LangChainRerank(**fields).compress_documents(documents, QUERY)
    kept = LangChainRerank(**fields, on_error="keep_order").compress_documents(documents, QUERY)
    assert [each.page_content for each in kept] == ["a", "b"]
    relevance = LangChainRerank(**fields, on_error="keep_order").rerank(documents, QUERY)
    assert [each["index"] for each in relevance] == [0, 1]


def test_a_missing_file_of_a_node_is_named(server: Server, tmp_path: Path):
    node = NodeWithScore(node=ImageNode(text="a", image_path=str(tmp_path / "gone.png")))

    with pytest.raises(InputError, match=r"image 0 cannot be read from .*gone\.png: No such file"):
        LlamaIndexRerank(**remote(server)).postprocess_nodes([node], query_str=QUERY)


def test_the_metadata_mode_counts_beside_images(server: Server):
    node = NodeWithScore(node=ImageNode(text="a", image=base64_of(3), metadata={"title": "b"}))

    LlamaIndexRerank(**remote(server), metadata_mode=MetadataMode.ALL).postprocess_nodes([node], query_str=QUERY)

    (document,) = server.requests.bodies[-1]["documents"]
    assert document["content"][1]["text"] == "title: b\n\na"


def test_an_image_of_a_web_address_is_fetched_by_the_server_only(server: Server):
    node = NodeWithScore(node=ImageNode(image_url="https://example.invalid/a.png"))

    LlamaIndexRerank(**remote(server)).postprocess_nodes([node], query_str=QUERY)

    (document,) = server.requests.bodies[-1]["documents"]
    assert document == {"content": [{"type": "image_url", "image_url": {"url": "https://example.invalid/a.png"}}]}


@pytest.mark.parametrize("framework", ["llama_index", "haystack"])
def test_a_local_model_reads_the_caption_beside_an_image(framework: str, tiny_qwen: Tiny, reranker: Reranker):
    if framework == "llama_index":
        node = NodeWithScore(node=ImageNode(text="a", image=base64_of(3)))
        (result,) = LlamaIndexRerank(model=str(tiny_qwen.folder)).postprocess_nodes([node], query_str=QUERY)
    else:
        document = HaystackDocument(content="a", blob=ByteStream(image(3), mime_type="image/png"))
        (result,) = OnelogitRanker(str(tiny_qwen.folder)).run(QUERY, [document])["documents"]

    assert result.score == pytest.approx(reranker.rank(QUERY, ["a"])[0].score, abs=1e-5)


@pytest.mark.parametrize("is_given", [False, True])
@pytest.mark.parametrize("adapter", [LlamaIndexRerank, OnelogitRanker])
def test_a_server_gets_the_image_beside_a_caption_wherever_it_is_named(adapter: Any, is_given: bool, server: Server):
    if is_given:
        rerank = adapter.from_reranker(RemoteReranker(server.url, "tiny", protocol="rerank", template="server"))
    else:
        rerank = adapter(model="tiny", protocol="rerank", options={"template": "server", "url": server.url})

    if adapter is LlamaIndexRerank:
        node = NodeWithScore(node=ImageNode(text="a", image=base64_of(3)))
        rerank.postprocess_nodes([node], query_str=QUERY)
    else:
        rerank.run(QUERY, [HaystackDocument(content="a", blob=ByteStream(image(3), mime_type="image/png"))])

    (document,) = server.requests.bodies[-1]["documents"]
    assert [part["type"] for part in document["content"]] == ["image_url", "text"]
