"""Names and methods of other LangChain rerankers work, so that this one can take their place; and dumps of chains."""

from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from langchain_core.documents import Document
from langchain_core.load import dumps, loads
from langchain_core.runnables import RunnableParallel, RunnablePassthrough, RunnableSequence, RunnableSerializable

from langchain_onelogit import OnelogitRerank, RerankRetriever, RerankRunnable
from onelogit import DEMO_MODEL, InputError

QUERY = "What is the capital of China?"
TEXTS = ["Bananas are yellow.", "The capital of China is Beijing.", "서울"]
DOCUMENTS = [Document(page_content=text, id=text) for text in TEXTS]
CORE = [RunnableParallel, RunnablePassthrough, RunnableSequence]
OWN = [OnelogitRerank, RerankRetriever, RerankRunnable]


class Found(RunnableSerializable[str, list[Document]]):
    """A retriever that can be dumped."""

    @classmethod
    def is_lc_serializable(cls) -> bool:
        return True

    def invoke(self, input: str, config: Any = None, **_: Any) -> list[Document]:
        return DOCUMENTS


def loaded(text: str) -> Any:
    return loads(
        text, allowed_objects=[*OWN, *CORE, Found], valid_namespaces=["langchain_onelogit", *Found.get_lc_namespace()]
    )


@pytest.fixture
def rerank() -> OnelogitRerank:
    return OnelogitRerank(model=DEMO_MODEL)


def test_a_retriever_takes_the_names_of_the_contextual_compression_retriever(rerank: OnelogitRerank):
    own = RerankRetriever(retriever=Found(), rerank=rerank, top_n=2)
    other = RerankRetriever(base_retriever=Found(), base_compressor=rerank, top_n="2")

    assert other == own
    assert other.invoke(QUERY) == own.invoke(QUERY)
    assert (other.base_retriever, other.base_compressor) == (other.retriever, other.rerank)
    assert RerankRetriever(retriever=Found(), base_compressor=rerank).rerank is rerank


@pytest.mark.parametrize(
    ("further", "message"),
    [
        ({"base_retriever": Found()}, "retriever is given twice, also as base_retriever"),
        ({"base_compressor": OnelogitRerank(model=DEMO_MODEL)}, "rerank is given twice, also as base_compressor"),
        ({"top_k": 3}, "top_k is top_n here"),
        ({"compressor": 3}, r"unknown option 'compressor' \(did you mean 'base_compressor'\?\)"),
    ],
)
def test_a_retriever_refuses_a_second_name_and_an_unknown_one(rerank: OnelogitRerank, further: dict, message: str):
    with pytest.raises(ValueError, match=message):
        RerankRetriever(retriever=Found(), rerank=rerank, **further)


def test_relevance_is_returned_as_cohere_returns_it(rerank: OnelogitRerank):
    ranked = rerank.compress_documents(DOCUMENTS, QUERY)

    results = rerank.rerank(DOCUMENTS, QUERY)

    assert results == [
        {"index": DOCUMENTS.index(document), "relevance_score": document.metadata["relevance_score"]}
        for document in ranked
    ]
    assert all(type(result["relevance_score"]) is float for result in results)


async def test_relevance_can_be_awaited(rerank: OnelogitRerank):
    assert await rerank.arerank(TEXTS, QUERY, top_n=2) == rerank.rerank(TEXTS, QUERY)[:2]


def test_texts_documents_and_dictionaries_are_read(rerank: OnelogitRerank):
    expected = rerank.rerank([TEXTS[0], TEXTS[1], "title: 서울\nid: 3\n"], QUERY)
    mixed: list[Any] = [TEXTS[0], DOCUMENTS[1], {"title": "서울", "id": 3, "draft": True}]

    assert rerank.rerank(mixed, QUERY, rank_fields=["title", "id"]) == expected
    assert rerank.rerank(mixed, QUERY) != expected
    assert rerank.rerank([], QUERY) == []


def test_a_row_of_a_database_is_read(rerank: OnelogitRerank):
    row = {"day": date(2026, 11, 29), "at": datetime(2026, 11, 29, 12), "price": Decimal("9.50"), "id": UUID(int=7)}
    text = f"day: 2026-11-29\nat: 2026-11-29 12:00:00\nprice: '9.50'\nid: {UUID(int=7)}\nrow:\n- 2026-11-29\n"

    assert rerank.rerank([{**row, "row": (row["day"],)}], QUERY) == rerank.rerank([text], QUERY)


