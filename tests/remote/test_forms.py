"""The forms in which rerank servers answer, the errors that they send with status 200, and the paths of requests."""

import gzip
from typing import Any

import pytest

from onelogit import InputError, RemoteReranker, ServerError
from onelogit.endpoint import split_address
from onelogit.model_spec import ModelSpec
from onelogit.remote import client as client_module
from support.servers import NOT_FOUND, Respond, Response, serving

TEXTS = ["first", "second"]
LISTS: dict[str, list[dict[str, Any]]] = {
    "relevance_score": [{"index": 1, "relevance_score": 2.5}, {"index": 0, "relevance_score": -1.0}],
    "score": [{"index": 0, "score": -1.0, "text": "first"}, {"index": 1, "score": 2.5}],
    "both": [{"index": i, "score": n, "relevance_score": n, "document": None} for i, n in ((1, 2.5), (0, -1.0))],
    "strings": [{"index": 1, "relevance_score": "2.5"}, {"index": 0, "relevance_score": "-1e0"}],
    "a string and a number": [{"index": i, "score": str(n), "relevance_score": n} for i, n in ((1, 2.5), (0, -1.0))],
    "indices as strings": [{"index": "1", "score": 2.5}, {"index": "0", "score": -1.0}],
}


@pytest.fixture(autouse=True)
def fast_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "_FIRST_WAIT_S", 0.01)


def answering(content: object, code: int = 200) -> Respond:
    return lambda path, body: NOT_FOUND if body is None else Response(code=code, content=content)


def logits_from(content: object, protocol: Any = "rerank", **options: Any) -> list[float]:
    with serving(answering(content)) as server:
        with RemoteReranker(server.url, protocol=protocol, template="server", **options) as reranker:
            return reranker.logits("a query", TEXTS)


@pytest.mark.parametrize("protocol", ["rerank", "tei", "sglang"])
@pytest.mark.parametrize("results", LISTS.values(), ids=list(LISTS))
@pytest.mark.parametrize(
    "wrap",
    [
        lambda results: results,
        lambda results: {"results": results, "model": "m", "meta": None, "error": None},
        lambda results: {"object": "list", "data": results, "usage": {"total_tokens": 3}},
        lambda results: {"output": {"results": results}, "request_id": "1", "code": "", "message": ""},
        lambda results: {"code": 200, "message": "ok", "results": results},
        lambda results: {"code": "0", "msg": "success", "data": {"results": results}},
        lambda results: {"data": [], "results": results},
    ],
    ids=["top", "results", "data", "output", "with a message", "nested", "beside an empty list"],
)
def test_results_are_read_wherever_a_server_puts_them(protocol: Any, results: Any, wrap: Any):
    assert logits_from(wrap(results), protocol) == [-1.0, 2.5]


@pytest.mark.parametrize(
    "content",
    [
        {"results": LISTS["score"], "data": LISTS["score"]},
        {"ranking": LISTS["score"]},
        {"results": [{"index": i, "score": 1.0, "relevance_score": 2.0} for i in range(2)]},
        {"results": {"0": 1.0, "1": 2.0}},
        {"results": [0.5, 0.1]},
        [0.5, 0.1],
        "[0.5, 0.1]",
        {},
        None,
    ],
)
def test_an_ambiguous_or_unknown_form_is_refused(content: object):
    with pytest.raises(ServerError, match="does not have the form of"):
        logits_from(content)


@pytest.mark.parametrize(
    ("content", "shown"),
    [
        ({"base_resp": {"status_msg": "login failed"}}, "0 lists of results; the response is .*login failed"),
        ({"code": 200, "message": "success", "rankings": LISTS["score"]}, "the response is .*rankings"),
        ([{"corpus_id": 0, "score": 1.0}], "'index' is missing; .*corpus_id"),
        ([{"index": 0, "rerank_score": 1.0}], "no 'relevance_score' or 'score' among 'index', 'rerank_score'"),
    ],
)
def test_a_response_of_an_unknown_form_is_shown_without_the_key(content: object, shown: str):
    with pytest.raises(ServerError, match=shown):
        logits_from(content)
    with pytest.raises(ServerError, match=r"wrong key \*\*\*") as raised:
        logits_from({"status_msg": "wrong key sk-123", "more": content}, api_key="sk-123")
    assert "sk-123" not in str(raised.value)


