"""Every form of request gets the logits of the local reranker, in the form of answer that its clients read."""

from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from onelogit import Reranker
from onelogit.ranking import to_score
from onelogit.serving.application import FORMS as FORMS_OF_PATHS

QUERY = "What is the capital of China?"
DOCUMENTS = ["Bananas are yellow.", "The capital of China is Beijing.", "", "서울 ist nicht 北京 😀"]
PAIRS = {"query": QUERY, "documents": DOCUMENTS}
TEXTS = {"query": QUERY, "texts": DOCUMENTS}
Answer = Any
Numbers = Callable[[Answer, str], dict[int, float]]


def ranked(answer: Answer, name: str) -> dict[int, float]:
    results = answer if isinstance(answer, list) else answer["results"]
    assert [each["logit"] for each in results] == sorted((each["logit"] for each in results), reverse=True)
    return {each["index"]: each[name] for each in results}


def listed(answer: Answer, name: str) -> dict[int, float]:
    assert [each["index"] for each in answer["data"]] == [*range(len(answer["data"]))]
    return {each["index"]: each[name][0] if name == "probs" else each[name] for each in answer["data"]}


# path, body without flags, name of the score, how to read the answer
FORMS: list[tuple[str, dict[str, Any], str, Numbers]] = [
    ("/rerank", PAIRS, "relevance_score", ranked),
    ("/rerank", {"query": QUERY, "documents": [{"text": text} for text in DOCUMENTS]}, "relevance_score", ranked),
    ("/rerank", TEXTS, "score", ranked),
    ("/v1/rerank", PAIRS, "relevance_score", ranked),
    ("/v1/rerank", TEXTS, "score", ranked),
    ("/v2/rerank", PAIRS, "relevance_score", ranked),
    ("/v2/rerank", TEXTS, "score", ranked),
    ("/score", {"text_1": QUERY, "text_2": DOCUMENTS}, "score", listed),
    ("/score", {"queries": [QUERY], "documents": DOCUMENTS}, "score", listed),
    ("/score", {"data_1": [QUERY] * len(DOCUMENTS), "data_2": DOCUMENTS}, "score", listed),
    ("/v1/score", {"queries": QUERY, "items": DOCUMENTS}, "score", listed),
    ("/classify", {"input": "rows"}, "probs", listed),
]


def sent(body: dict[str, Any], reranker: Reranker, instruction: str | None = None) -> dict[str, Any]:
    if body.get("input") == "rows":
        rows = reranker.scorer.rows([(QUERY, document) for document in DOCUMENTS[:3]], instruction)
        return {"input": [[*row.ids] for row in rows]}
    return body


@pytest.mark.parametrize(("path", "body", "name", "numbers"), FORMS)
def test_every_form_has_the_local_logits_and_scores(
    path: str,
    body: dict[str, Any],
    name: str,
    numbers: Numbers,
    client: httpx2.Client,
    tiny_reranker: Reranker,
):
    body = sent(body, tiny_reranker)

    answer = client.post(path, json=body).raise_for_status().json()

    logits = dict(enumerate(tiny_reranker.logits(QUERY, DOCUMENTS)))
    logits = {index: logits[index] for index in numbers(answer, "logit")}
    assert len(logits) >= 3
    assert numbers(answer, "logit") == pytest.approx(logits, abs=1e-5)
    scores = {index: to_score(logit, "sigmoid") for index, logit in logits.items()}
    assert numbers(answer, name) == pytest.approx(scores, abs=1e-5)


@pytest.mark.parametrize(("path", "body", "name", "numbers"), FORMS)
@pytest.mark.parametrize("flag", [{"raw_logits": True}, {"raw_scores": True}, {"use_activation": False}])
def test_every_form_can_have_logits_for_scores(
    flag: dict[str, bool],
    path: str,
    body: dict[str, Any],
    name: str,
    numbers: Numbers,
    client: httpx2.Client,
    tiny_reranker: Reranker,
):
    body = {**sent(body, tiny_reranker), **flag}

    answer = client.post(path, json=body).raise_for_status().json()

    assert numbers(answer, name) == numbers(answer, "logit")


def test_every_path_is_tried():
    assert {path for path, *_ in FORMS} == {*FORMS_OF_PATHS}


def test_a_single_text_and_a_single_row_need_no_list(client: httpx2.Client, tiny_reranker: Reranker):
    row = [*tiny_reranker.scorer.rows([(QUERY, DOCUMENTS[0])])[0].ids]

    score = client.post("/score", json={"text_1": QUERY, "text_2": DOCUMENTS[0]}).json()
    classified = client.post("/classify", json={"input": row, "use_activation": False}).json()

    (logit,) = tiny_reranker.logits(QUERY, DOCUMENTS[:1])
    assert score["data"][0]["logit"] == pytest.approx(logit, abs=1e-5)
    assert classified["data"][0]["probs"] == [pytest.approx(logit, abs=1e-5)]


