"""Haystack's own ways: a pipeline loaded from YAML, dumped, and loaded again."""

import pytest
from haystack import Document, Pipeline

from haystack_integrations.components.rankers.onelogit import OnelogitRanker
from onelogit import DEMO_MODEL, InputError
from tiny import Tiny

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
connections: []
metadata: {{}}
"""


def ids(answer: dict) -> list[str]:
    return [document.id for document in answer["ranker"]["documents"]]


def test_it_reranks_in_a_pipeline_from_yaml_and_again_after_a_round_trip():
    pipeline = Pipeline.loads(YAML)
    copy = Pipeline.loads(pipeline.dumps())

    for each in (pipeline, copy):
        assert ids(each.run({"ranker": {"query": QUERY, "documents": DOCUMENTS}})) == ["beijing", "paris"]
    assert copy.dumps() == pipeline.dumps()


async def test_it_reranks_in_an_async_pipeline():
    pipeline = Pipeline.loads(YAML)

    answer = await pipeline.run_async({"ranker": {"query": QUERY, "documents": DOCUMENTS}})

    assert ids(answer) == ["beijing", "paris"]


def test_a_run_may_choose_its_own_top_k_and_instruction(tiny_qwen: Tiny):
    ranker = OnelogitRanker(str(tiny_qwen.folder), top_k=1)
    other = OnelogitRanker(str(tiny_qwen.folder), instruction="Find lies.")

    answer = ranker.run(QUERY, DOCUMENTS, top_k=3, instruction="Find lies.")

    assert answer == other.run(QUERY, DOCUMENTS)
    assert len(answer["documents"]) == 3


@pytest.mark.parametrize("top_k", [0, -1])
def test_a_top_k_of_zero_is_refused_and_not_replaced(top_k: int):
    ranker = OnelogitRanker(DEMO_MODEL, top_k=2)

    with pytest.raises(InputError, match=f"top_k must be a whole number from 1 up, or None for all, not {top_k}"):
        ranker.run(QUERY, DOCUMENTS, top_k=top_k)


def test_the_model_is_loaded_by_warm_up_and_not_before():
    ranker = OnelogitRanker(DEMO_MODEL)
    assert ranker._reranker is None

    ranker.warm_up()

    assert ranker._reranker is not None


def test_what_is_dumped_is_what_was_given():
    ranker = OnelogitRanker("org/model", options={"dtype": "bfloat16"})

    assert ranker.to_dict() == {
        "type": "haystack_integrations.components.rankers.onelogit.ranker.OnelogitRanker",
        "init_parameters": {"model": "org/model", "top_k": None, "instruction": None, "options": {"dtype": "bfloat16"}},
    }


def test_a_document_without_text_counts_as_empty():
    ranked = OnelogitRanker(DEMO_MODEL).run(QUERY, [Document(content=None, id="none"), DOCUMENTS[2]])["documents"]

    assert [document.id for document in ranked] == ["beijing", "none"]