@pytest.mark.parametrize("score", ["NaN", "inf", "high", "", None, True, [1.0], "1_0", "0,9"])
def test_a_score_that_is_no_finite_number_is_refused(score: object):
    with pytest.raises(ServerError, match="returned .* for index 0") as raised:
        logits_from({"results": [{"index": i, "relevance_score": score} for i in range(2)]})

    assert ("is the model's head initialised?" in str(raised.value)) == (score in ("NaN", "inf"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"object": "error", "message": "model not loaded", "type": "NotFound", "code": 40},
            r"model not loaded \(40\)",
        ),
        ({"code": "InvalidParameter", "message": "bad model", "request_id": "1"}, r"bad model \(InvalidParameter\)"),
        ({"code": 40101, "message": "no such key"}, r"no such key \(40101\)"),
        ({"error": {"message": "out of memory", "type": "x"}}, "out of memory"),
        ({"error": "out of memory", "results": []}, "out of memory"),
        ({"error": "out of memory", "error_type": "backend"}, "out of memory"),
        ({"detail": "Request is too long"}, "Request is too long"),
        ({"object": "error", "data": None}, "'object': 'error'"),
        ({"success": False, "msg": "quota exceeded"}, "quota exceeded"),
        ({"code": 413, "message": "too large"}, "too large .413. .*lower pairs_a_request"),
    ],
)
def test_an_error_with_status_200_shows_the_servers_message(content: object, message: str):
    with pytest.raises(ServerError, match=f"/v1/rerank answered 200 with an error: .*{message}"):
        logits_from(content)


def test_an_error_with_status_200_shows_no_key():
    with pytest.raises(ServerError) as raised:
        logits_from({"object": "error", "message": "wrong key sk-123"}, api_key="sk-123")

    assert "wrong key ***" in str(raised.value)


def test_a_temporary_error_with_status_200_is_retried():
    slow: list[dict[str, Any]] = [{"code": 429, "message": "slow down"}, {"statusCode": "429", "message": "slow down"}]
    answers = iter([*slow, {"error": {"message": "busy", "code": 503}}])

    def respond(path: str, body: Any) -> Response:
        return NOT_FOUND if body is None else Response(content=next(answers, {"results": LISTS["score"]}))

    with serving(respond) as server, RemoteReranker(server.url, protocol="rerank", template="server") as reranker:
        assert reranker.logits("a query", TEXTS) == [-1.0, 2.5]

    assert len(server.requests.paths) == 4


@pytest.mark.parametrize(
    ("url", "path", "asked"),
    [
        ("", None, "/v1/rerank"),
        ("/", None, "/v1/rerank"),
        ("", "/rerank", "/rerank"),
        ("", "/api/v1/rerank/", "/api/v1/rerank/"),
        ("/rerank", None, "/rerank"),
        ("/rerank/", None, "/rerank"),
        ("/v2/rerank", None, "/v2/rerank"),
        ("/v1", None, "/v1/rerank"),
        ("/api/v1", None, "/api/v1/rerank"),
        ("/v2", None, "/v2/rerank"),
        ("/api/paas/v4/", None, "/api/paas/v4/rerank"),
        ("/api/v1/rerank", None, "/api/v1/rerank"),
        ("/v1/reranking", None, "/v1/reranking"),
        ("/compatible-api/v1/reranks", None, "/compatible-api/v1/reranks"),
        ("/v1/rerank", "/v1/rerank", "/v1/rerank"),
        ("/v2", "/v2/rerank", "/v2/rerank"),
        ("/v1", "/v2/rerank", "/v1/v2/rerank"),
        ("/proxy", "/rerank", "/proxy/rerank"),
        ("/my-rerank", None, "/my-rerank/v1/rerank"),
    ],
)
def test_a_url_may_end_in_the_path_of_the_requests(url: str, path: str | None, asked: str):
    with serving(answering(LISTS["score"])) as server:
        options: dict[str, Any] = {"protocol": "rerank", "template": "server", "path": path}
        with RemoteReranker(server.url + url, **options) as reranker:
            reranker.logits("a query", TEXTS)

    assert server.requests.paths == [asked]


