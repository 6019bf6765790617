"""The contract of all adapters: results, unchanged inputs, and errors."""

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy

import pytest
import yaml

from onelogit import CheckpointError, InputError, Reranker
from support.adapters import ADAPTERS, OLD_SCORE, Adapter, make, renamed
from support.tiny import Tiny

QUERY = "What is the capital of China?"
TEXTS = ["The capital of China is Beijing.", "서울", "No.", "yes " * 40, "No."]

WITH_CALL_OPTIONS = pytest.mark.parametrize(
    "framework", [each for each in ADAPTERS if each.has_call_options], ids=lambda adapter: type(adapter).__name__
)


@pytest.fixture(params=ADAPTERS, ids=lambda adapter: type(adapter).__name__)
def framework(request: pytest.FixtureRequest) -> Adapter:
    return request.param


@pytest.fixture
def model(tiny_qwen: Tiny) -> str:
    return str(tiny_qwen.folder)


def test_an_adapter_ranks_like_the_core(framework: Adapter, model: str, reranker: Reranker):
    ranking = reranker.rank(QUERY, TEXTS)

    results = framework.run(make(framework, model), QUERY, framework.documents(TEXTS))

    assert [(result.text, result.logit, result.score) for result in results] == [
        (TEXTS[ranked.index], ranked.logit, ranked.score) for ranked in ranking
    ]
    assert all(type(value) is float for result in results for value in (result.score, result.logit))


def test_async_and_sync_give_the_same_results(framework: Adapter, model: str):
    adapter = make(framework, model, top=3)

    results = asyncio.run(framework.arun(adapter, QUERY, framework.documents(TEXTS)))

    assert results == framework.run(adapter, QUERY, framework.documents(TEXTS))


async def test_async_does_not_block_the_event_loop_while_it_loads_and_scores(framework: Adapter, model: str):
    adapter = make(framework, model, options={"batch_tokens": 999})
    task = asyncio.ensure_future(framework.arun(adapter, QUERY, framework.documents(TEXTS)))
    ticks = 0
    while not task.done():
        await asyncio.sleep(0.001)
        ticks += 1

    assert ticks > 3


def test_ids_and_metadata_are_kept_and_the_callers_documents_are_unchanged(framework: Adapter, model: str):
    documents = framework.documents(TEXTS, {"source": "atlas", "page": {"number": 7}})
    before = deepcopy(documents)

    results = framework.run(make(framework, model), QUERY, documents)

    assert documents == before
    assert {(result.id, result.text) for result in results} == {(f"id-{n}", text) for n, text in enumerate(TEXTS)}
    assert all(result.metadata == {"source": "atlas", "page": {"number": 7}} for result in results)
    assert json.dumps(results)


def test_metadata_is_written_like_that_of_any_document(framework: Adapter, model: str):
    (document,) = framework.call(make(framework, model), QUERY, framework.documents(TEXTS[:1], {"page": 7}))
    metadata = document.meta if hasattr(document, "meta") else document.metadata
    listed = dict(metadata)

    assert listed["page"] == 7
    assert json.dumps(metadata) == json.dumps(listed)
    assert str(metadata) == str(listed)
    assert yaml.safe_dump(metadata) == yaml.safe_dump(listed)
    assert yaml.dump(metadata) == yaml.dump(listed)
    assert yaml.dump(metadata, Dumper=yaml.CSafeDumper) == yaml.safe_dump(listed)


def test_equal_documents_keep_their_order(framework: Adapter, model: str):
    results = framework.run(make(framework, model), QUERY, framework.documents(["same", "same", "same"]))

    assert [result.id for result in results] == ["id-0", "id-1", "id-2"]


@pytest.mark.parametrize(("top", "count"), [(None, 5), (1, 1), (3, 3), (99, 5)])
def test_the_best_documents_are_kept_and_none_means_all(framework: Adapter, model: str, top: int | None, count: int):
    everything = framework.run(make(framework, model), QUERY, framework.documents(TEXTS))

    results = framework.run(make(framework, model, top), QUERY, framework.documents(TEXTS))

    assert results == everything[:count]


@pytest.mark.parametrize("top", [0, -1, True])
def test_keeping_fewer_than_one_document_is_refused_by_the_constructor(framework: Adapter, model: str, top: int):
    with pytest.raises(ValueError, match=r"greater than or equal to 1|from 1 up|valid integer"):
        make(framework, model, top)


def test_an_instruction_reaches_the_prompt(framework: Adapter, model: str, reranker: Reranker):
    expected = reranker.rank(QUERY, TEXTS, instruction="Find lies.")

    results = framework.run(make(framework, model, instruction="Find lies."), QUERY, framework.documents(TEXTS))

    assert [result.logit for result in results] == [ranked.logit for ranked in expected]
    adapter = make(framework, model, instruction="Find lies.")
    assert asyncio.run(framework.arun(adapter, QUERY, framework.documents(TEXTS))) == results


def test_options_reach_the_core(framework: Adapter, model: str):
    adapter = make(framework, model, options={"activation": "identity", "max_tokens": 300})

    results = framework.run(adapter, QUERY, framework.documents(TEXTS))

    assert all(result.score == result.logit for result in results)


