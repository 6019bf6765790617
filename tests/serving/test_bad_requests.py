"""What is wrong with a request is told in one sentence, with the right status, and costs no other request anything."""

import gzip
import json
import logging
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest
import torch
from starlette.applications import Starlette
from starlette.routing import Mount

from onelogit import InputError, RemoteReranker, Reranker
from onelogit.serving import ServingLimits, app
from support.held_model import held
from support.served import served, wait_until
from support.tiny import Tiny

GOOD = {"query": "which?", "documents": ["a", "b"]}
RERANK = ("/rerank", "/v1/rerank", "/v2/rerank")


def sentence(answer: httpx2.Response) -> str:
    """The sentence of a refusal, which stands at the three places where clients look for it."""
    content = answer.json()
    assert content["message"] == content["detail"] == content["error"]["message"]
    assert content["error"]["code"] == answer.status_code
    return content["message"]


@pytest.mark.parametrize("path", RERANK)
@pytest.mark.parametrize(
    ("body", "said"),
    [
        ([], "the body must be a JSON object, not a list"),
        ("a", "the body must be a JSON object, not a string"),
        ({"query": "a"}, "the field 'documents' is missing"),
        ({"documents": ["a"]}, "the field 'query' is missing"),
        ({**GOOD, "documents": None}, "documents must be a list of strings, not null"),
        ({**GOOD, "documents": "a"}, "documents must be a list of strings, not a string"),
        ({**GOOD, "documents": {"a": 1}}, "documents must be a list of strings, not an object"),
        ({**GOOD, "documents": []}, "documents is empty; it must have at least one text"),
        ({**GOOD, "documents": ["a", None]}, "documents[1] must be a string, not null"),
        ({**GOOD, "documents": ["a", 3]}, "documents[1] must be a string, not a number"),
        ({**GOOD, "documents": ["a", ["b"]]}, "documents[1] must be a string, not a list"),
        ({**GOOD, "documents": [{"txt": "a"}]}, "documents[0] must be a string, not an object"),
        ({**GOOD, "documents": [{"text": None}]}, "documents[0] must be a string, not an object"),
        ({**GOOD, "query": ""}, "query is empty (''); it must contain text"),
        ({**GOOD, "query": " \n"}, r"query is empty (' \n'); it must contain text"),
        ({**GOOD, "query": None}, "query must be a string, not null"),
        ({**GOOD, "query": {"text": "a"}}, "query must be a string, not an object"),
        ({**GOOD, "top_n": 0}, "top_n must be a whole number from 1 up"),
        ({**GOOD, "top_n": -1}, "top_n must be a whole number from 1 up"),
        ({**GOOD, "top_n": 1.5}, "top_n must be a whole number from 1 up"),
        ({**GOOD, "top_n": True}, "top_n must be a whole number from 1 up"),
        ({**GOOD, "max_tokens_per_doc": 0}, "max_tokens_per_doc must be a whole number from 1 up"),
        ({**GOOD, "instruction": 3}, "instruction must be a string, not a number"),
        ({**GOOD, "return_documents": "perhaps"}, "return_documents: input should be a valid boolean"),
        ({**GOOD, "model": 3}, "model must be a string, not a number"),
    ],
)
def test_a_wrong_body_is_answered_400(path: str, body: object, said: str, client: httpx2.Client):
    answer = client.post(path, json=body)

    assert answer.status_code == 400
    assert sentence(answer).startswith(said)


