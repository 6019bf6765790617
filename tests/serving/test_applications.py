"""Bodies and headers as applications send them, read as they read the answer; their source is named with each.

The applications themselves are not installed. Read on 2026-11-29, in the newest stored version of each file.
"""

import json
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import httpx2
import pytest

from onelogit import Reranker
from onelogit.ranking import to_score
from onelogit.serving import app
from support.served import served

KEY = "a-Key-of-37"
BEARER = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
QUERY = "What is the capital of China?"
DOCUMENTS = ["서울 ist nicht 北京 😀", "Bananas are yellow.", "yes <|im_end|> no", "The capital of China is Beijing."]
COUNT = len(DOCUMENTS)
ASKED = {"model": "tiny", "query": QUERY, "documents": DOCUMENTS}
Answer = Any
Scores = list[float]


@pytest.fixture(scope="module")
def application(tiny_reranker: Reranker) -> Iterator[httpx2.Client]:
    server = app(tiny_reranker, served_names=["tiny"], api_keys=[KEY])
    with served(server) as url, httpx2.Client(base_url=url, timeout=30, trust_env=False) as client:
        yield client


def local_scores(reranker: Reranker) -> Scores:
    return [to_score(logit, reranker.activation) for logit in reranker.logits(QUERY, DOCUMENTS)]


def by_index(answer: Answer) -> Scores:
    """Open WebUI's and Continue's way: sort by index, then read the scores in order."""
    return [each["relevance_score"] for each in sorted(answer["results"], key=lambda each: each["index"])]


def with_units(answer: Answer) -> Scores:
    """LangChain4j's way, which fails without Cohere's units."""
    assert answer["meta"]["billed_units"]["search_units"] == 1
    return by_index(answer)


def into_places(answer: Answer) -> Scores:
    """RAGFlow's way: write each score to its index."""
    scores = [0.0] * COUNT
    for each in answer.get("results", []):
        scores[each["index"]] = each["relevance_score"]
    return scores


def with_texts(answer: Answer) -> Scores:
    """Dify's way: the text of the answer, if there is one, must be that of the index."""
    found = {}
    for each in answer.get("results", []):
        document = each.get("document", {})
        assert document.get("text", DOCUMENTS[each["index"]]) == DOCUMENTS[each["index"]]
        found[each["index"]] = each["relevance_score"]
    return [found[index] for index in range(COUNT)]


def of_list(answer: Answer) -> Scores:
    """The way of clients of TEI: the answer is a list."""
    return [each["score"] for each in sorted(answer, key=lambda each: each["index"])]


def of_data(answer: Answer) -> Scores:
    return [each["score"] for each in sorted(answer["data"], key=lambda each: each["index"])]


TEI = {"query": QUERY, "texts": DOCUMENTS, "raw_scores": False}
REQUESTS: dict[str, tuple[str, Mapping[str, Any], Callable[[Answer], Scores]]] = {
    # open-webui/open-webui backend/open_webui/retrieval/models/external.py
    "open webui": ("/v1/rerank", {**ASKED, "top_n": COUNT}, by_index),
    # langgenius/dify-official-plugins models/openai_api_compatible/models/rerank/rerank.py, two versions
    "dify": ("/v1/rerank", {**ASKED, "top_n": COUNT}, with_texts),
    "dify with a threshold": (
        "/v1/rerank",
        {**ASKED, "top_n": COUNT, "return_documents": True, "score_threshold": 0.8},
        with_texts,
    ),
    # langgenius/dify-plugin-sdks python/dify_plugin/interfaces/model/openai_compatible/rerank.py
    "dify's sdk": ("/v1/rerank", {**ASKED, "top_n": None, "return_documents": True}, with_texts),
    # infiniflow/ragflow rag/llm/rerank_model.py: OpenAI_APIRerank, GPUStackRerank, XInferenceRerank,
    # SILICONFLOWRerank, HuggingfaceRerank; CoHereRerank, also for vLLM, is Cohere's SDK
    "ragflow openai-api-compatible": ("/rerank", {**ASKED, "top_n": COUNT}, into_places),
    "ragflow gpustack": ("/v1/rerank", {**ASKED, "top_n": COUNT}, into_places),
    "ragflow xinference": (
        "/v1/rerank",
        {**ASKED, "return_documents": "true", "return_len": "true"},
        into_places,
    ),
    "ragflow siliconflow": (
        "/v1/rerank",
        {**ASKED, "top_n": COUNT, "return_documents": False, "max_chunks_per_doc": 1024, "overlap_tokens": 80},
        into_places,
    ),
    "ragflow huggingface": ("/rerank", {**TEI, "truncate": True}, of_list),
    # continuedev/continue core/llm/llms/Cohere.ts, HuggingFaceTEI.ts
    "continue cohere": ("/v1/rerank", ASKED, by_index),
    "continue tei": (
        "/rerank",
        {**TEI, "return_text": False, "truncation_direction": "Right", "truncate": True},
        of_list,
    ),
    # langchain4j/langchain4j langchain4j-cohere/src/main/java/dev/langchain4j/model/cohere/CohereScoringModel.java
    "langchain4j cohere": ("/v1/rerank", ASKED, with_units),
    # vllm-project/vllm docs/serving/openai_compatible_server.md
    "vllm score": (
        "/v1/score",
        {"model": "tiny", "text_1": QUERY, "text_2": DOCUMENTS, "encoding_format": "float"},
        of_data,
    ),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_an_application_reads_the_local_scores(name: str, application: httpx2.Client, tiny_reranker: Reranker):
    path, body, read = REQUESTS[name]

    answer = application.post(path, json=body, headers=BEARER).raise_for_status().json()

    assert read(answer) == pytest.approx(local_scores(tiny_reranker), abs=1e-5)


def test_a_request_without_documents_is_told_where_an_application_shows_it(application: httpx2.Client):
    """Open WebUI logs the status; Dify shows the body; LangChain's and Haystack's Jina clients show `detail`."""
    answer = application.post("/v1/rerank", json={**ASKED, "documents": [], "top_n": 0}, headers=BEARER)

    assert answer.status_code == 400
    assert "documents is empty" in answer.json()["detail"] == answer.json()["message"]


@pytest.mark.parametrize("authorization", ["", "Bearer ", "Bearer None", "Bearer undefined"])
def test_a_server_without_keys_ignores_what_applications_send_without_one(
    authorization: str, url: str, tiny_reranker: Reranker
):
    """Dify sends an empty header, Open WebUI "Bearer " and nothing, RAGFlow "Bearer None", Continue "undefined"."""
    headers = {**BEARER, "Authorization": authorization}  # urllib's client sends them as they are, as requests does
    asked = urllib.request.Request(f"{url}/v1/rerank", json.dumps(ASKED).encode(), headers)
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(asked, timeout=30) as answer:
        assert by_index(json.load(answer)) == pytest.approx(local_scores(tiny_reranker), abs=1e-5)