def test_unknown_arguments_and_options_are_refused_by_the_constructor(framework: Adapter, model: str):
    with pytest.raises((ValueError, TypeError), match="topn"):
        make(framework, model, topn=5)
    with pytest.raises(ValueError, match="topn"):
        make(framework, model, options={"topn": 5})


def test_no_documents_give_no_results_without_loading_the_model(framework: Adapter):
    adapter = make(framework, "no-such/model")

    assert framework.run(adapter, QUERY, []) == []
    assert asyncio.run(framework.arun(adapter, QUERY, [])) == []


def test_an_unknown_model_raises_the_cores_error(framework: Adapter):
    with pytest.raises(CheckpointError, match="no-such/model"):
        framework.run(make(framework, "no-such/model"), QUERY, framework.documents(TEXTS))


def test_a_blank_query_raises_the_cores_error(framework: Adapter, model: str):
    with pytest.raises(ValueError, match="the query is empty"):
        framework.run(make(framework, model), "  ", framework.documents(TEXTS))


def test_threads_share_one_adapter(framework: Adapter, model: str):
    adapter = make(framework, model, options={"max_tokens": 700})
    queries = [f"question {n}?" for n in range(8)]

    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda query: framework.run(adapter, query, framework.documents(TEXTS)), queries))

    for query, results in zip(queries, together, strict=True):
        assert [result.id for result in results] == [
            result.id for result in framework.run(adapter, query, framework.documents(TEXTS))
        ]


def test_documents_can_come_from_a_generator(framework: Adapter, model: str):
    documents = framework.documents(TEXTS)

    results = framework.run(make(framework, model), QUERY, (document for document in documents))

    assert results == framework.run(make(framework, model), QUERY, documents)


def test_a_changed_model_name_is_used(framework: Adapter, model: str):
    adapter = make(framework, model)
    framework.run(adapter, QUERY, framework.documents(TEXTS))

    adapter.model = "no-such/model"

    with pytest.raises(CheckpointError, match="no-such/model"):
        framework.run(adapter, QUERY, framework.documents(TEXTS))


@pytest.mark.parametrize("threshold", [-2.95, 0.0, 0])
def test_a_threshold_keeps_scores_that_reach_it_and_zero_is_a_threshold(
    framework: Adapter, model: str, threshold: float
):
    options = {"activation": "identity"}
    everything = framework.run(make(framework, model, options=options), QUERY, framework.documents(TEXTS))
    kept = [result for result in everything if result.score >= threshold]
    adapter = make(framework, model, score_threshold=threshold, options=options)

    assert framework.run(adapter, QUERY, framework.documents(TEXTS)) == kept
    assert len(kept) < len(everything)


def test_the_threshold_is_applied_before_the_best_documents_are_kept(framework: Adapter, model: str):
    everything = framework.run(make(framework, model), QUERY, framework.documents(TEXTS))
    adapter = make(framework, model, 3, score_threshold=everything[0].score)

    assert framework.run(adapter, QUERY, framework.documents(TEXTS)) == everything[:1]


@pytest.mark.parametrize("threshold", [float("nan"), "high", True])
def test_a_threshold_that_is_not_a_number_is_refused_by_the_constructor(
    framework: Adapter, model: str, threshold: object
):
    with pytest.raises(ValueError, match="score_threshold"):
        make(framework, model, score_threshold=threshold)


@WITH_CALL_OPTIONS
def test_options_of_a_call_override_those_of_the_constructor(framework: Adapter, model: str):
    adapter = make(framework, model, 1, instruction="Find lies.", options={"activation": "identity"})
    overrides = {"top_n": 2, "instruction": "", "score_threshold": -2.95}
    expected = framework.run(
        make(framework, model, 2, instruction="", score_threshold=-2.95, options={"activation": "identity"}),
        QUERY,
        framework.documents(TEXTS),
    )

    assert framework.run(adapter, QUERY, framework.documents(TEXTS), **overrides) == expected
    assert asyncio.run(framework.arun(adapter, QUERY, framework.documents(TEXTS), **overrides)) == expected
    assert len(framework.run(adapter, QUERY, framework.documents(TEXTS))) == 1


@WITH_CALL_OPTIONS
def test_unknown_options_of_a_call_are_refused(framework: Adapter, model: str):
    with pytest.raises((ValueError, TypeError), match="topn"):
        framework.run(make(framework, model), QUERY, framework.documents(TEXTS), topn=3)
    with pytest.raises(ValueError, match="from 1 up"):
        framework.run(make(framework, model, 3), QUERY, framework.documents(TEXTS), top_n=0)


def test_a_long_document_is_scored_by_its_best_chunk(framework: Adapter, model: str):
    texts = ["No. " * 200 + "Beijing is the capital of China.", "No."]
    options = {"max_tokens": 300, "long_documents": "chunk_max"}
    with Reranker.load(model, **options) as reranker:
        expected = reranker.rank(QUERY, texts)

    results = framework.run(make(framework, model, options=options), QUERY, framework.documents(texts))

    assert [result.logit for result in results] == [ranked.logit for ranked in expected]


