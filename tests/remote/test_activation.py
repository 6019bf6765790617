"""Servers that send scores although logits are asked for: no score is activated twice in silence."""

import logging
from typing import Any

import pytest

from onelogit import DEMO_MODEL, InputError, RemoteReranker, Reranker, open_reranker
from onelogit.model_spec import ModelSpec
from onelogit.recipes.recipe import Recipe
from support.servers import NOT_FOUND, FakeServer, Respond, Response, serving

QUERY = "What is the capital of China?"
SERVER_PROMPTS: dict[str, Any] = {"protocol": "rerank", "template": "server"}
SIGMOID_MODEL = "Qwen/Qwen3-Reranker-0.6B"


def always(*scores: float) -> Respond:
    """A server that sends these scores whatever the request says."""

    def respond(path: str, body: dict[str, Any] | None) -> Response:
        if body is None:
            return NOT_FOUND
        count = len(body.get("documents", body.get("texts", ())))
        return Response(content={"results": [{"index": i, "relevance_score": scores[i]} for i in range(count)]})

    return respond


@pytest.mark.parametrize(
    "scores",
    [(0.9971, 0.0072), (1.0, 0.0), (0.5, 0.5), (0.0,), (1.0, 1.0, 1.0), (0.3,) * 40],
    ids=["usual", "saturated", "equal", "one answer", "all one", "two requests"],
)
def test_scores_in_place_of_logits_are_reported_once(scores: tuple[float, ...], caplog: pytest.LogCaptureFixture):
    texts = [f"document {index}" for index in range(len(scores))]
    with serving(always(*scores, *scores)) as server, RemoteReranker(server.url, SIGMOID_MODEL, **SERVER_PROMPTS) as r:
        r.rank(QUERY, texts)
        r.rank(QUERY, texts)

    (record,) = [each for each in caplog.records if "raw_logits=False" in each.message]
    assert record.levelno == logging.WARNING
    assert f"{server.url}/v1/rerank sends only numbers from 0 to 1" in record.message


@pytest.mark.parametrize("scores", [(0.9971, -0.0072), (1.5, 0.2), (-3.0,), (7.0, 0.5)])
def test_numbers_outside_the_range_of_scores_are_logits(scores: tuple[float, ...], caplog: pytest.LogCaptureFixture):
    texts = [f"document {index}" for index in range(len(scores))]
    with serving(always(*scores)) as server, RemoteReranker(server.url, SIGMOID_MODEL, **SERVER_PROMPTS) as reranker:
        assert reranker.logits(QUERY, texts) == [*scores]

    assert not caplog.records
    assert len(server.requests.bodies) == 1


@pytest.mark.parametrize("options", [{}, SERVER_PROMPTS, {"protocol": "tei", "template": "client"}])
def test_logits_that_lie_in_the_range_of_scores_are_not_reported_if_the_server_can_be_asked(
    local: Reranker, model: str, options: dict[str, Any], caplog: pytest.LogCaptureFixture
):
    fake = FakeServer(reranker=local, protocol=options.get("protocol", "rerank"), change=lambda logit: 0.3)
    with serving(fake) as server, RemoteReranker(server.url, model, **options) as reranker:
        assert reranker.logits(QUERY, ["a", "b"]) == [0.3, 0.3]
        reranker.logits(QUERY, ["a", "b"])

    assert not caplog.records
    assert len(server.requests.bodies) == 3  # two calls, and one question


@pytest.mark.parametrize(
    ("protocol", "template"), [("rerank", "server"), ("rerank", "client"), ("tei", "server"), ("vllm-tokens", "client")]
)
def test_a_server_that_ignores_the_request_for_logits_is_reported(
    local: Reranker, model: str, protocol: Any, template: Any, caplog: pytest.LogCaptureFixture
):
    fake = FakeServer(reranker=local, protocol=protocol, is_activated=True)
    with serving(fake) as server, RemoteReranker(server.url, model, protocol=protocol, template=template) as reranker:
        reranker.rank(QUERY, ["a", "b", "c"])

    assert sum("pass raw_logits=False" in record.message for record in caplog.records) == 1


def test_a_family_without_activation_is_reported_too(caplog: pytest.LogCaptureFixture):
    model = "ContextualAI/ctxl-rerank-v2-instruct-multilingual-1b"
    with serving(always(0.2, 0.4)) as server, RemoteReranker(server.url, model, **SERVER_PROMPTS) as reranker:
        assert reranker.activation == "identity"
        reranker.rank(QUERY, ["a", "b"])

    assert "pass raw_logits=False" in caplog.text


