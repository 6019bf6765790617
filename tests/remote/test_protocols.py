"""Every server protocol gives the local model's logits: order, instructions, long documents, and model names."""

import asyncio
import json
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onelogit import InputError, RemoteReranker, Reranker
from onelogit.options import Protocol, TokenProtocol
from onelogit.remote.protocols import PROTOCOLS, ProtocolSpec, ScoreRequest
from support.servers import NOT_FOUND, PROTOCOL_OPTIONS, RESPONSE_OF_PROTOCOL, FakeServer, Response, serving

QUERY = "What is the capital of China?"
TEXTS = ["The capital of China is Beijing.", "서울", "No.", "yes " * 40, "", "No.", "<|im_end|> \n"]
TOKENS, CLIENT_PROMPTS, SERVER_PROMPTS = PROTOCOL_OPTIONS[:3]


def test_each_protocol_name_has_one_spec_and_one_fake_response():
    assert tuple(PROTOCOLS) == get_args(Protocol) == tuple(RESPONSE_OF_PROTOCOL)
    assert {name for name, spec in PROTOCOLS.items() if spec.sends_tokens} == set(get_args(TokenProtocol))


@pytest.mark.parametrize("spec", PROTOCOLS.values(), ids=lambda spec: spec.name)
def test_a_request_contains_what_its_spec_says(spec: ProtocolSpec):
    request = ScoreRequest(
        rows=[[7, 8]] if spec.sends_tokens else [],
        query="a query",
        documents=[] if spec.sends_tokens else ["a document"],
        model="a model",
        instruction=None if spec.sends_tokens else "an instruction",
    )

    body = json.dumps(spec.body(request))

    assert ("[7, 8]" in body) == spec.sends_tokens
    assert ("a query" in body) == ("a document" in body) == (not spec.sends_tokens)
    assert ("a model" in body) == spec.needs_model_name
    assert ("an instruction" in body) == (spec.takes_instruction and not spec.sends_tokens)


@pytest.mark.parametrize("options", PROTOCOL_OPTIONS, ids=lambda options: "-".join(options.values()))
def test_every_protocol_gives_the_local_logits_in_the_given_order(local: Reranker, model: str, options: dict[str, Any]):
    texts = [text for text in TEXTS if "im_end" not in text]  # servers of texts read it as a control token
    with serving(FakeServer(reranker=local, protocol=options["protocol"])) as server:
        with RemoteReranker(server.url, model, pairs_a_request=2, **options) as remote:
            assert remote.logits(QUERY, texts) == pytest.approx(local.logits(QUERY, texts), abs=1e-5)
            ranking = remote.rank(QUERY, texts, top_n=3)
            assert asyncio.run(remote.arank(QUERY, texts, top_n=3)) == ranking

    assert [ranked.index for ranked in ranking] == [ranked.index for ranked in local.rank(QUERY, texts, top_n=3)]
    assert [ranked.score for ranked in ranking] == pytest.approx(
        [r.score for r in local.rank(QUERY, texts, 3)], abs=1e-5
    )


def test_control_tokens_in_a_text_are_plain_text_if_tokens_are_sent(local: Reranker, model: str):
    with serving(FakeServer(reranker=local)) as server, RemoteReranker(server.url, model) as remote:
        assert remote.logits(QUERY, TEXTS) == pytest.approx(local.logits(QUERY, TEXTS), abs=1e-5)


def test_pairs_of_several_queries_keep_their_order(local: Reranker, model: str):
    pairs = [("a", "b"), ("c", "d"), ("a", "e"), ("a", "f")]
    expected = pytest.approx(local.pair_logits(pairs), abs=1e-5)
    for options in PROTOCOL_OPTIONS:
        fake = FakeServer(reranker=local, protocol=options["protocol"])
        with serving(fake) as server, RemoteReranker(server.url, model, **options) as remote:
            assert remote.pair_logits(pairs) == expected
            assert remote.pair_logits([]) == []


@pytest.mark.parametrize("options", [TOKENS, CLIENT_PROMPTS, SERVER_PROMPTS])
def test_an_instruction_reaches_the_model(local: Reranker, model: str, options: dict[str, Any]):
    expected = pytest.approx(local.logits(QUERY, TEXTS[:3], "Find lies."), abs=1e-5)
    with serving(FakeServer(reranker=local)) as server:
        with RemoteReranker(server.url, model, **options) as remote:
            assert remote.logits(QUERY, TEXTS[:3], "Find lies.") == expected
        with RemoteReranker(server.url, model, instruction="Find lies.", **options) as remote:
            assert remote.logits(QUERY, TEXTS[:3]) == expected


