"""Documents with images: a server in vLLM's form gets and decodes them; whatever cannot send them says so."""

import asyncio
import base64
import os
from pathlib import Path
from typing import Any

import pytest

from onelogit import ContentDocument, InputError, RemoteReranker, Reranker, ServerError
from onelogit import contents as contents_module
from onelogit.remote import request_builder
from support.image_server import ImageServer, image
from support.servers import FakeServer, serving

QUERY = "What is the capital of China?"
SERVER: dict[str, Any] = {"protocol": "rerank", "template": "server", "activation": "identity"}
FORMATS = ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"]


def data_url(content: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def part(url: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def text(content: str) -> dict[str, Any]:
    return {"type": "text", "text": content}


def test_documents_with_and_without_images_are_scored_together(local: Reranker):
    documents = [
        "Beijing.",
        [part(data_url(image(200)))],
        ContentDocument.of("서울", image(30)),
        {"content": [text("No."), part(data_url(image(90))), part(data_url(image(10)))]},
        [text("only"), text("texts")],
        [part("https://example.com/a.png"), text("A web address.")],
        "",
    ]
    texts = ["Beijing.", "", "서울", "No.", "only\ntexts", "A web address.", ""]
    more = [0.0, 0.2, 0.03, 0.1, 0.0, 0.007, 0.0]
    expected = [logit + each for logit, each in zip(local.logits(QUERY, texts), more, strict=True)]

    with serving(ImageServer(fake=FakeServer(reranker=local))) as server:
        with RemoteReranker(server.url, **SERVER, pairs_a_request=3) as remote:
            assert remote.logits(QUERY, documents) == pytest.approx(expected, abs=1e-5)
            assert remote.pair_logits([(QUERY, each) for each in documents]) == pytest.approx(expected, abs=1e-5)
            assert remote.predict([(QUERY, each) for each in documents]) == pytest.approx(expected, abs=1e-5)
            ranking = remote.rank(QUERY, documents, return_documents=True)
            assert asyncio.run(remote.arank(QUERY, iter(documents))) == ranking

            assert remote.predict((QUERY, documents[2])) == pytest.approx(expected[2], abs=1e-5)

    best = max(range(len(expected)), key=expected.__getitem__)
    assert (ranking[0].index, ranking[0]["text"]) == (best, texts[best])
    sent = [each for body in server.requests.bodies for each in body["documents"] if isinstance(each, dict)]
    assert sent[0] == {"content": [part(data_url(image(200)))]}
    assert [each["type"] for each in sent[1]["content"]] == ["image_url", "text"]  # images first, as models are trained


def test_an_instruction_goes_with_images(local: Reranker):
    with serving(ImageServer(fake=FakeServer(reranker=local))) as server:
        with RemoteReranker(server.url, **SERVER) as remote:
            logits = remote.logits(QUERY, [ContentDocument.of("a", image(100))], "Find lies.")

    assert logits == pytest.approx([local.logits(QUERY, ["a"], "Find lies.")[0] + 0.1], abs=1e-5)


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_is_known_by_its_content_whatever_it_is_called(kind: str, local: Reranker, tmp_path: Path):
    file = tmp_path / "image.png"
    file.write_bytes(image(100, kind))
    forms = [image(100, kind), file, data_url(image(100, kind)), base64.encodebytes(image(100, kind)).decode()]

    with serving(ImageServer(fake=FakeServer(reranker=local))) as server:
        with RemoteReranker(server.url, **SERVER) as remote:
            logits = remote.logits(QUERY, [ContentDocument.of("a", each) for each in forms])

    assert logits == pytest.approx([local.logits(QUERY, ["a"])[0] + 0.1] * 4, abs=3e-3)


def test_max_tokens_cuts_texts_and_leaves_documents_with_images_whole(local: Reranker, model: str):
    documents = ["yes " * 400, ContentDocument.of("no " * 400, image(50)), "서울"]
    for long_documents in ("cut", "chunk_max"):
        with serving(ImageServer(fake=FakeServer(reranker=local))) as server:
            limits: dict[str, Any] = {"max_tokens": 300, "long_documents": long_documents}
            with RemoteReranker(server.url, model, **SERVER, **limits) as remote:
                assert len(remote.logits(QUERY, documents)) == 3
        sent = [each for body in server.requests.bodies for each in body["documents"]]
        whole = [each for each in sent if isinstance(each, dict)]
        assert [each["content"][1]["text"] for each in whole] == ["no " * 400]
        assert max(len(each) for each in sent if isinstance(each, str)) < 1000
        assert sent[-1] == "서울"


def test_large_images_are_sent_in_several_requests(local: Reranker, monkeypatch: pytest.MonkeyPatch):
    documents: list[Any] = [ContentDocument.of("a", image(each)) for each in range(6)]
    monkeypatch.setattr(request_builder, "_IMAGE_CHARACTERS", documents[0].size * 2 + 50)
    with serving(ImageServer(fake=FakeServer(reranker=local))) as server:
        with RemoteReranker(server.url, **SERVER) as remote:
            logits = remote.logits(QUERY, ["a", *documents])

    assert sorted(len(body["documents"]) for body in server.requests.bodies) == [2, 2, 3]
    assert logits == pytest.approx([logits[0] + each for each in (0, *(value / 1000 for value in range(6)))], abs=1e-5)


def test_halves_of_characters_are_replaced_in_texts_beside_images(local: Reranker):
    with serving(ImageServer(fake=FakeServer(reranker=local))) as server:
        with RemoteReranker(server.url, **SERVER) as remote:
            remote.logits(QUERY, ["a\ud800", [text("b\ud800"), part(data_url(image(1)))]])

    plain, mixed = server.requests.bodies[0]["documents"]
    assert (plain, mixed["content"][0]["text"]) == ("a\ufffd", "b\ufffd")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "protocol='vllm-tokens' cannot send; use protocol='rerank' with template='server'"),
        ({"protocol": "vllm-tokens"}, "protocol='vllm-tokens' cannot send"),
        ({"protocol": "tei", "template": "server"}, "protocol='tei' cannot send"),
        ({"protocol": "sglang", "template": "server"}, "protocol='sglang' cannot send"),
        ({"protocol": "rerank", "template": "client"}, "pass template='server'"),
    ],
)
def test_what_cannot_send_images_says_so(options: dict[str, Any], message: str, model: str):
    with RemoteReranker("http://127.0.0.1:9", model, **options) as remote:
        with pytest.raises(InputError, match=f"document 1 has an image, .*{message}.*leave the image out"):
            remote.rank(QUERY, ["a", ContentDocument.of("b", image(1))])


