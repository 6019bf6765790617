"""RemoteReranker in each of its protocols against the server: the logits and rankings of the local reranker."""

import httpx2
import pytest

from onelogit import ContentDocument, InputError, RemoteReranker, Reranker, ServerError
from onelogit.options import Protocol
from onelogit.serving import app
from support.served import served
from support.tiny import Tiny

QUERY = "What is the capital of China?"
DOCUMENTS = ["Bananas are yellow.", "The capital of China is Beijing.", "", "서울", "yes <|im_end|> no"]
OPTIONS = [
    {},
    {"protocol": "rerank", "template": "server"},
    {"protocol": "rerank", "template": "server", "path": "/v2/rerank"},
    {"protocol": "rerank", "template": "server", "path": "/rerank"},
    {"protocol": "tei", "template": "server"},
    {"protocol": "sglang", "template": "server"},
]
NAMES = ["vllm-tokens", "rerank", "rerank-v2", "rerank-plain", "tei", "sglang"]


@pytest.mark.parametrize("options", OPTIONS, ids=NAMES)
def test_every_protocol_gives_the_local_logits(
    options: dict[str, str], url: str, tiny_qwen: Tiny, tiny_reranker: Reranker
):
    with RemoteReranker(url, str(tiny_qwen.folder), served_name="tiny", pairs_a_request=2, **options) as remote:  # type: ignore[arg-type]
        logits, ranking = remote.logits(QUERY, DOCUMENTS), remote.rank(QUERY, DOCUMENTS, top_n=3)

    assert logits == pytest.approx(tiny_reranker.logits(QUERY, DOCUMENTS), abs=1e-5)
    local = tiny_reranker.rank(QUERY, DOCUMENTS, top_n=3)
    assert [each.index for each in ranking] == [each.index for each in local]
    assert [each.score for each in ranking] == pytest.approx([each.score for each in local], abs=1e-5)


@pytest.mark.parametrize("protocol", [None, "rerank", "sglang"])
def test_an_instruction_reaches_the_prompt(
    protocol: Protocol | None, url: str, tiny_qwen: Tiny, tiny_reranker: Reranker
):
    template = {} if protocol is None else {"protocol": protocol, "template": "server"}
    with RemoteReranker(url, str(tiny_qwen.folder), served_name="tiny", **template) as remote:  # type: ignore[arg-type]
        logits = remote.logits(QUERY, DOCUMENTS, "Say: yes")

    assert logits == pytest.approx(tiny_reranker.logits(QUERY, DOCUMENTS, "Say: yes"), abs=1e-5)


@pytest.mark.parametrize("options", OPTIONS[1:5:3], ids=["rerank", "tei"])
def test_scores_are_the_local_scores(options: dict[str, str], url: str, tiny_qwen: Tiny, tiny_reranker: Reranker):
    model = str(tiny_qwen.folder)
    with RemoteReranker(url, model, served_name="tiny", raw_logits=False, **options) as remote:  # type: ignore[arg-type]
        scores = [each.score for each in remote.rank(QUERY, DOCUMENTS)]

    assert scores == pytest.approx([each.score for each in tiny_reranker.rank(QUERY, DOCUMENTS)], abs=1e-5)


def test_the_check_of_an_exported_model_passes(tiny_reranker: Reranker, tiny_qwen: Tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "classifier"
    tiny_reranker.save(folder)
    with served(app(tiny_reranker)) as url:
        for options in ({}, {"protocol": "rerank", "template": "server"}, {"protocol": "tei", "template": "server"}):
            with RemoteReranker(url, str(folder), **options) as remote:  # type: ignore[arg-type]
                assert remote.check() < 1e-5


def test_refusals_reach_the_caller(url: str, tiny_qwen: Tiny, tiny_reranker: Reranker):
    model = str(tiny_qwen.folder)
    with RemoteReranker(url, model, served_name="another", attempts=1) as remote:
        with pytest.raises(ServerError, match="The model `another` does not exist; this server has tiny"):
            remote.rank("a", ["b"])
    with RemoteReranker(url, model, protocol="tei", template="server", attempts=1) as remote:
        with pytest.raises(ServerError, match="1 of 1 documents are too long for the model's 2048 tokens"):
            remote.rank("a", ["yes " * 3000])
    options = {"protocol": "tei", "template": "server", "long_documents": "cut"}
    with RemoteReranker(url, **options) as remote:  # type: ignore[arg-type]
        assert remote.logits("a", ["yes " * 3000]) == pytest.approx(
            tiny_reranker.logits("a", ["yes " * 3000]), abs=1e-5
        )
    with served(app(tiny_reranker, api_keys=["right"])) as locked:
        with RemoteReranker(locked, model, api_key="not-this-key", attempts=1) as remote:
            with pytest.raises(ServerError, match="answered 401: the request has a wrong API key") as raised:
                remote.rank("a", ["b"])
        assert "not-this-key" not in str(raised.value)


def test_several_names_are_listed_and_one_is_asked_for(url: str, tiny_qwen: Tiny):
    with RemoteReranker(url, str(tiny_qwen.folder)) as remote, pytest.raises(InputError, match="serves several models"):
        remote.rank("a", ["b"])


def test_a_server_of_texts_refuses_images_by_name_and_reads_content_lists_of_texts(url: str, tiny_reranker: Reranker):
    with RemoteReranker(url, protocol="rerank", template="server", served_name="tiny") as remote:
        with pytest.raises(ServerError, match=r"documents\[1\] has an image, which this server does not read"):
            remote.rank("a", ["b", ContentDocument.of("c", b"\x89PNG\r\n\x1a\n")])
    body = {"query": "a", "documents": [{"content": [{"type": "text", "text": "b"}]}], "raw_logits": True}
    answer = httpx2.post(f"{url}/v1/rerank", json=body, trust_env=False).json()
    assert answer["results"][0]["logit"] == pytest.approx(tiny_reranker.logits("a", ["b"])[0], abs=1e-5)
