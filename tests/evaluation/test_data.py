"""Evaluation data: every format is read correctly, and every problem is reported once, with its place."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from onelogit import InputError
from onelogit.evaluation.bm25 import with_candidates
from onelogit.evaluation.data.beir import read_beir, with_run
from onelogit.evaluation.data.dataset import Dataset
from onelogit.evaluation.data.query_rows import read_query_rows
from onelogit.evaluation.evaluation import group_queries
from onelogit.io.bad_lines import BadLines
from onelogit.io.file_forms import read_lines
from onelogit.io.lines import shortened
from support.evaluation_data import CORPUS, LABELS, QUERIES, list_row, write_beir, write_lines, write_run

RUN = {"q1": ["d3", "d1"], "q2": ["d2", "d3"], "q3": ["d6"]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_beir(tmp_path / "data")


def beir(folder: Path, **options: object) -> Dataset:
    return read_beir(folder, BadLines(), **options)  # type: ignore[arg-type]


def jsonl(path: Path, *rows: object) -> Dataset:
    return read_query_rows(write_lines(path / "queries.jsonl", rows), BadLines())


def test_a_folder_in_beir_format_is_read(folder: Path):
    data = beir(folder)

    assert data.name == "data"
    assert data.documents == CORPUS
    assert {query.id: query.text for query in data.queries} == QUERIES
    assert {query.id: query.labels for query in data.queries} == LABELS
    assert data.queries[0].relevant == ["d1", "d5"]


def test_a_title_is_put_before_the_text(folder: Path):
    write_lines(folder / "corpus.jsonl", [{"_id": id, "title": "Title", "text": "text"} for id in CORPUS])

    assert beir(folder).documents["d1"] == "Title text"


def test_byte_order_marks_windows_lines_blank_lines_and_gzip_change_nothing(folder: Path):
    expected = beir(folder)
    for file in (folder / "corpus.jsonl", folder / "queries.jsonl", folder / "qrels" / "test.tsv"):
        content = b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n\r\n")
        file.unlink()
        file.with_name(file.name + ".gz").write_bytes(gzip.compress(content))

    assert beir(folder) == expected


def test_unicode_separators_in_json_strings_do_not_end_a_line(tmp_path: Path):
    text = "one\u2028two\u0085three\x0cfour"

    assert jsonl(tmp_path, list_row(documents=[text, "b", "c"])).documents["1/1"] == text


def test_shortened_collapses_space_and_marks_what_it_cuts():
    assert shortened(" \n" * 500 + "text", 9) == "text"
    assert shortened("a" + " " * 500 + "b" * 9, 9) == "a bbbbbb…"
    assert shortened("a  b", 3) == "a b"


def test_judgements_without_a_header_and_in_trec_format_are_read(folder: Path):
    expected = beir(folder)
    lines = (folder / "qrels" / "test.tsv").read_text("utf-8").splitlines()[1:]
    columns = [line.split("\t") for line in lines]
    (folder / "qrels" / "test.tsv").write_text("\n".join(lines), "utf-8")
    assert beir(folder) == expected

    (folder / "qrels" / "test.tsv").write_text("\n".join(f"{q} 0 {d} {s}" for q, d, s in columns), "utf-8")
    assert beir(folder) == expected


def test_the_split_is_test_or_the_only_one_or_the_named_one(folder: Path):
    test = folder / "qrels" / "test.tsv"
    (folder / "qrels" / "train.tsv").write_text("q2\td3\t1\n", "utf-8")
    assert len(beir(folder).queries) == 3
    assert [query.id for query in beir(folder, split="train").queries] == ["q2"]

    test.unlink()
    assert len(beir(folder).queries) == 1
    (folder / "qrels" / "dev.tsv").write_text("q2\td3\t1\n", "utf-8")
    with pytest.raises(InputError, match="judgements for dev, train; name one of them as --split"):
        beir(folder)
    with pytest.raises(InputError, match="no judgements for 'tets', only for dev, train"):
        beir(folder, split="tets")


def test_judgements_may_be_in_the_folder_of_the_corpus(folder: Path):
    (folder / "qrels" / "test.tsv").rename(folder / "qrels.tsv")
    (folder / "qrels").rmdir()

    assert len(beir(folder).queries) == 3


def test_queries_without_judgements_or_relevant_documents_are_excluded_and_counted(tmp_path: Path):
    labels = {"q1": {"d1": 1}, "q2": {"d3": 0}}

    data = beir(write_beir(tmp_path / "data", labels=labels))

    assert [query.id for query in data.queries] == ["q1"]
    assert data.excluded == {"not judged": 1, "no document is relevant to it": 1}


def test_a_jsonl_query_keeps_its_document_order_and_fields(tmp_path: Path):
    documents = [{"id": "a", "text": "one"}, "two"]
    row = {"query_id": 7, "query": "which?", "documents": documents, "labels": [0, 2.0], "changed_labels": [1, 0]}
    (query,) = jsonl(tmp_path, {**row, "language": "ko", "metadata": {"year": 2024, "deep": {}}}).queries

    assert (query.id, query.text, query.candidates) == ("7", "which?", ("a", "7/2"))
    assert (query.labels, query.changed_labels) == ({"a": 0, "7/2": 2}, {"a": 1, "7/2": 0})
    assert query.fields == {"language": "ko", "year": "2024"}


def test_a_run_gives_the_candidates_by_score_then_rank(folder: Path, tmp_path: Path):
    run = tmp_path / "run.trec"
    run.write_text("q1 Q0 d3 2 1.5 me\nq1 Q0 d1 1 1.5 me\nq1 Q0 d5 9 7e0 me\nq2\tQ0\td3\t1\t0\tme\n", "utf-8")

    data = beir(folder, run=run)

    assert [query.candidates for query in data.queries] == [("d5", "d1", "d3"), ("d3",), ()]
    assert [query.candidates for query in with_candidates(data, 1).queries] == [("d5",), ("d3",), ()]
    assert data.first_stage == "the run run.trec"
    listed = jsonl(tmp_path, list_row())
    run.write_text("1 Q0 1/2 1 5 me\n", "utf-8")
    assert with_run(listed, run, BadLines()).queries[0].candidates == ("1/2",)


def test_a_run_may_contain_excluded_queries(folder: Path, tmp_path: Path):
    run = write_run(tmp_path / "run", {"1": ["1/2"], "2": ["2/1"]})
    data = with_run(jsonl(tmp_path, list_row(), list_row(1, labels=[0, 0, 0])), run, BadLines())

    assert [query.candidates for query in data.queries] == [("1/2",)]
    write_beir(folder, labels={"q1": {"d1": 1}, "q2": {"d3": 0}})
    run = write_run(tmp_path / "run", {"q1": ["d3"], "q2": ["d1"], "q3": ["d2"]})
    assert [query.candidates for query in beir(folder, run=run).queries] == [("d3",)]


def test_bm25_finds_documents_that_share_a_word_best_first(folder: Path):
    data = with_candidates(beir(folder), 100)

    found = {query.id: query.candidates for query in data.queries}
    assert found["q1"] is not None
    assert found["q1"][0] == "d1"
    assert "d4" not in found["q1"]
    assert found["q2"] is not None
    assert "d3" in found["q2"][:2]
    assert all(len(query.candidates or ()) <= 2 for query in with_candidates(beir(folder), 2).queries)


def test_the_digest_depends_on_ids_texts_labels_and_candidates(tmp_path: Path):
    def digest(**fields: object) -> str:
        return jsonl(tmp_path, list_row(**fields)).digest()

    others = [
        digest(query_id="other"),
        digest(query="other"),
        digest(documents=["a", "b", "c"]),
        digest(labels=[1, 1, 0]),
        digest(changed_labels=[0, 0, 0]),
        digest(language="ko"),
    ]
    assert digest() == digest()
    assert len({digest(), *others}) == 7


def damage_corpus(folder: Path, line: bytes) -> None:
    with (folder / "corpus.jsonl").open("ab") as file:
        file.write(line)


def damage_labels(folder: Path, line: str) -> None:
    with (folder / "qrels" / "test.tsv").open("a", encoding="utf-8") as file:
        file.write(line)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{\n", r"corpus.jsonl, line 7: not JSON: Expecting property name .* at character 2"),
        (b"[1]\n", r"line 7: not a JSON object, but \[1\]"),
        (b'{"_id": "d7", "text": "\xff"}\n', r"line 7: not UTF-8: invalid start byte at byte 24"),
        (b'{"_id": "d7"}\n', r"line 7: no \"text\" or \"document\" among '_id'"),
        (b'{"_id": "d7", "text": null}\n', r'line 7: "text" must be a string, not NoneType'),
        (b'{"text": "no id"}\n', r'line 7: "_id" must be a string, not NoneType'),
        (b'{"_id": "d1", "text": "again"}\n', r"line 7: the id 'd1' occurs twice"),
        (b'{"_id": "d\\u0000", "text": ""}\n', r"line 7: .* NUL"),
        (b'{"_id": "\\ud800", "text": "d7"}\n', r"line 7: .* lone surrogate"),
        (b'{"_id": "d7", "text": "", "title": 3}\n', r'line 7: "title" must be a string, not int'),
        (b"[" * 100_000 + b"\n", r"line 7: JSON that cannot be read"),
    ],
)
def test_a_malformed_line_raises_with_its_place_or_is_counted(line: bytes, message: str, folder: Path):
    damage_corpus(folder, line)

    with pytest.raises(InputError, match=message) as error:
        beir(folder)
    assert str(error.value).endswith("correct it, or pass --skip-bad to skip it")

    bad_lines = BadLines(is_skipping=True)
    assert read_beir(folder, bad_lines).documents == CORPUS
    assert {kind: each.count for kind, each in bad_lines.skipped.items()} == {"documents": 1}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("q9\td1\t1\n", "line 7: the query 'q9' is not among the queries"),
        ("q1\td9\t1\n", "line 7: the document 'd9' is not in the corpus"),
        ("q1\td1\t0\n", "line 7: the document 'd1' has two labels for the query 'q1'"),
        ("q1\td3\tNaN\n", "line 7: a label must be an integer from -1000 to 1000, not 'NaN'"),
        ("q1\td3\t0.5\n", "a label must be an integer"),
        ("q1\td3\tinf\n", "a label must be an integer"),
        ("q1\td3\tyes\n", "a label must be an integer"),
        ("q1\td3\n", "line 7: found 2 columns; expected query-id, corpus-id and score"),
        ("q1\t\t1\n", "the document id is empty"),
    ],
)
def test_an_invalid_judgement_raises_or_is_counted(line: str, message: str, folder: Path):
    damage_labels(folder, line)

    with pytest.raises(InputError, match=message):
        beir(folder)

    bad_lines = BadLines(is_skipping=True)
    assert {query.id: query.labels for query in read_beir(folder, bad_lines).queries} == LABELS
    assert {kind: each.count for kind, each in bad_lines.skipped.items()} == {"judgements": 1}


def test_a_repeated_judgement_with_the_same_label_is_accepted(folder: Path):
    damage_labels(folder, "q1\td1\t2\n")

    assert beir(folder).queries[0].labels == LABELS["q1"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("q1 Q0 d9 1 1 me", "line 4: the document 'd9' is not in the corpus"),
        ("q9 Q0 d1 1 1 me", "line 4: the query 'q9' is not among the queries"),
        ("q1 Q0 d1 1 1 me", "line 4: the document 'd1' occurs twice for the query 'q1'"),
        ("q1 Q0 d2 1 nan me", "line 4: rank and score must be numbers, not 'nan'"),
        ("q1 Q0 d2 first 1 me", "rank and score must be numbers, not 'first'"),
        ("q1 d2 1", "line 4: found 3 columns; expected six: query"),
    ],
)
def test_an_invalid_line_of_a_run_raises_or_is_counted(line: str, message: str, folder: Path, tmp_path: Path):
    run = write_run(tmp_path / "run", {"q1": ["d3", "d1"], "q2": ["d3"]})
    run.write_text(run.read_text("utf-8") + line, "utf-8")

    with pytest.raises(InputError, match=message):
        beir(folder, run=run)

    bad_lines = BadLines(is_skipping=True)
    assert read_beir(folder, bad_lines, run=run).queries[0].candidates == ("d3", "d1")
    assert {kind: each.count for kind, each in bad_lines.skipped.items()} == {"lines of the run": 1}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"query": " "}, '"query" is empty'),
        ({"query": 3}, '"query" must be a string, not int'),
        ({"documents": []}, '"documents" must be a list of at least one document'),
        ({"documents": "text"}, '"documents" must be a list of at least'),
        ({"documents": ["a", None, "c"]}, "a document must be a string, not NoneType"),
        ({"documents": [{"id": "a"}, "b", "c"]}, 'no "text" or "document" among'),
        ({"documents": [{"id": "a", "text": "1"}, {"id": "a", "text": "2"}, "c"]}, "two documents have the same id"),
        ({"labels": [0, 1]}, '"labels" must be a list of one label for each of the 3 documents, not 2 labels'),
        ({"labels": None}, '"labels" must be a list of one label for each of the 3 documents, not NoneType'),
        ({"labels": [0, float("nan"), 1]}, "a label must be an integer from -1000 to 1000, not 'nan'"),
        ({"labels": [0, [1], 1]}, "a label must be an integer"),
        ({"labels": [0, 1e300, 1]}, "a label must be an integer"),
        ({"changed_labels": [1]}, '"changed_labels" must be a list'),
        ({"query_id": "1"}, "the query id '1' occurs twice"),
        ({"query_id": True}, '"query_id" must be a string, not bool'),
        ({"documents": [{"id": "1/1", "text": "x"}, "b", "c"]}, "'1/1' has two different texts"),
    ],
)
def test_an_invalid_jsonl_query_raises_with_its_place_or_is_counted(fields: object, message: str, tmp_path: Path):
    path = write_lines(tmp_path / "queries.jsonl", [list_row(), list_row(1, **fields)])  # type: ignore[arg-type]

    with pytest.raises(InputError) as error:
        read_query_rows(path, BadLines())
    assert message in str(error.value)
    assert "queries.jsonl, line 2: " in str(error.value)

    bad_lines = BadLines(is_skipping=True)
    assert [query.id for query in read_query_rows(path, bad_lines).queries] == ["1"]
    assert {kind: each.count for kind, each in bad_lines.skipped.items()} == {"queries": 1}
    assert message in bad_lines.skipped["queries"].first


def remove(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


def empty(name: str, content: bytes = b"") -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove("corpus.jsonl"), "has no corpus.jsonl; a folder in BEIR format has"),
        (remove("queries.jsonl"), "has no queries.jsonl"),
        (remove("qrels/test.tsv"), "has no judgements; put query-id, corpus-id and score into qrels/test.tsv"),
        (empty("corpus.jsonl"), "corpus.jsonl contains no documents"),
        (empty("queries.jsonl", b"\n \n"), "queries.jsonl contains no queries"),
        (empty("qrels/test.tsv"), "test.tsv contains no judgement"),
        (empty("qrels/test.tsv", b"q1\td1\t0\n"), "makes no document relevant to any query"),
        (empty("corpus.jsonl", "{}".encode("utf-16")), "not UTF-8"),
        (empty("corpus.jsonl", gzip.compress(b"{}" * 99)[:-9]), "corpus.jsonl cannot be read: "),
        (empty("corpus.jsonl", b"\x1f\x8bno gzip"), "corpus.jsonl cannot be read: "),
    ],
)
def test_missing_or_empty_or_damaged_files_raise(damage: Callable[[Path], object], message: str, folder: Path):
    damage(folder)

    with pytest.raises(InputError) as error:
        beir(folder)
    assert message in str(error.value)


def test_jsonl_without_relevant_documents_and_runs_of_other_queries_raise(folder: Path, tmp_path: Path):
    with pytest.raises(InputError, match="contains no queries"):
        jsonl(tmp_path)
    with pytest.raises(InputError, match="no query with a relevant document"):
        jsonl(tmp_path, list_row(labels=[0, 0, -1]))
    write_beir(folder, labels={"q1": {"d1": 1}})
    with pytest.raises(InputError, match="contains none of the 1 queries that have relevant documents"):
        beir(folder, run=write_run(tmp_path / "run", {"q2": ["d3"]}))
    (tmp_path / "run").write_text("\n")
    with pytest.raises(InputError, match="contains no run"):
        beir(folder, run=tmp_path / "run")


def test_bm25_needs_a_corpus_with_words(folder: Path):
    write_lines(folder / "corpus.jsonl", [{"_id": id, "text": ""} for id in CORPUS])

    with pytest.raises(InputError, match="contains a word that BM25 can index"):
        with_candidates(beir(folder), 10)


def test_groups_are_by_a_field_or_by_the_length_of_relevant_documents(tmp_path: Path):
    rows = [list_row(n, documents=["x" * (n + 1), "y" * 99], labels=[1, 0], language="ko") for n in range(5)]
    del rows[0]["language"]
    data = jsonl(tmp_path, *rows)

    assert group_queries(data.queries, data.documents, "language") == {"(not given)": [0], "ko": [1, 2, 3, 4]}
    assert list(group_queries(data.queries, data.documents, "length").values()) == [[0], [1, 2], [3, 4]]
    assert "short (1 to 1 characters)" in group_queries(data.queries, data.documents, "length")
    with pytest.raises(InputError, match="no query has the field 'lang'; the fields are language, length"):
        group_queries(data.queries, data.documents, "lang")
    many = jsonl(tmp_path, *(list_row(n, name=str(n)) for n in range(51)))
    with pytest.raises(InputError, match="into 51 groups"):
        group_queries(many.queries, many.documents, "name")


def test_lines_keep_their_numbers(tmp_path: Path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"\xef\xbb\xbf1\r\n\n \n" + json.dumps("é").encode() + b"\n2")

    assert [(line.place, line.content) for line in read_lines(path)] == [
        (f"{path}, line 1", b"1"),
        (f"{path}, line 4", b'"\\u00e9"'),
        (f"{path}, line 5", b"2"),
    ]
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        [*read_lines(tmp_path)]


def test_a_query_without_words_has_no_candidates_and_does_not_affect_others(tmp_path: Path):
    queries = {"q1": "?!", "q2": "a", "q3": "没有", "q4": "Which bananas?"}
    labels = {query: {"d3": 1} for query in queries}

    data = with_candidates(beir(write_beir(tmp_path / "data", queries=queries, labels=labels)), 10)

    assert [query.candidates for query in data.queries] == [(), (), (), ("d3",)]