@pytest.mark.parametrize("model", [None, "an/unknown-model"])
def test_scores_of_an_unknown_model_are_used_as_they_are(model: str | None, caplog: pytest.LogCaptureFixture):
    with serving(always(0.9971, 0.0072)) as server, RemoteReranker(server.url, model, **SERVER_PROMPTS) as reranker:
        assert [ranked.score for ranked in reranker.rank(QUERY, ["a", "b"])] == [0.9971, 0.0072]

    assert not caplog.records


@pytest.mark.parametrize("raw_logits", [True, False])
def test_what_the_caller_says_about_logits_is_not_questioned(raw_logits: bool, caplog: pytest.LogCaptureFixture):
    options = {**SERVER_PROMPTS, "raw_logits": raw_logits}
    with serving(always(0.0, 1.0)) as server, RemoteReranker(server.url, SIGMOID_MODEL, **options) as reranker:
        scores = [ranked.score for ranked in reranker.rank(QUERY, ["a", "b"])]

    assert scores == pytest.approx([0.7310586, 0.5] if raw_logits else [1.0, 0.0])
    assert not caplog.records
    assert len(server.requests.bodies) == 1


def test_a_failing_question_does_not_fail_the_call(caplog: pytest.LogCaptureFixture):
    def respond(path: str, body: dict[str, Any] | None) -> Response:
        return always(0.5)(path, body) if body is None or "raw_scores" in body else Response(code=400, content="no")

    with serving(respond) as server, RemoteReranker(server.url, SIGMOID_MODEL, **SERVER_PROMPTS) as reranker:
        assert reranker.logits(QUERY, ["a"]) == [0.5]

    assert "pass raw_logits=False" in caplog.text


@pytest.mark.parametrize("url", ["https://api.cohere.com", "https://api.jina.ai/v1/rerank", "https://api.voyageai.com"])
def test_a_hosted_models_scores_are_used_as_they_are(url: str):
    with RemoteReranker(url, SIGMOID_MODEL, **SERVER_PROMPTS) as reranker:
        assert (reranker.activation, reranker._scorer.is_raw) == ("identity", False)
    with RemoteReranker(url, SIGMOID_MODEL, raw_logits=True, **SERVER_PROMPTS) as reranker:
        assert (reranker.activation, reranker._scorer.is_raw) == ("sigmoid", True)
    with RemoteReranker("https://api.cohere.com.example", SIGMOID_MODEL, **SERVER_PROMPTS) as reranker:
        assert reranker._scorer.is_raw


def test_the_scale_of_a_model_is_known_if_the_server_writes_the_prompts(exported: str, model: str):
    recipe = Recipe(family="mine", chat_template=None, read_out=None, activation="sigmoid", source="me")
    given: dict[str, Any] = {"recipe": recipe}
    for name, options in ((DEMO_MODEL, {}), (exported, {}), (model, {}), ("a/model", given), (None, given)):
        with RemoteReranker("http://a", name, **options, **SERVER_PROMPTS) as reranker:
            assert reranker.activation == "sigmoid"
    with RemoteReranker("http://a", "a/model", **SERVER_PROMPTS) as reranker:
        assert reranker.activation == "identity"


def test_a_caller_who_wants_no_activation_gets_no_warning(caplog: pytest.LogCaptureFixture):
    options = {**SERVER_PROMPTS, "activation": "identity"}
    with serving(always(0.9971, 0.0072)) as server, RemoteReranker(server.url, SIGMOID_MODEL, **options) as reranker:
        assert [ranked.score for ranked in reranker.rank(QUERY, ["a", "b"])] == [0.9971, 0.0072]

    assert not caplog.records


def test_a_second_activation_is_refused():
    with pytest.raises(InputError, match="activation='sigmoid' would be applied to scores"):
        ModelSpec(None, "http://a", {**SERVER_PROMPTS, "activation": "sigmoid", "raw_logits": False})
    for url, options in (("http://a", {"raw_logits": False}), ("https://api.cohere.com", {})):
        with pytest.raises(InputError, match="activation='sigmoid' would be applied to scores"):
            RemoteReranker(url, SIGMOID_MODEL, activation="sigmoid", **options, **SERVER_PROMPTS)


@pytest.mark.parametrize("value", ["no", 0, 1, "0"])
def test_raw_logits_is_true_false_or_none(value: Any):
    with pytest.raises(InputError, match="raw_logits must be True, False or None"):
        ModelSpec(SIGMOID_MODEL, "http://a", {**SERVER_PROMPTS, "raw_logits": value})


def test_rerankers_with_and_without_raw_logits_are_not_shared():
    with_logits = open_reranker("http://127.0.0.1:9", model=SIGMOID_MODEL, **SERVER_PROMPTS)
    with_scores = open_reranker("http://127.0.0.1:9", model=SIGMOID_MODEL, raw_logits=False, **SERVER_PROMPTS)

    assert (with_logits.activation, with_scores.activation) == ("sigmoid", "identity")