@pytest.mark.parametrize("field", ["image", "image_url"])
def test_an_image_beside_a_text_is_refused(field: str, client: httpx2.Client):
    answer = client.post("/v1/rerank", json={**GOOD, "documents": [{"text": "a", field: "https://example.org/a.png"}]})

    assert answer.status_code == 400
    assert sentence(answer).startswith("documents[0] has an image, which this server does not read")


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank"])
@pytest.mark.parametrize("fields", [["title"], ["title", "text"], [], "text", ["text"] * 40])
def test_other_fields_of_documents_than_text_are_refused(path: str, fields: object, client: httpx2.Client):
    documents = [{"title": "a", "text": "b"}]

    answer = client.post(path, json={"query": "a", "documents": documents, "rank_fields": fields})
    known = client.post(path, json={"query": "a", "documents": documents, "rank_fields": ["text"]})
    unused = client.post(path, json={**GOOD, "rank_fields": fields})

    assert answer.status_code == 400
    assert sentence(answer).startswith("rank_fields must be ['text'], not ")
    assert known.status_code == unused.status_code == 200


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("/score", {"text_1": "a"}, "the field 'text_2' is missing"),
        ("/score", {"text_1": ["a", "b"], "text_2": ["c"]}, "there are 2 queries and 1 documents"),
        ("/score", {"text_1": ["a", "b"], "text_2": ["c", "d", "e"]}, "there are 2 queries and 3 documents"),
        ("/score", {"text_1": [], "text_2": ["c"]}, "text_1 is empty"),
        ("/score", {"text_1": ["a", " "], "text_2": ["c", "d"]}, "query 1 is empty"),
        ("/score", {"text_1": "a", "text_2": [None]}, "text_2[0] must be a string, not null"),
        ("/score", {"text_1": "a", "text_2": {"content": []}}, "text_2 must be a list of strings, not an object"),
        ("/classify", {"input": "a text"}, "input must be a list of lists of token ids, not a string; /rerank"),
        ("/classify", {"input": ["a text"]}, "input[0] must have token ids only, not a string"),
        ("/classify", {"input": []}, "input is empty"),
        ("/classify", {"input": [[1], []]}, "row 1 has 0 tokens"),
        ("/classify", {"input": [[1], [1] * 2049]}, "row 1 has 2049 tokens; a row has from 1 to max_tokens=2048"),
        ("/classify", {"input": [[1, -1]]}, "row 0 has the token id -1"),
        ("/classify", {"input": [[1, 10**30]]}, f"row 0 has the token id {10**30}"),
        ("/classify", {"input": [[1, 1.5]]}, "input[0] must have token ids only, not a number"),
        ("/classify", {"input": [[1, True]]}, "input[0] must have token ids only, not a boolean"),
        ("/classify", {}, "the field 'input' is missing"),
    ],
)
def test_so_is_a_wrong_body_of_another_form(path: str, body: object, said: str, client: httpx2.Client):
    answer = client.post(path, json=body)

    assert answer.status_code == 400
    assert sentence(answer).startswith(said)


def test_tei_has_errors_of_its_own_form(client: httpx2.Client):
    answer = client.post("/rerank", json={"query": "a", "texts": ["b", None]})
    unknown = client.post("/rerank", json={"query": "a", "texts": ["b"], "truncation_direction": "left"})

    assert answer.status_code == unknown.status_code == 400
    assert answer.json() == {"error": "texts[1] must be a string, not null", "error_type": "Validation"}
    assert unknown.json()["error"].startswith("truncation_direction: ")


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{", b"nonsense", b'{"query": "\xff"}', b"[" * 100_000, b'{"query": "a", "documents": ["b"]'),
        *(b'{"documents": [{"text": "b"}], "rank_fields": ' + b"[" * n + b"]" * n + b"}" for n in (150, 900, 940, 980)),
    ],
    ids=len,
)
def test_what_is_not_json_is_answered_400(content: bytes, client: httpx2.Client):
    answer = client.post("/rerank", content=content, headers={"Content-Type": "application/json"})

    assert answer.status_code == 400
    assert sentence(answer).startswith(("the body is not JSON", "the body is nested too deeply"))
    assert client.post("/rerank", content=content).status_code == 400


def test_the_place_where_json_ends_is_counted_in_characters(client: httpx2.Client):
    answer = client.post("/rerank", content='{"query": "서울" }}'.encode())

    assert sentence(answer) == "the body is not JSON at character 17; send a JSON object"


@pytest.mark.parametrize("encoding", ["gzip", "br, gzip"])
def test_a_compressed_body_is_answered_415(encoding: str, client: httpx2.Client):
    answer = client.post("/rerank", content=gzip.compress(b"{}"), headers={"Content-Encoding": encoding})

    assert answer.status_code == 415
    assert sentence(answer) == f"the body is compressed ({encoding}), which this server does not read; send it as it is"


def test_a_type_that_browsers_send_unasked_is_answered_415(client: httpx2.Client):
    answer = client.post("/rerank", content=json.dumps(GOOD), headers={"Content-Type": "text/plain"})

    assert answer.status_code == 415
    assert "application/json" in sentence(answer)


def test_lone_surrogates_are_replaced_in_documents_and_refused_in_queries(
    client: httpx2.Client, tiny_reranker: Reranker
):
    headers = {"Content-Type": "application/json"}
    body = {**GOOD, "documents": ["a\ud800"], "return_documents": True}
    documents = client.post("/rerank", content=json.dumps(body), headers=headers).json()
    query = client.post("/rerank", content=json.dumps({**GOOD, "query": "a\ud800"}), headers=headers)
    model = client.post("/rerank", content=json.dumps({**GOOD, "model": "a\ud800"}), headers=headers)

    assert documents["results"][0]["document"] == {"text": "a\ufffd"}
    assert query.status_code == model.status_code == 400
    assert "lone surrogate" in sentence(query)