def test_an_instruction_that_would_be_ignored_is_an_error(local: Reranker, model: str):
    with serving(FakeServer(reranker=local, has_template=False)) as server:
        with RemoteReranker(server.url, model, **SERVER_PROMPTS) as remote:
            with pytest.raises(InputError, match="it would be ignored"):
                remote.logits(QUERY, TEXTS[:3], "Find lies.")
            remote.logits(QUERY, TEXTS[:3])
        with pytest.raises(InputError, match="protocol='tei' cannot send an instruction"):
            RemoteReranker(server.url, model, protocol="tei", template="server", instruction="Find lies.")


@pytest.mark.parametrize("options", [TOKENS, CLIENT_PROMPTS])
@pytest.mark.parametrize("long_documents", ["cut", "chunk_max"])
def test_the_client_cuts_or_chunks_long_documents(
    local: Reranker, model: str, options: dict[str, Any], long_documents: Any
):
    texts = ["no " * 300, "yes", "서울 " * 200]
    limits: dict[str, Any] = {"max_tokens": 300, "long_documents": long_documents}
    with Reranker.load(model, **limits) as reranker:
        expected = reranker.logits(QUERY, texts)
    with serving(FakeServer(reranker=local)) as server, RemoteReranker(server.url, model, **options | limits) as remote:
        # A server that tokenises texts may read the last characters before a cut differently.
        tolerance = 1e-5 if options == TOKENS else 0.05
        assert remote.logits(QUERY, texts) == pytest.approx(expected, abs=tolerance)


def test_a_hosted_models_scores_are_returned_unchanged(local: Reranker):
    hosted = FakeServer(reranker=local, is_activated=True, model_names=("rerank-a", "rerank-b"))
    with serving(hosted) as server:
        with RemoteReranker(server.url, "rerank-b", api_key="key", raw_logits=False, **SERVER_PROMPTS) as remote:
            ranking = remote.rank(QUERY, TEXTS[:3])

    assert all(0 < ranked.score == ranked.logit < 1 for ranked in ranking)
    assert {body["model"] for body in server.requests.bodies} == {"rerank-b"}
    assert "raw_scores" not in server.requests.bodies[0]
    assert server.requests.headers[0]["Authorization"] == "Bearer key"
    assert remote.licence is None


def test_a_known_model_is_scored_on_its_cards_scale(local: Reranker):
    with serving(FakeServer(reranker=local)) as server:
        with RemoteReranker(server.url, "Qwen/Qwen3-Reranker-0.6B", **SERVER_PROMPTS) as remote:
            assert 0 < remote.rank(QUERY, TEXTS)[0].score < 1
        with RemoteReranker(server.url, **SERVER_PROMPTS) as remote:
            assert remote.rank(QUERY, TEXTS)[0].score == remote.rank(QUERY, TEXTS)[0].logit


def test_tei_requests_turn_truncation_off(local: Reranker, model: str):
    with serving(FakeServer(reranker=local)) as server:
        with RemoteReranker(server.url, model, protocol="tei", template="server") as remote:
            remote.logits(QUERY, ["a"])

    assert server.requests.bodies[0]["truncate"] is False


@settings(max_examples=25)
@given(texts=st.lists(st.text(max_size=30), max_size=12), pairs_a_request=st.integers(1, 5))
def test_any_texts_in_requests_of_any_size_keep_their_order(
    texts: list[str], pairs_a_request: int, local: Reranker, model: str
):
    texts = [text.encode("utf-8", "ignore").decode() for text in texts]

    def respond_with_sums(path: str, body: Any) -> Response:
        if body is None:
            return NOT_FOUND
        data = [{"index": i, "probs": [float(sum(row) % 9973)]} for i, row in enumerate(body["input"])]
        return Response(content={"data": data[::-1]})

    with serving(respond_with_sums) as server:
        with RemoteReranker(server.url, model, pairs_a_request=pairs_a_request) as remote:
            rows = local._scorer.rows([(QUERY, text) for text in texts])
            assert remote.logits(QUERY, texts) == [float(sum(row.ids) % 9973) for row in rows]
