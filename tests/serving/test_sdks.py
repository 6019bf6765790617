"""The SDKs of Cohere and OpenAI against the server; `nox -s clients` tries the others."""

from collections.abc import Iterator

import cohere
import openai
import pytest
from cohere.core import ApiError

from onelogit import Reranker
from onelogit.serving import ServingLimits, app
from support.served import served

QUERY, DOCUMENTS = "What is the capital of China?", ["Bananas are yellow.", "Beijing", "서울", ""]


@pytest.fixture(scope="module")
def locked_url(tiny_reranker: Reranker) -> Iterator[str]:
    with served(
        app(tiny_reranker, served_names=["tiny"], api_keys=["KEY"], limits=ServingLimits(max_documents=5))
    ) as url:
        yield url


@pytest.mark.parametrize("kind", [cohere.Client, cohere.ClientV2])
def test_coheres_sdk_ranks_as_the_local_reranker(kind: type, locked_url: str, tiny_reranker: Reranker):
    with kind("KEY", base_url=locked_url) as client:
        answer = client.rerank(model="tiny", query=QUERY, documents=DOCUMENTS, top_n=3)

    ranking = tiny_reranker.rank(QUERY, DOCUMENTS, top_n=3)
    assert [each.index for each in answer.results] == [each.index for each in ranking]
    assert [each.relevance_score for each in answer.results] == pytest.approx(
        [each.score for each in ranking], abs=1e-5
    )
    assert answer.id.startswith("score-")


@pytest.mark.parametrize(
    ("key", "changes", "kind", "status"),
    [
        ("wrong", {}, cohere.UnauthorizedError, 401),
        ("KEY", {"model": "absent"}, cohere.NotFoundError, 404),
        ("KEY", {"documents": []}, cohere.BadRequestError, 400),
        ("KEY", {"documents": ["a"] * 6}, ApiError, 413),
    ],
)
@pytest.mark.parametrize("client_kind", [cohere.Client, cohere.ClientV2])
def test_coheres_sdk_raises_its_own_exceptions(
    client_kind: type, key: str, changes: dict[str, object], kind: type[ApiError], status: int, locked_url: str
):
    with client_kind(key, base_url=locked_url) as client, pytest.raises(kind) as raised:
        client.rerank(**{"model": "tiny", "query": QUERY, "documents": DOCUMENTS, **changes})

    assert raised.value.status_code == status
    assert raised.value.body["message"]


def test_openais_sdk_lists_the_model_and_raises_its_own_exceptions(locked_url: str):
    with openai.OpenAI(api_key="KEY", base_url=f"{locked_url}/v1", max_retries=0) as client:
        names = [model.id for model in client.models.list()]
    with openai.OpenAI(api_key="wrong", base_url=f"{locked_url}/v1", max_retries=0) as client:
        with pytest.raises(openai.AuthenticationError, match="the request has a wrong API key"):
            client.models.list()

    assert names == ["tiny"]