def test_a_query_that_leaves_no_room_is_answered_400(client: httpx2.Client):
    answer = client.post("/rerank", json={**GOOD, "query": "word " * 3000})

    assert answer.status_code == 400
    assert "tokens" in sentence(answer)
    assert "word word" not in sentence(answer)


@pytest.mark.parametrize("name", [None, "", "tiny", "other-name", "Qwen3-Reranker-tiny"])
def test_the_model_has_all_its_names(name: str | None, client: httpx2.Client):
    answer = client.post("/rerank", json={**GOOD, "model": name} if name is not None else GOOD)

    assert answer.status_code == 200
    assert answer.json()["model"] == "tiny"


@pytest.mark.parametrize("path", RERANK)
def test_an_unknown_model_is_answered_404(path: str, client: httpx2.Client):
    answer = client.post(path, json={**GOOD, "model": "/etc/passwd"})

    assert answer.status_code == 404
    assert sentence(answer) == "The model `/etc/passwd` does not exist; this server has tiny"


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/nope", 404), ("GET", "/rerank", 405), ("PUT", "/", 404)]
)
def test_an_unknown_path_is_answered_with_a_sentence(method: str, path: str, status: int, client: httpx2.Client):
    answer = client.request(method, path)

    assert answer.status_code == status
    assert sentence(answer).startswith(f"there is no {method} {path}")


@pytest.fixture(scope="module")
def small_url(tiny_reranker: Reranker) -> Iterator[str]:
    limits = ServingLimits(max_documents=3, max_body_bytes=1000)
    with served(app(tiny_reranker, limits=limits)) as url:
        yield url


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/rerank", {"query": "a", "documents": ["b"] * 4}),
        ("/rerank", {"query": "a", "texts": ["b"] * 4}),
        ("/score", {"text_1": "a", "text_2": ["b"] * 4}),
        ("/classify", {"input": [[1]] * 4}),
    ],
)
def test_a_list_that_is_too_long_is_answered_413(path: str, body: object, small_url: str):
    answer = httpx2.post(small_url + path, json=body, trust_env=False)

    assert answer.status_code == 413
    assert "has 4 documents; this server takes at most 3 a request" in answer.text