def test_each_query_meets_its_own_document(client: httpx2.Client, tiny_reranker: Reranker):
    pairs = [("yes", "a"), ("no", "b"), ("Say: yes", "")]
    body = {"queries": [query for query, _ in pairs], "documents": [document for _, document in pairs]}

    answer = client.post("/score", json=body).json()

    found = [each["logit"] for each in answer["data"]]
    assert found == pytest.approx(tiny_reranker.pair_logits(pairs), abs=1e-5)


def test_top_n_and_documents_are_returned_as_asked(client: httpx2.Client):
    some = client.post("/v1/rerank", json={**PAIRS, "top_n": 2, "return_documents": True}).json()["results"]
    plain = client.post("/v1/rerank", json=PAIRS).json()["results"]
    more = client.post("/v1/rerank", json={**PAIRS, "top_n": 99}).json()["results"]
    tei = client.post("/rerank", json={**TEXTS, "return_text": True}).json()
    tei_some = client.post("/rerank", json={**TEXTS, "return_text": True, "top_n": 2}).json()

    assert [each["document"]["text"] for each in some] == [DOCUMENTS[each["index"]] for each in some]
    assert some == [{**each, "document": {"text": DOCUMENTS[each["index"]]}} for each in plain[:2]]
    assert not any("document" in each for each in plain)
    assert more == plain
    assert [each["text"] for each in tei] == [DOCUMENTS[each["index"]] for each in tei]
    assert tei_some == tei[:2]


@pytest.mark.parametrize("field", ["instruction", "instruct"])
def test_an_instruction_is_used(field: str, client: httpx2.Client, tiny_reranker: Reranker):
    instruction = "Say: yes"
    answer = client.post("/v1/rerank", json={**PAIRS, field: instruction}).json()

    logits = tiny_reranker.logits(QUERY, DOCUMENTS, instruction)
    assert logits != pytest.approx(tiny_reranker.logits(QUERY, DOCUMENTS), abs=1e-3)
    assert ranked(answer, "logit") == pytest.approx(dict(enumerate(logits)), abs=1e-5)


def test_documents_are_cut_to_max_tokens_per_doc(client: httpx2.Client, tiny_reranker: Reranker):
    tokenizer = tiny_reranker.scorer.tokenizer
    document = "Beijing is the capital 서울 of China, " * 5
    ids = tokenizer(document, add_special_tokens=False)["input_ids"]
    short = tokenizer.decode(ids[:4])
    body = {"query": QUERY, "documents": [document, short, "no"], "max_tokens_per_doc": 4}

    answer = client.post("/v2/rerank", json=body).json()

    first, second, third = tiny_reranker.logits(QUERY, [short, short, "no"])
    assert ranked(answer, "logit") == pytest.approx({0: first, 1: second, 2: third}, abs=1e-5)
    assert "warnings" not in answer["meta"]


def test_a_truncated_document_is_told_of_or_refused(client: httpx2.Client, tiny_reranker: Reranker):
    long = "yes " * tiny_reranker.max_tokens
    cohere = client.post("/v2/rerank", json={"query": QUERY, "documents": [long, "no"]})
    tei = client.post("/rerank", json={"query": QUERY, "texts": [long, "no"]})
    refused = client.post("/rerank", json={"query": QUERY, "texts": [long, "no"], "truncate": False})

    logits = dict(enumerate(tiny_reranker.logits(QUERY, [long, "no"])))
    assert ranked(cohere.json(), "logit") == pytest.approx(logits, abs=1e-5)
    assert cohere.json()["meta"]["warnings"] == ["1 of 2 documents were truncated to fit the model's 2048 tokens"]
    assert ranked(tei.json(), "logit") == pytest.approx(logits, abs=1e-5)
    assert refused.status_code == 413
    assert refused.json()["error_type"] == "Validation"
    assert "1 of 2 documents are too long" in refused.json()["error"]


def test_tokens_are_counted(client: httpx2.Client, tiny_reranker: Reranker):
    usage = client.post("/rerank", json=PAIRS).json()["usage"]

    count = sum(len(row.ids) for row in tiny_reranker.scorer.rows([(QUERY, document) for document in DOCUMENTS]))
    assert usage == {"prompt_tokens": count, "total_tokens": count}


def test_a_request_id_comes_back(client: httpx2.Client):
    ids = [
        client.post("/rerank", json=PAIRS, headers=headers).json()["id"]
        for headers in ({"X-Request-Id": "mine-1"}, {"X-Request-Id": "a b"}, {}, {})
    ]

    assert ids[0] == "mine-1"
    assert len({*ids}) == 4
    assert all(each.startswith("score-") for each in ids[1:])


def test_a_field_that_is_null_chooses_no_form(client: httpx2.Client):
    tei = client.post("/rerank", json={**TEXTS, "documents": None})
    cohere = client.post("/rerank", json={**PAIRS, "texts": None})

    assert [each["index"] for each in tei.json()] == [each["index"] for each in cohere.json()["results"]]


@pytest.mark.parametrize("path", [*FORMS_OF_PATHS])
def test_a_slash_at_the_end_of_a_path_changes_nothing(path: str, client: httpx2.Client):
    assert client.post(f"{path}/", json={}).status_code == 400
    assert client.get(f"{path}/").status_code == 405
    assert client.get("/health/").status_code == client.get("/docs/").status_code == 200
