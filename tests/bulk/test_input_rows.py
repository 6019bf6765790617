"""Rows of the input -> pairs: what a row may look like, and the errors of invalid ones."""

import pytest

from onelogit import InputError
from onelogit.bulk.input_rows import ScoringPair, pairs_of
from onelogit.io.text_fields import UnreadFields


def test_a_row_with_a_list_of_documents_gives_a_pair_for_each():
    documents = ["a", {"text": "b", "id": 7}, {"text": "c", "document_id": "x", "id": 8}, {"text": "d"}]

    pairs = pairs_of({"query_id": 1, "query": "q", "documents": documents})

    assert pairs == [ScoringPair("1", id, "q", text) for id, text in [("0", "a"), ("7", "b"), ("x", "c"), ("3", "d")]]


def test_a_row_with_one_document_gives_one_pair():
    row = {"query_id": "q1", "document_id": "d1", "query": "q", "document": "", "documents": None}

    assert pairs_of(row) == [ScoringPair("q1", "d1", "q", "")]


FINE = {"query_id": "q1", "query": "q", "documents": ["a", "b"]}


BAD_ROWS = [
    ({"query_id": 1, "question": "q", "documents": ["a"]}, ["1"], "this row has no query, only 'query_id', 'question'"),
    ({**FINE, "query": None}, ["q1", "q1"], "the query must be a string, not NoneType"),
    ({**FINE, "query": float("nan")}, ["q1", "q1"], "the query must be a string, not float"),
    ({**FINE, "query": " "}, ["q1", "q1"], "the query is empty"),
    ({**FINE, "query_id": None}, [None, None], "this row has no query_id"),
    ({**FINE, "query_id": True}, [None, None], "query_id must be a string, not bool"),
    ({**FINE, "query_id": "\ud800"}, [None, None], "half a character"),
    ({**FINE, "documents": None}, ["q1"], "this row has none"),
    ({**FINE, "documents": "a"}, ["q1"], "documents must be a list, but this row has a str"),
    ({"query_id": "q1", "query": "q", "document": "d"}, ["q1"], "no document_id"),
    ({"query_id": "q1", "document_id": "d1", "query": "q", "document": 5}, ["q1"], "must be a string, not int"),
    (["no", "row"], [None], "a row must have query_id"),
    (InputError("not JSON"), [None], "not JSON"),
]


@pytest.mark.parametrize(("row", "query_ids", "error"), BAD_ROWS)
def test_an_invalid_row_gives_pairs_with_errors(row: object, query_ids: list[str | None], error: str):
    pairs = pairs_of(row)

    assert [pair.query_id for pair in pairs] == query_ids
    assert all(pair.error is not None and error in pair.error for pair in pairs)


def test_an_invalid_document_is_an_error_of_its_own_pair_only():
    errors = [pair.error for pair in pairs_of({**FINE, "documents": ["a", None, {"id": 1}, "\ud800"]})]

    assert errors[0] is None
    assert "document 1 must be a string, not NoneType" in str(errors[1])
    assert "the text of document 2 must be a string" in str(errors[2])
    assert errors[3] is None  # half a character is replaced when the shard is read


def test_ids_titles_and_texts_are_read_by_the_names_of_all_formats():
    documents = [
        {"_id": "d7", "title": "Beijing", "text": "It is the capital."},
        {"docid": 5, "contents": "Bananas."},
        "plain",
        {"id": "d8", "title": None, "text": ""},
    ]

    pairs = pairs_of({"query_id": "q1", "query": "q", "documents": documents})

    expected = [("d7", "Beijing It is the capital."), ("5", "Bananas."), ("2", "plain"), ("d8", "")]
    assert pairs == [ScoringPair("q1", id, "q", text) for id, text in expected]


def test_a_row_of_a_pair_may_have_a_title_and_other_names():
    row = {"qid": 1, "query": "q", "docid": "d1", "title": "Beijing", "text": "It is the capital."}

    assert pairs_of(row) == [ScoringPair("1", "d1", "q", "Beijing It is the capital.")]
    assert pairs_of({"query_id": 1, "query": {"text": "q"}, "document": {"_id": "d1", "text": "a"}}) == [
        ScoringPair("1", "d1", "q", "a")
    ]


def test_positive_and_negative_documents_are_ranked_together():
    row = {"query_id": "q1", "query": "q", "positive": ["a"], "negative": [{"docid": "x", "title": "T", "text": "b"}]}

    assert pairs_of(row) == [ScoringPair("q1", "0", "q", "a"), ScoringPair("q1", "x", "q", "T b")]


def test_a_blank_id_is_an_error():
    (pair,) = pairs_of({**FINE, "documents": [{"_id": " ", "text": "a"}]})

    assert "document_id is empty" in str(pair.error)


def test_the_fields_of_documents_that_are_not_used_are_counted():
    unread = UnreadFields()
    pairs_of(
        {**FINE, "topic": 1, "documents": [{"text": "a", "abstract": "lost"}, {"text": "b", "abstract": None}]}, unread
    )
    pairs_of({"query_id": 1, "query": "q", "id": 1, "text": "a", "abstract": "lost"}, unread)

    assert unread == {"abstract": 2}


def test_a_list_beside_the_documents_is_counted():
    unread = UnreadFields()
    beside = {"document_ids": ["x", "y"], "labels": [1, 0], "topics": ["a"], "title": "t"}

    assert [pair.document_id for pair in pairs_of({**FINE, **beside}, unread)] == ["0", "1"]
    assert unread == {"document_ids": 2}
