"""The Haystack adapter: pipelines from YAML, serialisation, lifecycle, and options per run."""

import asyncio
import inspect
from dataclasses import replace
from typing import Any

import pytest
from haystack import Document, Pipeline, component
from haystack.components.joiners import DocumentJoiner
from haystack.components.rankers import MetaFieldRanker
from haystack.core.errors import DeserializationError
from haystack.utils import ComponentDevice, Secret

from haystack_integrations.components.rankers.onelogit import OnelogitRanker
from onelogit import DEMO_MODEL, InputError, Reranker
from support.tiny import Tiny

QUERY = "What is the capital of China?"
DOCUMENTS = [
    Document(content="Bananas are yellow.", id="banana"),
    Document(content="The capital of France is Paris.", id="paris"),
    Document(content="Beijing is the capital of China.", id="beijing"),
]
YAML = f"""
components:
  ranker:
    type: haystack_integrations.components.rankers.onelogit.ranker.OnelogitRanker
    init_parameters:
      model: {DEMO_MODEL}
      top_k: 2
      instruction: null
      device: null
      token: {{type: env_var, env_vars: [HF_API_TOKEN, HF_TOKEN], strict: false}}
connections: []
"""


def ids(answer: dict[str, dict[str, list[Document]]]) -> list[str]:
    return [document.id for document in answer["ranker"]["documents"]]


def test_a_pipeline_from_yaml_reranks_and_can_be_dumped():
    pipeline = Pipeline.loads(YAML)
    copy = Pipeline.loads(pipeline.dumps())

    for each in (pipeline, copy):
        assert ids(each.run({"ranker": {"query": QUERY, "documents": DOCUMENTS}})) == ["beijing", "paris"]
    assert copy.dumps() == pipeline.dumps()


async def test_it_reranks_in_an_async_pipeline():
    pipeline = Pipeline.loads(YAML)

    answer = await pipeline.run_async({"ranker": {"query": QUERY, "documents": DOCUMENTS}})

    assert ids(answer) == ["beijing", "paris"]


def test_an_unknown_parameter_in_yaml_is_refused():
    with pytest.raises(DeserializationError):
        Pipeline.loads(YAML.replace("top_k", "topk"))


def test_a_pipeline_warms_up_and_closes_its_ranker(tiny_qwen: Tiny):
    pipeline, ranker = Pipeline(), OnelogitRanker(str(tiny_qwen.folder))
    pipeline.add_component("ranker", ranker)

    pipeline.warm_up()
    assert ranker._handle.is_open
    pipeline.close()

    assert not ranker._handle.is_open


def test_a_pipeline_with_keep_order_survives_a_missing_model():
    pipeline = Pipeline()
    pipeline.add_component("ranker", OnelogitRanker("no-such/model", on_error="keep_order"))
    inputs = {"ranker": {"query": QUERY, "documents": DOCUMENTS}}

    assert ids(pipeline.run(inputs)) == ["banana", "paris", "beijing"]
    assert ids(asyncio.run(pipeline.run_async(inputs))) == ["banana", "paris", "beijing"]


def test_a_pipeline_warms_up_only_once(tiny_qwen: Tiny, monkeypatch: pytest.MonkeyPatch):
    queries: list[str] = []
    rank = Reranker.logits
    monkeypatch.setattr(
        Reranker, "logits", lambda self, query, *a, **k: (queries.append(query), rank(self, query, *a, **k))[1]
    )
    pipeline = Pipeline()
    pipeline.add_component("ranker", OnelogitRanker(str(tiny_qwen.folder), options={"max_tokens": 812}))

    for _ in range(3):
        pipeline.run({"ranker": {"query": QUERY, "documents": DOCUMENTS}})

    assert queries == ["warm up", QUERY, QUERY, QUERY]


async def test_an_async_pipeline_loads_outside_the_event_loop_and_closes(tiny_qwen: Tiny):
    pipeline, ranker = Pipeline(), OnelogitRanker(str(tiny_qwen.folder), options={"max_tokens": 811})
    pipeline.add_component("ranker", ranker)

    task = asyncio.ensure_future(pipeline.warm_up_async())
    ticks = 0
    while not task.done():
        await asyncio.sleep(0.001)
        ticks += 1
    assert ticks > 3
    assert ranker._handle.is_open
    await pipeline.close_async()

    assert not ranker._handle.is_open


def test_run_and_run_async_have_the_same_signature():
    assert inspect.signature(OnelogitRanker.run) == inspect.signature(OnelogitRanker.run_async)


def test_options_of_a_run_override_those_of_the_constructor(tiny_qwen: Tiny):
    ranker = OnelogitRanker(str(tiny_qwen.folder), top_k=1, scale_score=True, score_threshold=0.9)
    other = OnelogitRanker(str(tiny_qwen.folder), instruction="Find lies.", scale_score=False, score_threshold=-99.0)

    answer = ranker.run(QUERY, DOCUMENTS, top_k=3, instruction="Find lies.", scale_score=False, score_threshold=-99.0)

    assert answer == other.run(QUERY, DOCUMENTS)
    assert len(answer["documents"]) == 3


def test_scores_have_the_requested_scale():
    ranker = OnelogitRanker(DEMO_MODEL, options={"activation": "identity"})

    as_declared = ranker.run(QUERY, DOCUMENTS)["documents"]
    raw = ranker.run(QUERY, DOCUMENTS, scale_score=False)["documents"]
    scaled = ranker.run(QUERY, DOCUMENTS, scale_score=True)["documents"]

    assert [document.score for document in raw] == [document.meta["relevance_logit"] for document in raw]
    assert as_declared == raw
    assert all(0 < document.score < 1 for document in scaled)