async def test_arguments_of_cohere_that_change_nothing_are_taken(rerank: OnelogitRerank):
    expected = rerank.rerank(TEXTS, QUERY)

    for model in (None, rerank.model):
        same = {"rank_fields": None, "model": model, "top_n": -1, "max_tokens_per_doc": None}
        assert rerank.rerank(TEXTS, QUERY, **same) == expected
        assert await rerank.arerank(TEXTS, QUERY, **same) == expected


def test_the_number_of_results_is_that_of_the_call_or_of_the_compressor():
    rerank = OnelogitRerank(model=DEMO_MODEL, top_n=2)

    assert [len(rerank.rerank(TEXTS, QUERY, **given)) for given in ({}, {"top_n": 1}, {"top_n": None})] == [2, 1, 3]
    assert len(rerank.rerank(TEXTS, QUERY, top_n="1")) == 1  # type: ignore[arg-type]
    assert rerank.rerank(TEXTS, QUERY)[0]["index"] == 1


def test_metadata_and_threshold_apply_to_relevance():
    documents = [Document(page_content="x", metadata={"title": text}) for text in TEXTS]
    titled = OnelogitRerank(model=DEMO_MODEL, metadata_fields=["title"])
    best = titled.rerank(documents, QUERY)[0]["relevance_score"]

    assert titled.rerank(documents, QUERY) == titled.rerank([f"{text}\nx" for text in TEXTS], QUERY)
    assert len(OnelogitRerank(model=DEMO_MODEL, score_threshold=best).rerank(TEXTS, QUERY)) <= 1  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("documents", "further", "message"),
    [
        (TEXTS, {"top_n": 0}, "top_n must be a whole number from 1 up"),
        (TEXTS, {"top_k": 3}, "unknown option 'top_k': top_k is top_n here"),
        (TEXTS, {"model": "rerank-v3.5"}, "the compressor has one model, .*; leave model='rerank-v3.5' out, or create"),
        (TEXTS, {"max_tokens_per_doc": 9}, "max_tokens is set when the adapter is created"),
        (TEXTS[0], {}, "documents must be a list of Documents, not a str"),
        ([TEXTS[0], None], {}, "document 1 must be a string, not NoneType"),
        ([{"x": object()}], {}, "the document contains a object, which cannot be dumped"),
    ],
)
def test_what_cannot_be_ranked_is_refused(rerank: OnelogitRerank, documents: Any, further: dict, message: str):
    with pytest.raises(InputError, match=message):
        rerank.rerank(documents, QUERY, **further)


def test_a_tolerated_error_leaves_no_score():
    rerank = OnelogitRerank(model="no-such/model", on_error="keep_order", top_n=2)

    assert rerank.rerank(TEXTS, QUERY) == [{"index": 0, "relevance_score": None}, {"index": 1, "relevance_score": None}]


def test_a_retriever_survives_its_dump(rerank: OnelogitRerank):
    retriever = RerankRetriever(base_retriever=Found(), base_compressor=rerank, top_n=2)

    read = loaded(dumps(retriever))

    assert dumps(read) == dumps(retriever)
    assert (read.rerank, read.top_n) == (rerank, 2)
    assert read.invoke(QUERY) == retriever.invoke(QUERY)


def test_a_step_and_its_chain_survive_their_dumps():
    rerank = OnelogitRerank(model=DEMO_MODEL, max_tokens="300", token="hf_secret")
    chain: Any = {"query": RunnablePassthrough(), "documents": Found()} | rerank.as_runnable()

    for runnable, given in ((chain, QUERY), (rerank.as_runnable(), {"query": QUERY, "documents": DOCUMENTS})):
        text = dumps(runnable)
        read = loaded(text)

        assert "hf_secret" not in text
        assert "max_tokens" in text
        assert read.invoke(given) == runnable.invoke(given)
        assert dumps(read) == dumps(loaded(dumps(read)))


async def test_a_step_has_the_ways_of_a_runnable(rerank: OnelogitRerank):
    step = rerank.as_runnable()
    given: Any = {"query": QUERY, "documents": DOCUMENTS, "top_n": 1}

    assert step.batch([given, given]) == [step.invoke(given)] * 2
    assert [*step.stream(given)] == [await step.ainvoke(given)]
    assert step.get_name() == "OnelogitRerank"
    assert step.with_config(run_name="mine").invoke(given) == step.invoke(given)
    assert step.get_input_jsonschema()["$defs"]["RerankInput"]["properties"].keys() >= {"query", "documents", "top_n"}


def test_a_dictionary_that_is_nested_too_deeply_is_refused():
    document: dict[str, object] = {}
    for _ in range(2_000):
        document = {"a": document}

    with pytest.raises(InputError, match="the document is nested more than 100 levels deep"):
        OnelogitRerank(model=DEMO_MODEL).rerank([document], QUERY)