def test_a_hosted_service_that_reads_no_images_is_named():
    with RemoteReranker("https://api.cohere.com", "rerank-v3.5", **SERVER) as remote:
        with pytest.raises(InputError, match=r"api\.cohere\.com does not read in this form"):
            remote.rank(QUERY, [ContentDocument.of("b", image(1))])


def test_a_local_model_refuses_images_and_names_the_way(local: Reranker):
    documents = ["a", [part(data_url(image(1)))]]
    message = "document 1 has an image, which a model in this process does not read; serve the model with vLLM"
    for call in (local.rank, local.logits, local.logits_and_truncation):
        with pytest.raises(InputError, match=message):
            call(QUERY, documents)
    with pytest.raises(InputError, match=message):
        asyncio.run(local.arank(QUERY, documents))
    with pytest.raises(InputError, match=message):
        local.pair_logits([(QUERY, each) for each in documents])
    assert local.logits(QUERY, [[text("a"), text("b")]]) == local.logits(QUERY, ["a\nb"])


def test_a_server_whose_model_reads_no_images_is_explained(local: Reranker):
    with serving(ImageServer(fake=FakeServer(reranker=local), is_multimodal=False)) as server:
        with RemoteReranker(server.url, **SERVER) as remote:
            with pytest.raises(ServerError, match="MultiModalParam is not supported.*the served model.*must allow"):
                remote.rank(QUERY, [ContentDocument.of("b", image(1))])


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([{"type": "video_url", "video_url": {"url": "https://a/b.mp4"}}], "part 0 of document 0 must have the type"),
        ([{"text": "a"}], "must have the type 'text' or 'image_url', not None"),
        ([text("a"), {"type": "text"}], "part 1 of document 0 must have a string as its text, not NoneType"),
        ([{"type": "image_url"}], "must have an image_url with a url"),
        ([part("file:///etc/passwd")], "begins with https://, http:// or data:, not 'file:///etc/passwd'"),
        ([part("/etc/passwd")], "begins with https://"),
        ([part(image(1))], "begins with https://"),
        ([part("https:///no-host")], "no valid web address"),
        ([part("https://a b")], "no valid web address"),
        ([part("data:image/png,abc")], "must be a data url in base64"),
        ([part("data:image/png;base64,%%%")], "is neither base64"),
        ([part(data_url(b"%PDF-1.7 ...", "application/pdf"))], "not an image in one of the formats"),
        ([part(data_url(b"<svg></svg>", "image/svg+xml"))], "not an image in one of the formats"),
        ([part(data_url(b""))], "not an image in one of the formats"),
        ([part("https://a/b.png")] * 33, "has 33 images; it must have from 1 to 32"),
        ({"content": [text("a")], "role": "user"}, "only the key 'content', not 'role'"),
        ({"content": "a"}, "must be a string, not dict: pass its text, document"),
        ([], "must be a string, not list"),
        ([["a", "b"]], "must be a string, not list; for pairs"),
        (b"bytes", "must be a string, not bytes"),
    ],
)
def test_a_wrong_content_list_is_an_error(document: Any, message: str):
    with RemoteReranker("http://127.0.0.1:9", **SERVER) as remote:
        with pytest.raises(InputError, match=message):
            remote.rank(QUERY, [document])