def test_a_text_is_a_scale_only_if_it_is_true_or_false():
    ranker = OnelogitRanker(DEMO_MODEL)

    assert ranker.run(QUERY, DOCUMENTS, scale_score="false") == ranker.run(QUERY, DOCUMENTS, scale_score=False)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="scale_score must be True or False, not 'no'"):
        ranker.run(QUERY, DOCUMENTS, scale_score="no")  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["concatenate", "merge", "reciprocal_rank_fusion", "distribution_based_rank_fusion"])
def test_a_joiner_recognises_reranked_documents(mode: str):
    first, second = DOCUMENTS[:2], OnelogitRanker(DEMO_MODEL).run(QUERY, DOCUMENTS[1:])["documents"]
    scored = [replace(document, score=0.5) for document in first]

    joined = DocumentJoiner(join_mode=mode).run([scored, second])["documents"]

    assert sorted(document.id for document in joined) == ["banana", "beijing", "paris"]


def test_falsy_options_of_a_run_are_used():
    ranker = OnelogitRanker(DEMO_MODEL, scale_score=True, score_threshold=0.99)

    assert len(ranker.run(QUERY, DOCUMENTS, score_threshold=0.0)["documents"]) == 3
    raw = ranker.run(QUERY, DOCUMENTS, scale_score=False, score_threshold=0.0)["documents"]

    assert all(document.score == document.meta["relevance_logit"] >= 0 for document in raw)


@pytest.mark.parametrize("top_k", [0, -1])
def test_a_top_k_of_zero_is_refused_and_not_replaced_by_the_default(top_k: int):
    ranker = OnelogitRanker(DEMO_MODEL, top_k=2)

    with pytest.raises(InputError, match=f"top_k must be a whole number from 1 up, or None for all, not {top_k}"):
        ranker.run(QUERY, DOCUMENTS, top_k=top_k)


def test_the_dump_contains_the_constructors_arguments():
    ranker = OnelogitRanker(
        "org/model", device=ComponentDevice.from_str("cuda:1"), dtype="bfloat16", options={"max_tokens": 512}
    )

    assert ranker.to_dict() == {
        "type": "haystack_integrations.components.rankers.onelogit.ranker.OnelogitRanker",
        "init_parameters": {
            "model": "org/model",
            "device": "cuda:1",
            "dtype": "bfloat16",
            "token": {"type": "env_var", "env_vars": ["HF_API_TOKEN", "HF_TOKEN"], "strict": False},
            "top_k": None,
            "score_threshold": None,
            "instruction": None,
            "scale_score": None,
            "meta_fields_to_embed": [],
            "read_images": True,
            "image_meta_fields": [],
            "embedding_separator": "\n",
            "deduplicate": True,
            "on_error": "raise",
            "progress_bar": False,
            "url": None,
            "protocol": None,
            "api_key": {"type": "env_var", "env_vars": ["ONELOGIT_API_KEY"], "strict": False},
            "options": {"max_tokens": 512},
        },
    }


def test_a_plain_text_token_cannot_be_dumped():
    with pytest.raises(ValueError, match="token"):
        OnelogitRanker("org/model", token=Secret.from_token("hf_secret")).to_dict()


def test_meta_fields_are_scored_with_the_content():
    titled = Document(content="It is Beijing.", meta={"title": "The capital of China", "year": None}, id="titled")
    whole = Document(content="The capital of China: It is Beijing.", id="whole")
    ranker = OnelogitRanker(DEMO_MODEL, meta_fields_to_embed=["title", "year", "author"], embedding_separator=": ")

    ranked = ranker.run(QUERY, [titled, whole])["documents"]

    assert ranked[0].meta["relevance_logit"] == ranked[1].meta["relevance_logit"]


def test_a_document_without_content_counts_as_empty():
    ranked = OnelogitRanker(DEMO_MODEL).run(QUERY, [Document(content=None, id="none"), DOCUMENTS[2]])["documents"]

    assert [document.id for document in ranked] == ["beijing", "none"]


def test_a_meta_field_ranker_counts_sigmoids_and_no_logits():
    documents = [replace(document, meta={"year": 2000 + n}) for n, document in enumerate(DOCUMENTS)]
    by_year = MetaFieldRanker("year", weight=0.5, ranking_mode="linear_score")
    scores = {}
    for scale in (True, False):
        reranked = OnelogitRanker(DEMO_MODEL, scale_score=scale).run(QUERY, documents)["documents"]
        merged = {each.id: each.score for each in by_year.run(documents=reranked)["documents"]}
        scores[scale] = [(merged[each.id], each.score) for each in reranked]

    assert all(merged is not None and merged > score / 2 for merged, score in scores[True])
    assert any(not 0 <= score <= 1 for _, score in scores[False])
    assert all(merged <= 0.5 for merged, score in scores[False] if not 0 <= score <= 1)


def test_a_subclass_may_have_arguments_of_its_own():
    @component
    class Titled(OnelogitRanker):
        def __init__(self, model: str, title: str, **further: Any) -> None:
            OnelogitRanker.__init__(self, model, **further)  # `component` replaces the class of super()
            self.title = title

    titled = Titled(DEMO_MODEL, title="a title", top_k=1, max_tokens=300)

    assert (titled.title, titled.max_tokens) == ("a title", 300)
    assert ids({"ranker": titled.run(QUERY, DOCUMENTS)}) == ["beijing"]
    with pytest.raises(InputError, match="top_n is top_k here"):
        Titled(DEMO_MODEL, title="a title", top_n=1)
