"""The methods of Sentence Transformers' CrossEncoder, on a reranker: `predict`, and `rank` with the documents."""

import copy
import json
import pickle

import numpy as np
import pytest

from onelogit import DEMO_MODEL, InputError, Ranked, RankedDocument, RemoteReranker, Reranker, open_reranker
from support.servers import FakeServer, serving

QUERY = "What is the capital of China?"
TEXTS = ["Bananas are yellow.", "The capital of China is Beijing.", "서울"]
PAIRS = [(QUERY, text) for text in TEXTS]


@pytest.fixture(scope="module")
def reranker() -> Reranker:
    return open_reranker(DEMO_MODEL, dtype="float32")


def test_predictions_are_those_of_the_cross_encoder(reranker: Reranker):
    encoder = reranker.as_cross_encoder()

    predicted, expected = reranker.predict(PAIRS), encoder.predict(PAIRS)

    assert predicted.shape == expected.shape == (3,)
    assert np.allclose(predicted, expected, rtol=0, atol=1e-6)
    assert [ranked.score for ranked in reranker.rank(QUERY, TEXTS)] == sorted(predicted.tolist(), reverse=True)


def test_a_ranking_reads_as_that_of_the_cross_encoder(reranker: Reranker):
    encoder = reranker.as_cross_encoder()
    expected = encoder.rank(QUERY, TEXTS, return_documents=True)

    ranking = reranker.rank(QUERY, TEXTS, return_documents=True)

    assert [(hit["corpus_id"], hit["text"]) for hit in ranking] == [(hit["corpus_id"], hit["text"]) for hit in expected]
    assert np.allclose([hit["score"] for hit in ranking], [hit["score"] for hit in expected], rtol=0, atol=1e-6)


@pytest.mark.parametrize("pair", [PAIRS[0], [*PAIRS[0]], np.array(PAIRS[0])], ids=["tuple", "list", "array"])
def test_a_single_pair_gives_a_number(reranker: Reranker, pair: object):
    score = reranker.predict(pair)  # type: ignore[arg-type]

    assert isinstance(score, float)
    assert score == reranker.predict([PAIRS[0]])[0]
    assert json.dumps(score)


@pytest.mark.parametrize("pairs", [[[*pair] for pair in PAIRS], np.array(PAIRS), iter(PAIRS), (*PAIRS,)])
def test_pairs_come_in_many_containers(reranker: Reranker, pairs: object):
    assert reranker.predict(pairs).tolist() == reranker.predict(PAIRS).tolist()  # type: ignore[arg-type]


def test_two_pairs_are_no_single_pair(reranker: Reranker):
    assert reranker.predict(PAIRS[:2]).shape == (2,)
    assert reranker.predict([]).shape == (0,)


def test_scores_of_raw_models_are_their_logits():
    with Reranker.load(DEMO_MODEL, activation="identity") as raw:
        assert raw.predict(PAIRS).tolist() == raw.pair_logits(PAIRS)


def test_an_instruction_reaches_the_predictions(reranker: Reranker):
    assert reranker.predict(PAIRS, "Find lies.").tolist() != reranker.predict(PAIRS).tolist()


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (QUERY, "pairs must be a list"),
        ([QUERY], "pair 0 must be a tuple of a query and a document"),
        ((QUERY, TEXTS[0], TEXTS[1]), "pair 0 must be a tuple"),
        ([(" ", TEXTS[0])], "the query of pair 0 is empty"),
        ([(QUERY, None)], "the document of pair 0 must be a string"),
        ((QUERY, 3), "pair 0 must be a tuple"),
    ],
)
def test_what_is_no_pair_is_refused(reranker: Reranker, pairs: object, message: str):
    with pytest.raises(InputError, match=message):
        reranker.predict(pairs)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("show_progress_bar", "show_progress_bar is progress here"),
        ("prompt", "prompt is instruction here"),
        ("batch_size", "and batch_tokens is set when the reranker is opened"),
        ("activation_fn", "and activation is set when the reranker is opened"),
        ("top_n", "the options are pairs, instruction, progress"),
    ],
)
def test_arguments_of_the_cross_encoder_are_named(reranker: Reranker, name: str, meant: str):
    with pytest.raises(InputError, match=f"unknown option '{name}'.*{meant}"):
        reranker.predict(PAIRS, **{name: 1})


def test_a_ranked_document_is_still_a_ranked(reranker: Reranker):
    plain = reranker.rank(QUERY, TEXTS)
    ranking = reranker.rank(QUERY, iter(TEXTS), top_n=2, return_documents=True)

    assert ranking == plain[:2]
    assert all(isinstance(hit, RankedDocument) and len(hit) == 3 for hit in ranking)
    assert [hit.text for hit in ranking] == [TEXTS[hit.index] for hit in ranking]
    index, logit, score = hit = ranking[0]
    assert (hit["index"], hit["logit"], hit["score"]) == (hit[0], hit[1], hit[2]) == (index, logit, score)
    assert hit[:2] == (index, logit)
    assert hit._replace(score=0.5) == (index, logit, 0.5)
    assert hit._replace(score=0.5).text == hit.text
    for copied in (pickle.loads(pickle.dumps(hit)), copy.deepcopy(hit)):
        assert (copied, copied.text) == (hit, hit.text)
    assert repr(hit).endswith(f", text={hit.text!r})")


def test_what_a_ranked_lacks_is_said(reranker: Reranker):
    hit = reranker.rank(QUERY, TEXTS)[0]

    with pytest.raises(KeyError, match="a Ranked has no 'text', but index, logit, score; pass return_documents=True"):
        hit["text"]
    with pytest.raises(KeyError, match="no 'relevance'"):
        hit["relevance"]
    with pytest.raises(IndexError):
        hit[3]
    assert Ranked(2, 0.5, 0.25)["corpus_id"] == 2


async def test_a_server_has_the_same_methods(reranker: Reranker, tmp_path):
    reranker.save(tmp_path / "export")
    with serving(FakeServer(reranker=reranker)) as server:
        with RemoteReranker(server.url, str(tmp_path / "export")) as remote:
            assert np.allclose(remote.predict(PAIRS), reranker.predict(PAIRS), atol=2e-3)
            ranking = await remote.arank(QUERY, TEXTS, return_documents=True)
            assert ranking[0]["text"] == TEXTS[1]
