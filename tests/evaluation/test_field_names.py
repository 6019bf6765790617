"""Evaluation data with the field names of other formats than BEIR's and our own."""

import json
from pathlib import Path

import pytest

from onelogit.evaluation.data.beir import read_beir
from onelogit.evaluation.data.query_rows import read_query_rows
from onelogit.io.bad_lines import BadLines
from support.evaluation_data import CORPUS, QUERIES, list_row, write_beir, write_lines


def test_documents_and_queries_are_read_by_the_names_of_other_formats(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    documents = [{"_id": 7, "title": "T", "contents": "a", "url": "u"}, {"docid": "x", "passage": "b"}, {"text": "c"}]
    rows = [
        {"query": {"_id": "q", "text": "which?"}, "documents": documents, "labels": [0, 1, 0]},
        {"qid": 2, "query": "other?", "positive": ["right"], "negative": ["wrong", "also wrong"]},
    ]

    data = read_query_rows(write_lines(tmp_path / "queries.jsonl", rows), BadLines())

    assert data.documents == {
        "7": "T a", "x": "b", "q/3": "c", "2/1": "right", "2/2": "wrong", "2/3": "also wrong",
    }  # fmt: skip
    assert {query.id: dict(query.labels) for query in data.queries} == {
        "q": {"7": 0, "x": 1, "q/3": 0}, "2": {"2/1": 1, "2/2": 0, "2/3": 0},
    }  # fmt: skip
    assert [query.fields for query in data.queries] == [{}, {}]
    assert [message.partition(": ")[2] for message in caplog.messages] == [
        'these fields of documents are not part of their texts: "url" (1)'
    ]


def test_a_folder_in_beir_format_may_have_other_names(tmp_path: Path):
    folder = write_beir(tmp_path)
    expected = read_beir(folder, BadLines())
    write_lines(folder / "corpus.jsonl", [{"docid": id, "contents": text} for id, text in CORPUS.items()])
    write_lines(folder / "queries.jsonl", [{"query_id": id, "query": text} for id, text in QUERIES.items()])

    found = read_beir(folder, BadLines())

    assert found.documents == expected.documents
    assert {query.id: query.text for query in found.queries} == QUERIES


def test_an_array_of_queries_is_read_like_lines(tmp_path: Path):
    rows = [list_row(0), list_row(1)]
    expected = read_query_rows(write_lines(tmp_path / "a.json", rows), BadLines())
    (tmp_path / "a.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")

    assert read_query_rows(tmp_path / "a.json", BadLines()) == expected
