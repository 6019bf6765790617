"""Documents that are too long for a server that writes the prompts: cut or chunked here, refused, or cut there."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from transformers import BertConfig

from onelogit import InputError, RemoteReranker, Reranker, ServerError
from onelogit.checkpoints.load_encoder import load_encoder
from onelogit.model_spec import ModelSpec
from onelogit.options import RemoteOptions
from onelogit.remote.document_cutter import DocumentCutter
from support.servers import NOT_FOUND, FakeServer, Response, serving
from support.tiny import native_checkpoint, pair_tokenizer

QUERY = "What is the capital of China?"
TEXTS = ["no " * 300, "yes", "서울 " * 200, "", "🙂é" * 300, "no yes " * 200]
SERVER_PROMPTS: RemoteOptions = {"protocol": "rerank", "template": "server"}


@pytest.mark.parametrize("protocol", ["rerank", "tei", "sglang"])
@pytest.mark.parametrize("long_documents", ["cut", "chunk_max", None])
def test_documents_are_cut_or_chunked_if_the_server_writes_the_prompts(
    local: Reranker, model: str, protocol: Any, long_documents: Any, caplog: pytest.LogCaptureFixture
):
    limits: dict[str, Any] = {"max_tokens": 300, "long_documents": long_documents}
    with Reranker.load(model, **limits) as reranker:
        expected = reranker.logits(QUERY, TEXTS)
    caplog.clear()
    fake = FakeServer(reranker=local, protocol=protocol)
    with serving(fake) as server:
        with RemoteReranker(server.url, model, protocol=protocol, template="server", **limits) as remote:
            logits = remote.logits(QUERY, TEXTS)
            assert remote._scorer.max_tokens == 300

    # A server that tokenises texts may read the last characters before a cut differently, and text cannot be cut inside
    # an emoji.
    assert [*logits[:4], logits[5]] == pytest.approx([*expected[:4], expected[5]], abs=0.05)
    assert logits[4] == pytest.approx(expected[4], abs=0.1)
    assert max(len(row) for body in server.requests.bodies for row in fake._rows(body)) <= 300
    assert ("4 of 6 documents were truncated to fit max_tokens=300" in caplog.text) == (long_documents != "chunk_max")


@pytest.mark.parametrize("text", ["".join(f"word {n}. " for n in range(400)), "".join(map(chr, range(0xAC00, 0xAE00)))])
def test_the_chunks_of_a_document_contain_all_of_it(model: str, text: str):
    loaded = load_encoder(ModelSpec(model, options={"max_tokens": 300}))
    parts = [part.text for part in DocumentCutter(loaded, has_chunks=True).parts([(QUERY, text)], None)]
    places = [(text.index(part), text.index(part) + len(part)) for part in parts]

    assert len(parts) > 1
    assert (places[0][0], places[-1][1]) == (0, len(text))
    assert all(start <= end for (_, end), (start, _) in pairwise(places))


def test_a_document_that_just_fits_is_sent_whole(local: Reranker, model: str):
    text = "yes no " * 40
    length = len(local._scorer.rows([(QUERY, text)])[0].ids)
    for max_tokens, is_whole in ((length, True), (length - 1, False)):
        loaded = load_encoder(ModelSpec(model, options={"max_tokens": max_tokens}))
        (part,) = DocumentCutter(loaded, has_chunks=False).parts([(QUERY, text)], None)
        assert (part.text == text, part.is_truncated) == (is_whole, not is_whole)


def test_the_instruction_counts(model: str):
    loaded = load_encoder(ModelSpec(model, options={"max_tokens": 300}))
    cutter = DocumentCutter(loaded, has_chunks=False)

    short, long = (cutter.parts([(QUERY, TEXTS[0])], text)[0].text for text in ("Find lies. " * 5, "Find."))

    assert len(short) < len(long) < len(TEXTS[0])


def test_documents_of_a_model_that_reads_pairs_are_cut(tmp_path: Path):
    tokenizer = pair_tokenizer("[CLS]", "[SEP]", "[SEP]", has_types=True)
    folder = native_checkpoint(tmp_path / "encoder", BertConfig, tokenizer, num_labels=1)
    loaded = load_encoder(ModelSpec(str(folder), options={"max_tokens": 40}))

    (part,) = DocumentCutter(loaded, has_chunks=False).parts([("yes", "no " * 100)], None)

    assert part.is_truncated
    assert len(loaded.encoder.rows([("yes", part.text)], None)[0].ids) == 40


def test_a_query_without_room_for_a_document_is_refused(local: Reranker, model: str):
    with serving(FakeServer(reranker=local)) as server:
        with RemoteReranker(server.url, model, max_tokens=60, **SERVER_PROMPTS) as remote:
            with pytest.raises(InputError, match="leaves no room for a document in max_tokens=60"):
                remote.logits("What? " * 60, ["yes no"])


@pytest.mark.parametrize("options", [{"max_tokens": 300}, {"long_documents": "cut"}, {"long_documents": "chunk_max"}])
def test_limits_that_cannot_be_honoured_are_refused_at_once(options: dict[str, Any]):
    (name,) = options
    with pytest.raises(InputError, match=f"{name} needs the model's tokenizer, because the server writes the prompts"):
        ModelSpec(None, "http://a", {**SERVER_PROMPTS, **options})
    with pytest.raises(InputError, match="need the tokenizer of 'no-such/model' to cut documents here: the model"):
        RemoteReranker("http://a", "no-such/model", **SERVER_PROMPTS, **options)


def test_tei_truncates_if_no_tokenizer_is_known():
    results = [{"index": 0, "score": 1.0}]
    cut: dict[str, Any] = {"long_documents": "cut"}
    with serving(lambda path, body: NOT_FOUND if body is None else Response(content=results)) as server:
        for options in ({}, cut):
            with RemoteReranker(server.url, protocol="tei", template="server", **options) as remote:
                remote.logits(QUERY, ["a"])
    with pytest.raises(InputError, match="long_documents needs the model's tokenizer"):
        ModelSpec(None, "http://a", {"protocol": "tei", "template": "server", "long_documents": "chunk_max"})

    assert [body["truncate"] for body in server.requests.bodies] == [False, True]


@pytest.mark.parametrize(
    ("code", "texts", "options", "hint"),
    [
        (400, ["a"], SERVER_PROMPTS, "pass max_tokens, and the model whose tokenizer counts them, to cut documents"),
        (400, ["a"], {**SERVER_PROMPTS, "model": True}, "pass max_tokens, to cut documents"),
        (400, ["a"], {**SERVER_PROMPTS, "model": True, "max_tokens": 400}, "lower max_tokens"),
        (400, ["a"], {"model": True}, "lower max_tokens"),
        (400, ["a", ""], SERVER_PROMPTS, "the request has an empty document; leave it out"),
        (422, ["a", " "], SERVER_PROMPTS, "the request has an empty document; leave it out"),
        (413, ["a", "b"], SERVER_PROMPTS, "lower pairs_a_request; if a text is too long"),
        (413, ["a"], {"protocol": "tei", "template": "server"}, "if a text is too long for the server, pass long_doc"),
        (404, ["a"], SERVER_PROMPTS, "pass another as path, such as '/rerank'"),
        (404, ["a"], {"model": True}, "a classifier with one label"),
        (404, ["a"], {**SERVER_PROMPTS, "served_name": "m"}, "asked for as 'm', and served_name gives it another name"),
    ],
)
def test_the_advice_fits_the_protocol(model: str, code: int, texts: list[str], options: dict[str, Any], hint: str):
    name = model if options.get("model") else None
    options = {option: value for option, value in options.items() if option != "model"}
    with serving(lambda path, body: NOT_FOUND if body is None else Response(code=code, content="no")) as server:
        with RemoteReranker(server.url, name, **options) as remote, pytest.raises(ServerError, match=hint) as raised:
            remote.logits(QUERY, texts)

    assert ("lower max_tokens" in str(raised.value)) == (hint == "lower max_tokens")
    assert ("pairs_a_request" in str(raised.value)) == (code == 413 and len(texts) > 1)
