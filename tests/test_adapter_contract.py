"""One contract for all adapters: what comes back, what is left alone, what is refused."""

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy

import pytest

from adapters import ADAPTERS, Adapter
from onelogit import CheckpointError, Reranker, open_reranker
from tiny import Tiny

QUERY = "What is the capital of China?"
TEXTS = ["The capital of China is Beijing.", "서울", "No.", "yes " * 40, "No."]


@pytest.fixture(params=ADAPTERS, ids=lambda adapter: type(adapter).__name__)
def framework(request: pytest.FixtureRequest) -> Adapter:
    return request.param


@pytest.fixture
def model(tiny_qwen: Tiny) -> str:
    return str(tiny_qwen.folder)


def test_it_ranks_as_the_core_does(framework: Adapter, model: str, reranker: Reranker):
    ranking = reranker.rank(QUERY, TEXTS)

    results = framework.run(framework.make(model), QUERY, framework.documents(TEXTS))

    assert [(result.text, result.logit, result.score) for result in results] == [
        (TEXTS[ranked.index], ranked.logit, ranked.score) for ranked in ranking
    ]
    assert all(type(value) is float for result in results for value in (result.score, result.logit))


def test_async_gives_what_sync_gives(framework: Adapter, model: str):
    adapter = framework.make(model, top=3)

    results = asyncio.run(framework.arun(adapter, QUERY, framework.documents(TEXTS)))

    assert results == framework.run(adapter, QUERY, framework.documents(TEXTS))


async def test_async_leaves_the_event_loop_running_while_it_loads_and_scores(framework: Adapter, model: str):
    adapter = framework.make(model, options={"batch_tokens": 999})
    task = asyncio.ensure_future(framework.arun(adapter, QUERY, framework.documents(TEXTS)))
    ticks = 0
    while not task.done():
        await asyncio.sleep(0.001)
        ticks += 1

    assert ticks > 3


def test_ids_and_metadata_are_kept_and_the_callers_documents_unchanged(framework: Adapter, model: str):
    documents = framework.documents(TEXTS, {"source": "atlas", "page": {"number": 7}})
    before = deepcopy(documents)

    results = framework.run(framework.make(model), QUERY, documents)

    assert documents == before
    assert {(result.id, result.text) for result in results} == {(f"id-{n}", text) for n, text in enumerate(TEXTS)}
    assert all(result.metadata == {"source": "atlas", "page": {"number": 7}} for result in results)
    assert json.dumps(results)


def test_equal_documents_keep_their_order(framework: Adapter, model: str):
    results = framework.run(framework.make(model), QUERY, framework.documents(["same", "same", "same"]))

    assert [result.id for result in results] == ["id-0", "id-1", "id-2"]


@pytest.mark.parametrize(("top", "count"), [(None, 5), (1, 1), (3, 3), (99, 5)])
def test_the_best_are_kept_and_none_means_all(framework: Adapter, model: str, top: int | None, count: int):
    everything = framework.run(framework.make(model), QUERY, framework.documents(TEXTS))

    results = framework.run(framework.make(model, top), QUERY, framework.documents(TEXTS))

    assert results == everything[:count]


@pytest.mark.parametrize("top", [0, -1, True])
def test_keeping_fewer_than_one_is_refused_at_once(framework: Adapter, model: str, top: int):
    with pytest.raises(ValueError, match=r"greater than or equal to 1|from 1 up|valid integer"):
        framework.make(model, top)


def test_an_instruction_reaches_the_prompt(framework: Adapter, model: str, reranker: Reranker):
    expected = reranker.rank(QUERY, TEXTS, instruction="Find lies.")

    results = framework.run(framework.make(model, instruction="Find lies."), QUERY, framework.documents(TEXTS))

    assert [result.logit for result in results] == [ranked.logit for ranked in expected]


def test_options_reach_the_core(framework: Adapter, model: str):
    adapter = framework.make(model, options={"activation": "identity", "max_tokens": 300})

    results = framework.run(adapter, QUERY, framework.documents(TEXTS))

    assert all(result.score == result.logit for result in results)


def test_unknown_arguments_and_options_are_refused_at_once(framework: Adapter, model: str):
    with pytest.raises((ValueError, TypeError), match="topn"):
        framework.make(model, topn=5)
    with pytest.raises(ValueError, match="topn"):
        framework.make(model, options={"topn": 5})


def test_no_documents_give_none_without_loading_the_model(framework: Adapter):
    adapter = framework.make("no-such/model")

    assert framework.run(adapter, QUERY, []) == []
    assert asyncio.run(framework.arun(adapter, QUERY, [])) == []


def test_an_unknown_model_is_the_cores_error(framework: Adapter):
    with pytest.raises(CheckpointError, match="no-such/model"):
        framework.run(framework.make("no-such/model"), QUERY, framework.documents(TEXTS))


def test_a_blank_query_is_the_cores_error(framework: Adapter, model: str):
    with pytest.raises(ValueError, match="the query is empty"):
        framework.run(framework.make(model), "  ", framework.documents(TEXTS))


def test_threads_share_one_adapter(framework: Adapter, model: str):
    adapter = framework.make(model, options={"max_tokens": 700})
    queries = [f"question {n}?" for n in range(8)]

    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda query: framework.run(adapter, query, framework.documents(TEXTS)), queries))

    for query, results in zip(queries, together, strict=True):
        assert [result.id for result in results] == [
            result.id for result in framework.run(adapter, query, framework.documents(TEXTS))
        ]


def test_adapters_of_one_model_share_its_weights(framework: Adapter, model: str):
    first, second = framework.make(model), framework.make(model)

    framework.run(first, QUERY, framework.documents(TEXTS))
    framework.run(second, QUERY, framework.documents(TEXTS))

    assert first._reranker is second._reranker is not None


def test_documents_may_come_in_any_sequence(framework: Adapter, model: str):
    documents = framework.documents(TEXTS)

    results = framework.run(framework.make(model), QUERY, (document for document in documents))

    assert results == framework.run(framework.make(model), QUERY, documents)


def test_another_model_is_taken_when_it_is_named(framework: Adapter, model: str):
    adapter = framework.make(model)
    framework.run(adapter, QUERY, framework.documents(TEXTS))

    adapter.model = "no-such/model"

    with pytest.raises(CheckpointError, match="no-such/model"):
        framework.run(adapter, QUERY, framework.documents(TEXTS))


def test_a_shared_reranker_that_was_closed_is_opened_again(framework: Adapter, model: str):
    adapter = framework.make(model)
    results = framework.run(adapter, QUERY, framework.documents(TEXTS))

    with open_reranker(model):
        pass

    assert framework.run(adapter, QUERY, framework.documents(TEXTS)) == results


def test_a_copy_shares_the_weights(framework: Adapter, model: str):
    adapter = framework.make(model)
    framework.run(adapter, QUERY, framework.documents(TEXTS))

    copy = deepcopy(adapter)

    assert copy._reranker is adapter._reranker
