"""Judged data: read as they are meant, in every form; and what is wrong with them is said once, with its place."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from onelogit import InputError
from onelogit.evaluation.bm25 import with_candidates
from onelogit.evaluation.data.bad_lines import Faults
from onelogit.evaluation.data.beir import read_beir, with_run
from onelogit.evaluation.data.dataset import DataSet
from onelogit.evaluation.data.jsonl import read_lists
from onelogit.evaluation.evaluation import groups
from onelogit.io.text_files import read_lines, shortened
from support.judged_data import CORPUS, LABELS, QUERIES, list_row, write_beir, write_lines, write_run

RUN = {"q1": ["d3", "d1"], "q2": ["d2", "d3"], "q3": ["d6"]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_beir(tmp_path / "data")


def beir(folder: Path, **options: object) -> DataSet:
    return read_beir(folder, Faults(), **options)  # type: ignore[arg-type]


def lists(path: Path, *rows: object) -> DataSet:
    return read_lists(write_lines(path / "lists.jsonl", rows), Faults())


def test_a_folder_in_beir_form_is_read(folder: Path):
    data = beir(folder)

    assert data.name == "data"
    assert data.documents == CORPUS
    assert {query.id: query.text for query in data.queries} == QUERIES
    assert {query.id: query.labels for query in data.queries} == LABELS
    assert data.queries[0].relevant == ["d1", "d5"]


def test_a_title_stands_in_front_of_the_text(folder: Path):
    write_lines(folder / "corpus.jsonl", [{"_id": id, "title": "Title", "text": "text"} for id in CORPUS])

    assert beir(folder).documents["d1"] == "Title text"


def test_byte_order_marks_windows_lines_blank_lines_and_gzip_change_nothing(folder: Path):
    expected = beir(folder)
    for file in (folder / "corpus.jsonl", folder / "queries.jsonl", folder / "qrels" / "test.tsv"):
        content = b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n\r\n")
        file.unlink()
        file.with_name(file.name + ".gz").write_bytes(gzip.compress(content))

    assert beir(folder) == expected


def test_separators_that_json_strings_may_hold_end_no_line(tmp_path: Path):
    text = "one\u2028two\u0085three\x0cfour"

    assert lists(tmp_path, list_row(documents=[text, "b", "c"])).documents["1/1"] == text


def test_a_text_that_is_cut_says_so_however_much_space_it_has():
    assert shortened(" \n" * 500 + "text", 9) == "text"
    assert shortened("a" + " " * 500 + "b" * 9, 9) == "a bbbbbb…"
    assert shortened("a  b", 3) == "a b"


def test_judgements_are_read_without_a_heading_and_in_the_form_of_trec(folder: Path):
    expected = beir(folder)
    lines = (folder / "qrels" / "test.tsv").read_text("utf-8").splitlines()[1:]
    columns = [line.split("\t") for line in lines]
    (folder / "qrels" / "test.tsv").write_text("\n".join(lines), "utf-8")
    assert beir(folder) == expected

    (folder / "qrels" / "test.tsv").write_text("\n".join(f"{q} 0 {d} {s}" for q, d, s in columns), "utf-8")
    assert beir(folder) == expected


def test_the_split_is_test_or_the_only_one_or_the_one_that_is_named(folder: Path):
    test = folder / "qrels" / "test.tsv"
    (folder / "qrels" / "train.tsv").write_text("q2\td3\t1\n", "utf-8")
    assert len(beir(folder).queries) == 3
    assert [query.id for query in beir(folder, split="train").queries] == ["q2"]

    test.unlink()
    assert len(beir(folder).queries) == 1
    (folder / "qrels" / "dev.tsv").write_text("q2\td3\t1\n", "utf-8")
    with pytest.raises(InputError, match="judgements for dev, train: name one of them as --split"):
        beir(folder)
    with pytest.raises(InputError, match="no judgements for 'tets', but for dev, train"):
        beir(folder, split="tets")


def test_judgements_may_stand_beside_the_corpus(folder: Path):
    (folder / "qrels" / "test.tsv").rename(folder / "qrels.tsv")
    (folder / "qrels").rmdir()

    assert len(beir(folder).queries) == 3


def test_queries_that_nobody_judged_or_nothing_answers_are_left_out_and_counted(tmp_path: Path):
    labels = {"q1": {"d1": 1}, "q2": {"d3": 0}}

    data = beir(write_beir(tmp_path / "data", labels=labels))

    assert [query.id for query in data.queries] == ["q1"]
    assert data.left_out == {"not judged": 1, "no document is relevant to it": 1}


def test_a_list_is_read_in_its_order_with_its_fields(tmp_path: Path):
    documents = [{"id": "a", "text": "one"}, "two"]
    row = {"query_id": 7, "query": "which?", "documents": documents, "labels": [0, 2.0], "changed_labels": [1, 0]}
    (query,) = lists(tmp_path, {**row, "language": "ko", "metadata": {"year": 2024, "deep": {}}}).queries

    assert (query.id, query.text, query.found) == ("7", "which?", ("a", "7/2"))
    assert (query.labels, query.changed_labels) == ({"a": 0, "7/2": 2}, {"a": 1, "7/2": 0})
    assert query.fields == {"language": "ko", "year": "2024"}


def test_a_run_gives_the_candidates_by_score_then_rank(folder: Path, tmp_path: Path):
    run = tmp_path / "run.trec"
    run.write_text("q1 Q0 d3 2 1.5 me\nq1 Q0 d1 1 1.5 me\nq1 Q0 d5 9 7e0 me\nq2\tQ0\td3\t1\t0\tme\n", "utf-8")

    data = beir(folder, run=run)

    assert [query.found for query in data.queries] == [("d5", "d1", "d3"), ("d3",), ()]
    assert [query.found for query in with_candidates(data, 1).queries] == [("d5",), ("d3",), ()]
    assert data.first_stage == "the run run.trec"
    listed = lists(tmp_path, list_row())
    run.write_text("1 Q0 1/2 1 5 me\n", "utf-8")
    assert with_run(listed, run, Faults()).queries[0].found == ("1/2",)


def test_a_run_may_name_queries_that_are_left_out(folder: Path, tmp_path: Path):
    run = write_run(tmp_path / "run", {"1": ["1/2"], "2": ["2/1"]})
    data = with_run(lists(tmp_path, list_row(), list_row(1, labels=[0, 0, 0])), run, Faults())

    assert [query.found for query in data.queries] == [("1/2",)]
    write_beir(folder, labels={"q1": {"d1": 1}, "q2": {"d3": 0}})
    run = write_run(tmp_path / "run", {"q1": ["d3"], "q2": ["d1"], "q3": ["d2"]})
    assert [query.found for query in beir(folder, run=run).queries] == [("d3",)]


def test_bm25_finds_what_shares_a_word_the_best_first(folder: Path):
    data = with_candidates(beir(folder), 100)

    found = {query.id: query.found for query in data.queries}
    assert found["q1"] is not None
    assert found["q1"][0] == "d1"
    assert "d4" not in found["q1"]
    assert found["q2"] is not None
    assert "d3" in found["q2"][:2]
    assert all(len(query.found or ()) <= 2 for query in with_candidates(beir(folder), 2).queries)


def test_a_digest_is_of_ids_texts_labels_and_candidates(tmp_path: Path):
    def digest(**fields: object) -> str:
        return lists(tmp_path, list_row(**fields)).digest()

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
    ("line", "said"),
    [
        (b"{\n", r"corpus.jsonl, line 7: not JSON: Expecting property name .* at character 2"),
        (b"[1]\n", r"line 7: not a JSON object, but \[1\]"),
        (b'{"_id": "d7", "text": "\xff"}\n', r"line 7: not UTF-8: invalid start byte at byte 24"),
        (b'{"_id": "d7"}\n', r"line 7: no \"text\" or \"document\" among '_id'"),
        (b'{"_id": "d7", "text": null}\n', r'line 7: "text" must be a string, not NoneType'),
        (b'{"text": "no id"}\n', r'line 7: "_id" must be a string, not NoneType'),
        (b'{"_id": "d1", "text": "again"}\n', r"line 7: the id 'd1' stands twice"),
        (b'{"_id": "d\\u0000", "text": ""}\n', r"line 7: .* NUL"),
        (b'{"_id": "d7", "text": "\\ud800"}\n', r"line 7: .* lone surrogate"),
        (b'{"_id": "d7", "text": "", "title": 3}\n', r'line 7: "title" must be a string, not int'),
        (b"[" * 100_000 + b"\n", r"line 7: not JSON that can be read"),
    ],
)
def test_a_malformed_line_is_an_error_with_its_place_or_counted(line: bytes, said: str, folder: Path):
    damage_corpus(folder, line)

    with pytest.raises(InputError, match=said) as error:
        beir(folder)
    assert str(error.value).endswith("mend it, or pass --skip-bad to go on without it")

    faults = Faults(is_skipping=True)
    assert read_beir(folder, faults).documents == CORPUS
    assert {kind: each.count for kind, each in faults.skipped.items()} == {"documents": 1}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("q9\td1\t1\n", "line 7: the query 'q9' is not among the queries"),
        ("q1\td9\t1\n", "line 7: the document 'd9' is not in the corpus"),
        ("q1\td1\t0\n", "line 7: the document 'd1' has two labels for the query 'q1'"),
        ("q1\td3\tNaN\n", "line 7: a label must be a whole number up to 1000, not 'NaN'"),
        ("q1\td3\t0.5\n", "a label must be a whole number"),
        ("q1\td3\tinf\n", "a label must be a whole number"),
        ("q1\td3\tyes\n", "a label must be a whole number"),
        ("q1\td3\n", "line 7: 2 columns where query-id, corpus-id and score are expected"),
        ("q1\t\t1\n", "the document's id is empty"),
    ],
)
def test_a_judgement_that_cannot_be_meant_is_an_error_or_counted(line: str, said: str, folder: Path):
    damage_labels(folder, line)

    with pytest.raises(InputError, match=said):
        beir(folder)

    faults = Faults(is_skipping=True)
    assert {query.id: query.labels for query in read_beir(folder, faults).queries} == LABELS
    assert {kind: each.count for kind, each in faults.skipped.items()} == {"judgements": 1}


def test_a_judgement_that_stands_twice_with_one_label_is_none_too_many(folder: Path):
    damage_labels(folder, "q1\td1\t2\n")

    assert beir(folder).queries[0].labels == LABELS["q1"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("q1 Q0 d9 1 1 me", "line 4: the document 'd9' is not in the corpus"),
        ("q9 Q0 d1 1 1 me", "line 4: the query 'q9' is not among the queries"),
        ("q1 Q0 d1 1 1 me", "line 4: the document 'd1' stands twice for the query 'q1'"),
        ("q1 Q0 d2 1 nan me", "line 4: rank and score must be numbers, not 'nan'"),
        ("q1 Q0 d2 first 1 me", "rank and score must be numbers, not 'first'"),
        ("q1 d2 1", "line 4: 3 columns where six are expected"),
    ],
)
def test_a_line_of_a_run_that_cannot_be_meant_is_an_error_or_counted(
    line: str, said: str, folder: Path, tmp_path: Path
):
    run = write_run(tmp_path / "run", {"q1": ["d3", "d1"], "q2": ["d3"]})
    run.write_text(run.read_text("utf-8") + line, "utf-8")

    with pytest.raises(InputError, match=said):
        beir(folder, run=run)

    faults = Faults(is_skipping=True)
    assert read_beir(folder, faults, run=run).queries[0].found == ("d3", "d1")
    assert {kind: each.count for kind, each in faults.skipped.items()} == {"lines of the run": 1}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"query": " "}, '"query" is empty'),
        ({"query": 3}, '"query" must be a string, not int'),
        ({"documents": []}, '"documents" must be a list of texts, with at least one'),
        ({"documents": "text"}, '"documents" must be a list of texts'),
        ({"documents": ["a", None, "c"]}, "a document must be a string, not NoneType"),
        ({"documents": [{"id": "a"}, "b", "c"]}, 'no "text" or "document" among'),
        ({"documents": [{"id": "a", "text": "1"}, {"id": "a", "text": "2"}, "c"]}, "two documents have the same id"),
        ({"labels": [0, 1]}, '"labels" must be a list with one for each of 3 documents, not 2 labels'),
        ({"labels": None}, '"labels" must be a list with one for each of 3 documents, not no list'),
        ({"labels": [0, float("nan"), 1]}, "a label must be a whole number up to 1000, not 'nan'"),
        ({"labels": [0, [1], 1]}, "a label must be a whole number"),
        ({"labels": [0, 1e300, 1]}, "a label must be a whole number"),
        ({"changed_labels": [1]}, '"changed_labels" must be a list'),
        ({"query_id": "1"}, "the query's id '1' stands twice"),
        ({"query_id": True}, '"query_id" must be a string, not bool'),
        ({"documents": [{"id": "1/1", "text": "x"}, "b", "c"]}, "'1/1' stands for two texts"),
    ],
)
def test_a_list_that_is_none_is_an_error_with_its_place_or_counted(fields: object, said: str, tmp_path: Path):
    path = write_lines(tmp_path / "lists.jsonl", [list_row(), list_row(1, **fields)])  # type: ignore[arg-type]

    with pytest.raises(InputError) as error:
        read_lists(path, Faults())
    assert said in str(error.value)
    assert "lists.jsonl, line 2: " in str(error.value)

    faults = Faults(is_skipping=True)
    assert [query.id for query in read_lists(path, faults).queries] == ["1"]
    assert {kind: each.count for kind, each in faults.skipped.items()} == {"queries": 1}
    assert said in faults.skipped["queries"].first


def remove(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


def empty(name: str, content: bytes = b"") -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (remove("corpus.jsonl"), "has no corpus.jsonl: a folder in BEIR form has"),
        (remove("queries.jsonl"), "has no queries.jsonl"),
        (remove("qrels/test.tsv"), "has no judgements: put query-id, corpus-id and score into qrels/test.tsv"),
        (empty("corpus.jsonl"), "corpus.jsonl is empty: it holds no documents"),
        (empty("queries.jsonl", b"\n \n"), "queries.jsonl is empty: it holds no queries"),
        (empty("qrels/test.tsv"), "test.tsv holds no judgement"),
        (empty("qrels/test.tsv", b"q1\td1\t0\n"), "makes no document relevant to any query"),
        (empty("corpus.jsonl", "{}".encode("utf-16")), "not UTF-8"),
        (empty("corpus.jsonl", gzip.compress(b"{}" * 99)[:-9]), "corpus.jsonl cannot be read: "),
        (empty("corpus.jsonl", b"\x1f\x8bno gzip"), "corpus.jsonl cannot be read: "),
    ],
)
def test_data_that_lack_something_are_one_error(damage: Callable[[Path], object], said: str, folder: Path):
    damage(folder)

    with pytest.raises(InputError) as error:
        beir(folder)
    assert said in str(error.value)


def test_lists_without_an_answer_and_runs_of_other_queries_are_errors(folder: Path, tmp_path: Path):
    with pytest.raises(InputError, match="is empty: it holds no queries"):
        lists(tmp_path)
    with pytest.raises(InputError, match="no query with a relevant document"):
        lists(tmp_path, list_row(labels=[0, 0, -1]))
    write_beir(folder, labels={"q1": {"d1": 1}})
    with pytest.raises(InputError, match="names none of the 1 queries that are judged"):
        beir(folder, run=write_run(tmp_path / "run", {"q2": ["d3"]}))
    (tmp_path / "run").write_text("\n")
    with pytest.raises(InputError, match="holds no run"):
        beir(folder, run=tmp_path / "run")


def test_a_corpus_without_words_is_no_place_for_bm25(folder: Path):
    write_lines(folder / "corpus.jsonl", [{"_id": id, "text": ""} for id in CORPUS])

    with pytest.raises(InputError, match="has a word that BM25 could find"):
        with_candidates(beir(folder), 10)


def test_slices_are_by_a_field_or_by_the_length_of_what_is_relevant(tmp_path: Path):
    rows = [list_row(n, documents=["x" * (n + 1), "y" * 99], labels=[1, 0], language="ko") for n in range(5)]
    del rows[0]["language"]
    data = lists(tmp_path, *rows)

    assert groups(data.queries, data.documents, "language") == {"(not given)": [0], "ko": [1, 2, 3, 4]}
    assert list(groups(data.queries, data.documents, "length").values()) == [[0], [1, 2], [3, 4]]
    assert "short (1 to 1 characters)" in groups(data.queries, data.documents, "length")
    with pytest.raises(InputError, match="no query has the field 'lang'; there are language, length"):
        groups(data.queries, data.documents, "lang")
    many = lists(tmp_path, *(list_row(n, name=str(n)) for n in range(51)))
    with pytest.raises(InputError, match="into 51 groups"):
        groups(many.queries, many.documents, "name")


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


def test_a_query_without_a_word_finds_nothing_and_harms_no_other(tmp_path: Path):
    queries = {"q1": "?!", "q2": "a", "q3": "没有", "q4": "Which bananas?"}
    labels = {query: {"d3": 1} for query in queries}

    data = with_candidates(beir(write_beir(tmp_path / "data", queries=queries, labels=labels)), 10)

    assert [query.found for query in data.queries] == [(), (), (), ("d3",)]