def test_a_path_of_another_protocol_is_a_prefix():
    assert split_address("http://a/rerank", None, "/classify") == ("http://a/rerank", "/classify")
    assert split_address("http://a/b/classify", None, "/classify") == ("http://a/b", "/classify")
    assert split_address("http://a/v1", None, "/classify") == ("http://a/v1", "/classify")
    assert split_address("https://v1", None, "/v1/rerank") == ("https://v1", "/v1/rerank")
    assert split_address("https://rerank", None, "/v1/rerank") == ("https://rerank", "/v1/rerank")


def test_two_paths_that_differ_are_refused():
    with pytest.raises(InputError, match="ends in the path '/v1/rerank', and path='/v2/rerank' is given as well"):
        RemoteReranker("http://a/v1/rerank", protocol="rerank", template="server", path="/v2/rerank")


@pytest.mark.parametrize(
    "path",
    [
        *("rerank", "", "//host/rerank", "http://b/rerank", "/../rerank", "/a/../rerank", "/a/%2e%2e/b", "/./a"),
        *("/a//b", "/a?b=1", "/a#b", "/a b", "/a\\b", "/a\n", "/réranké", 7, ["/rerank"], "/" + "a" * 50 + "//"),
    ],
)
def test_a_path_that_leaves_the_server_is_refused(path: Any):
    with pytest.raises(InputError, match="path must be the path of the requests below the url"):
        ModelSpec(None, "http://a", {"protocol": "rerank", "template": "server", "path": path})


@pytest.mark.parametrize("protocol", ["rerank", "tei", "sglang"])
def test_a_missing_template_is_refused_before_the_first_call(protocol: Any):
    with pytest.raises(InputError, match="template must be 'client' to send whole prompts, or 'server'"):
        ModelSpec("a/model", "http://a", {"protocol": protocol})


@pytest.mark.parametrize("encoding", ["gzip, gzip", "gzip,deflate", "br", "zstd", "unknown"])
def test_a_response_that_few_bytes_can_blow_up_at_once_is_not_read(encoding: str):
    raw = gzip.compress(gzip.compress(b"{}"))
    with serving(lambda path, body: Response(raw=raw, headers={"Content-Encoding": encoding})) as server:
        with RemoteReranker(server.url, protocol="rerank", template="server", attempts=1) as reranker:
            with pytest.raises(ServerError, match="is compressed in another way than gzip or deflate"):
                reranker.logits("a query", TEXTS)


@pytest.mark.parametrize("depth", [150, 900, 940, 960, 970, 980, 990])
@pytest.mark.parametrize(
    "form", ["%s", '{"error": %s}', '{"data": %s}', '{"detail": [{"msg": %s}]}', '{"results": [%s]}']
)
def test_an_answer_nested_to_any_depth_is_an_error_of_ours(form: str, depth: int):
    raw = (form % ("[" * depth + "]" * depth)).encode()
    for code in (200, 400):
        with serving(lambda path, body, code=code: Response(raw=raw, code=code)) as server:
            with RemoteReranker(server.url, protocol="rerank", template="server", attempts=1) as reranker:
                with pytest.raises(ServerError):
                    reranker.logits("a query", TEXTS)