def test_an_image_has_a_limit_which_is_checked_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(contents_module, "MAX_IMAGE_BYTES", 2**20)
    large = b"\x89PNG\r\n\x1a\n" + bytes(2**20)
    file = tmp_path / "large.png"
    file.write_bytes(large)
    for source in (large, file, data_url(large), data_url(large * 4)):
        with pytest.raises(InputError, match=r"has \d\.\d MiB; an image may have at most 1 MiB: make it smaller"):
            ContentDocument.of("a", source)


def test_what_is_no_readable_file_is_named(tmp_path: Path):
    (tmp_path / "text.png").write_text("no image")
    os.mkfifo(tmp_path / "pipe.png")
    for name, message in (("none.png", "No such file"), ("pipe.png", "is not a file"), ("text.png", "not an image")):
        with pytest.raises(InputError, match=f"image 0 .*{message}"):
            ContentDocument.of("a", tmp_path / name)
    with pytest.raises(InputError, match="is not a file"):
        ContentDocument.of("a", tmp_path)
    with pytest.raises(InputError, match=r"pass a pathlib\.Path for a file"):
        ContentDocument.of("a", "images/a-file.png")
    with pytest.raises(InputError, match="image 1 must be bytes, a Path, or a string, not int"):
        ContentDocument.of("a", image(1), 3)
    with pytest.raises(InputError, match="the document has 0 images"):
        ContentDocument.of("a")


def test_messages_do_not_repeat_images():
    document = ContentDocument.of("a", image(1) + bytes(10_000))

    assert len(repr(document)) < 200
    assert hash(document) == hash(ContentDocument(document.parts))
    with pytest.raises(InputError) as error:
        ContentDocument.of("a", "A" * 10_000 + "%")
    assert len(str(error.value)) < 300