@pytest.mark.parametrize("has_error", [False, True])
def test_deduplication_keeps_the_best_document_of_each_id(framework: Adapter, model: str, has_error: bool):
    documents = framework.documents(["No.", TEXTS[0], "yes " * 40, TEXTS[0]], ids=["a", "a", "b", "c"])
    every = framework.run(make(framework, model, deduplicate=False), QUERY, documents)
    best = {result.id: result for result in reversed(every)}
    adapter = make(framework, "no-such/model" if has_error else model, deduplicate=True, on_error="keep_order")

    results = framework.run(adapter, QUERY, documents)

    assert [result.id for result in every].count("a") == 2
    if has_error:
        assert [(result.id, result.text) for result in results] == [("a", "No."), ("b", "yes " * 40), ("c", TEXTS[0])]
    else:
        assert results == [result for result in every if best[result.id] is result]


@pytest.mark.parametrize("top", [None, 2])
@pytest.mark.parametrize(("name", "query"), [("no-such/model", QUERY), (None, "  ")])
def test_documents_keep_their_order_after_a_tolerated_error(
    framework: Adapter, model: str, name: str | None, query: str, top: int | None, caplog: pytest.LogCaptureFixture
):
    adapter = make(framework, name or model, top, on_error="keep_order", score_threshold=0.9)
    documents = framework.documents(TEXTS)
    before = deepcopy(documents)

    results = framework.run(adapter, query, documents)

    assert [(result.id, result.text, result.logit) for result in results] == [
        (f"id-{n}", text, None) for n, text in enumerate(TEXTS[:top])
    ]
    assert {result.score for result in results} <= {None, OLD_SCORE}
    assert "could not be ranked" in caplog.text
    assert asyncio.run(framework.arun(adapter, query, documents)) == results
    assert documents == before


@pytest.mark.parametrize("wrong", [None, "text", {"page_content": "text"}, ("text", 0.5), 7], ids=repr)
@pytest.mark.parametrize("deduplicate", [False, True])
def test_what_is_no_document_is_named_by_its_position_and_type(
    framework: Adapter, model: str, wrong: object, deduplicate: bool
):
    documents = [*framework.documents(TEXTS[:2]), wrong, wrong]
    expected = rf"document 2 must be a \w+, not (a )?{type(wrong).__name__.removesuffix('Type')}"
    for adapter in (make(framework, model, deduplicate=deduplicate), make(framework, "no-such/model")):
        with pytest.raises(InputError, match=expected):
            framework.call(adapter, QUERY, documents)

    kept = framework.call(make(framework, model, 3, on_error="keep_order", deduplicate=deduplicate), QUERY, documents)

    assert kept == documents[:3]


def test_what_is_no_list_of_documents_is_refused_even_if_errors_are_tolerated(framework: Adapter, model: str):
    adapter = make(framework, model, on_error="keep_order")
    one = framework.documents(TEXTS)[0]
    for wrong in (None, "text", one, getattr(one, "node", one), {"text": 1}, {1}, 7):
        with pytest.raises(InputError, match=r"documents must be a list of \w+, not (None|a )"):
            framework.call(adapter, QUERY, wrong)


def test_documents_of_an_earlier_reranker_are_unchanged_after_a_tolerated_error(framework: Adapter, model: str):
    documents = framework.documents(TEXTS, {"relevance_score": 0.9, "relevance_logit": 2.0, "retrieval_score": 0.3})
    ranked = framework.call(make(framework, model), QUERY, documents)

    for given in (documents, ranked):
        kept = framework.call(make(framework, "no-such/model", on_error="keep_order"), QUERY, given)

        assert kept == given
        assert [vars(each) for each in kept] == [vars(each) for each in given]
        assert all(mine is not theirs for mine, theirs in zip(kept, given, strict=True))


def test_an_unknown_on_error_value_is_refused(framework: Adapter, model: str):
    for choice in ("ignore", None):
        with pytest.raises(ValueError, match="keep_order"):
            make(framework, model, on_error=choice)


def test_a_progress_bar_is_shown_on_request_only(framework: Adapter, model: str, capfd: pytest.CaptureFixture[str]):
    framework.run(make(framework, model), QUERY, framework.documents(TEXTS))
    assert "reranking" not in capfd.readouterr().err

    framework.run(make(framework, model, progress=True), QUERY, framework.documents(TEXTS))

    assert "reranking: 100%" in capfd.readouterr().err


def test_callers_on_one_event_loop_share_one_adapter(framework: Adapter, model: str):
    adapter = make(framework, model)
    queries = [f"question {n}?" for n in range(8)]

    async def ask_all() -> list[object]:
        return await asyncio.gather(*[framework.arun(adapter, each, framework.documents(TEXTS)) for each in queries])

    for query, results in zip(queries, asyncio.run(ask_all()), strict=True):
        assert [result.id for result in results] == [
            result.id for result in framework.run(adapter, query, framework.documents(TEXTS))
        ]


def test_field_names_follow_the_framework(framework: Adapter, model: str):
    fields = renamed(framework, top_n=2, progress=False)

    assert all(hasattr(make(framework, model), name) for name in fields)