@pytest.mark.parametrize("size", [1001, 100_000, 20_000_000])
@pytest.mark.parametrize("is_announced", [True, False])
def test_a_body_that_is_too_large_is_answered_413(size: int, is_announced: bool, small_url: str):
    parts = [b"x" * min(size, 1000)] * (size // 1000) + [b"x" * (size % 1000)]
    content: Any = b"".join(parts) if is_announced else iter(parts)
    with httpx2.Client(base_url=small_url, trust_env=False, timeout=20) as client:
        try:
            answer = client.post("/rerank", content=content)
        except httpx2.TransportError:
            assert size > 8000  # the server stops reading after some time
        else:
            assert answer.status_code == 413
            assert "larger than the 1000 bytes" in sentence(answer)
        assert client.post("/rerank", json=GOOD).status_code == 200


def test_a_client_that_asks_before_it_sends_its_body_is_answered_at_once(small_url: str):
    host, port = small_url.removeprefix("http://").split(":")
    head = "POST /rerank HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5000\r\n\r\n"
    with socket.create_connection((host, int(port)), timeout=4) as connection:
        connection.sendall(head.encode())
        answer = b"".join(iter(lambda: connection.recv(4096), b""))

    assert answer.startswith(b"HTTP/1.1 413 ")


def test_a_nan_is_answered_500_and_costs_no_other_request_anything(tiny_qwen: Tiny, caplog: pytest.LogCaptureFixture):
    with (
        Reranker.load(tiny_qwen.folder) as reranker,
        served(app(reranker)) as url,
        httpx2.Client(base_url=url) as client,
    ):
        good = {"query": "which?", "documents": ["yes", "no"]}
        before = client.post("/rerank", json=good).json()["results"]
        rows = reranker.scorer.rows([("which?", text) for text in ("yes", "no", "北")])
        bad_id = next(id for id in rows[2].ids if id not in {*rows[0].ids, *rows[1].ids})
        with torch.no_grad():
            reranker.classifier.get_input_embeddings().weight[bad_id] = torch.nan
        bad = {"query": "which?", "documents": ["yes", "北"]}
        with held(reranker) as model, ThreadPoolExecutor(3) as threads:
            answers = [threads.submit(client.post, "/rerank", json=body) for body in (good, bad, good)]
            model.wait()
            model.let_go()

    first, second, third = (answer.result() for answer in answers)
    assert first.json()["results"] == third.json()["results"] == before
    assert second.status_code == 500
    assert sentence(second) == "the logit of document 1 is nan; try dtype='float32'"


def test_an_unexpected_error_is_answered_500_and_logged_without_its_message(
    tiny_reranker: Reranker, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    secret = "SECRET"

    def fail(*_: object) -> None:
        raise RuntimeError(secret)

    with served(app(tiny_reranker)) as url:
        monkeypatch.setattr(tiny_reranker.scorer, "rows", fail)
        answer = httpx2.post(f"{url}/rerank", json=GOOD, trust_env=False)
        monkeypatch.undo()
        after = httpx2.post(f"{url}/rerank", json=GOOD, trust_env=False)

    assert answer.status_code == 500
    assert sentence(answer) == "the server failed with RuntimeError; its log says where"
    assert "SECRET" not in caplog.text
    assert "RuntimeError in" in caplog.text
    assert after.status_code == 200


def test_texts_are_never_logged(url: str, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG)
    with httpx2.Client(base_url=url, trust_env=False) as client:
        for body in (
            {"query": "SECRET", "documents": ["SECRET", "SECRET " * 3000]},
            {"query": "SECRET " * 3000, "documents": ["SECRET"]},
            {"query": "SECRET", "documents": ["SECRET", {"SECRET": 1}]},
            {"query": "SECRET", "documents": ["SECRET"], "model": "SECRET"},
        ):
            client.post("/rerank", json=body)

    ours = [record for record in caplog.records if not record.name.startswith(("httpx", "httpcore"))]
    assert not [record for record in ours if "SECRET" in record.getMessage()]


@pytest.mark.parametrize("value", ["SECRET" * 5000, "9" * 5000, ["SECRET"] * 5000, -(10**4000)])
def test_a_long_value_is_not_quoted_whole(value: object, client: httpx2.Client):
    answer = client.post("/rerank", json={**GOOD, "top_n": value})

    assert answer.status_code == 400
    assert sentence(answer).startswith("top_n must be a whole number from 1 up")
    assert len(sentence(answer)) < 700


def test_a_mounted_application_works_and_warms_up_when_asked(tiny_reranker: Reranker):
    with served(Starlette(routes=[Mount("/reranking", app(tiny_reranker))])) as url:
        with httpx2.Client(base_url=f"{url}/reranking", trust_env=False) as client:
            wait_until(lambda: client.get("/ready").status_code == 200)
            answers = [client.post(path, json=GOOD).status_code for path in RERANK]
            unknown = client.get("/nope")
            description, page = client.get("/openapi.json").json(), client.get("/docs").text

    assert answers == [200, 200, 200]
    assert unknown.status_code == 404
    assert sentence(unknown) == "there is no GET /reranking/nope; see /reranking/openapi.json"
    assert description["servers"] == [{"url": "/reranking"}]
    assert "href='/reranking/openapi.json'" in page


def test_only_a_local_reranker_can_be_served(tiny_qwen: Tiny):
    with RemoteReranker("http://127.0.0.1:1", str(tiny_qwen.folder)) as remote:
        with pytest.raises(InputError, match="only a local Reranker can be served, not a RemoteReranker"):
            app(remote)  # type: ignore[arg-type]


def test_a_closed_reranker_is_answered_503(tiny_qwen: Tiny):
    reranker = Reranker.load(tiny_qwen.folder)
    with served(app(reranker)) as url:
        wait_until(lambda: httpx2.get(f"{url}/ready", trust_env=False).status_code == 200)
        reranker.close()
        answers = [
            httpx2.post(f"{url}/rerank", json=GOOD, trust_env=False),
            httpx2.get(f"{url}/ready", trust_env=False),
        ]

    assert [each.status_code for each in answers] == [503, 503]
    assert "closed" in sentence(answers[0])


@pytest.mark.parametrize(
    "limits", [{"max_waiting": 0}, {"max_documents": 1.5}, {"max_body_bytes": True}, {"timeout_s": float("nan")}]
)
def test_limits_are_checked(limits: dict[str, Any]):
    with pytest.raises(InputError, match=f"{next(iter(limits))} must be a "):
        ServingLimits(**limits)
