"""The names of texts and ids in the formats of others: what is read from an object, and what is reported as unread."""

import logging
import re
from pathlib import Path

import pytest

from onelogit import InputError
from onelogit.io.text_fields import (
    DOCUMENT_ID_NAMES,
    LIST_NAMES,
    NEGATIVE_NAMES,
    POSITIVE_NAMES,
    QUERY_ID_NAMES,
    TEXT_NAMES,
    UnreadFields,
    document_id_of,
    document_of,
    listed_documents,
    query_of,
)

OBJECTS = {
    "BEIR": ({"_id": "1", "title": "Title", "text": "text", "metadata": {}}, "1", "Title text"),
    "MTEB": ({"id": "1", "text": "text", "title": ""}, "1", "text"),
    "Pyserini": ({"id": "1", "contents": "Title\ntext"}, "1", "Title\ntext"),
    "MS MARCO v1": ({"pid": 1, "passage": "text"}, 1, "text"),
    "MS MARCO v2": ({"docid": "1", "title": "Title", "body": "text"}, "1", "Title text"),
    "MS MARCO v2.1": ({"docid": "1", "title": "Title", "segment": "text"}, "1", "Title text"),
    "ir_datasets": ({"doc_id": "1", "text": "text"}, "1", "text"),
    "Haystack": ({"id": "1", "content": "text"}, "1", "text"),
    "LangChain": ({"id": None, "page_content": "text"}, None, "text"),
    "RankLLM": ({"docid": "1", "doc": {"title": "Title", "contents": "text"}}, "1", "Title text"),
    "an object as document": ({"document": {"_id": "1", "title": "Title", "text": "text"}}, "1", "Title text"),
    "a null title": ({"_id": 0, "title": None, "text": "text"}, 0, "text"),
    "an empty text": ({"_id": "1", "title": "Title", "text": ""}, "1", "Title"),
    "a null text beside another": ({"_id": "1", "text": None, "document": "text"}, "1", "text"),
}


@pytest.mark.parametrize(("fields", "id", "text"), OBJECTS.values(), ids=OBJECTS)
def test_a_document_is_read_from_each_format(fields: dict[str, object], id: object, text: str):
    assert (document_id_of(fields), document_of(fields)) == (id, text)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "among no fields"),
        ({"title": "Title"}, "among 'title'"),
        ({"text": None}, '"text" must be a string, not NoneType'),
        ({"text": ["a"]}, '"text" must be a string, not list'),
        ({"text": {"en": "a"}}, "among 'en'"),
        ({"text": "a", "title": 0}, '"title" must be a string, not int'),
        ({"text": "a", "title": False}, '"title" must be a string, not bool'),
    ],
)
def test_an_object_without_a_text_is_an_error(fields: dict[str, object], message: str):
    with pytest.raises(InputError) as error:
        document_of(fields)

    assert message in str(error.value)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"query_id": "a", "query": "q"}, ("q", "a")),
        ({"qid": 1, "query": "q", "id": "document", "text": "t"}, ("q", 1)),
        ({"_id": "a", "query": "q", "documents": []}, ("q", "a")),
        ({"id": "a", "query": "q", "text": "t"}, ("q", None)),  # the document's
        ({"query": {"_id": "a", "text": "q"}, "documents": []}, ("q", "a")),
        ({"query_id": "b", "query": {"qid": "a", "text": "q"}}, ("q", "b")),
        ({"documents": ["d"]}, (None, None)),
    ],
)
def test_a_query_is_a_text_or_an_object(fields: dict[str, object], expected: tuple[object, object]):
    assert query_of(fields) == expected


def test_documents_are_a_list_or_the_positive_ones_before_the_negative_ones():
    assert listed_documents({"documents": [], "candidates": ["a"]}) == []
    assert listed_documents({"documents": None, "candidates": ["a"]}) == ["a"]
    assert listed_documents({"positive": "a", "negative": ["b", "c"]}) == ["a", "b", "c"]
    assert listed_documents({"negative_passages": [{"docid": 1}]}) == [{"docid": 1}]
    assert listed_documents({"text": "a"}) is None
    assert listed_documents({"text": "a", "positive": True, "docs": 3}) is None  # as in data about opinions
    assert listed_documents({"text": "a", "documents": ["b"]}) == ["b"]


def test_fields_that_are_not_read_are_reported_once_with_their_number(caplog: pytest.LogCaptureFixture):
    unread = UnreadFields()
    unread.report("nothing")
    for fields in (
        {"id": 1, "text": "a", "title": "t", "abstract": "b", "content": "c"},
        {"text": "a", "abstract": "b"},
    ):
        unread.count(fields)
    unread.count({"text": "a", "abstract": None, "metadata": {"url": "u"}})

    with caplog.at_level(logging.WARNING):
        unread.report("corpus.jsonl")

    assert caplog.messages == [
        'corpus.jsonl: these fields of documents are not part of their texts: "abstract" (2), "content" (1)'
    ]


def test_the_documentation_lists_all_names():
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    rows = {cells[1].strip(): cells[2] for line in page.splitlines() if len(cells := line.split("|")) == 4}

    for row, names in {
        "text": TEXT_NAMES,
        "document id": DOCUMENT_ID_NAMES,
        "query id": QUERY_ID_NAMES,
        "list of documents": LIST_NAMES,
        "documents of training data": (*POSITIVE_NAMES, *NEGATIVE_NAMES),
    }.items():
        assert re.findall("`(.+?)`", rows[row].partition(";")[0]) == [*names]
