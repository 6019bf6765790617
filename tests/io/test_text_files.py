"""What is read from files, folders and stdin, and the errors if they cannot be read."""

import gzip
import io
import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onelogit.errors import InputError
from onelogit.io.file_forms import read_lines, read_rows
from onelogit.io.sample_pairs import read_pairs
from onelogit.io.text_files import read_documents, read_text_collection
from support.text_files import texts_in

LINES = st.lists(st.text(st.characters(exclude_characters="\n\r", exclude_categories=["Cs"]), min_size=1), max_size=8)


def lines(*objects: object) -> bytes:
    return b"".join(json.dumps(each, ensure_ascii=False).encode() + b"\n" for each in objects)


def read(content: bytes, name: str = "texts") -> list[str]:
    with TemporaryDirectory() as folder:
        file = Path(folder) / name
        file.write_bytes(content)
        return texts_in(file)


def test_plain_lines_are_documents_and_blank_lines_are_ignored():
    assert read("하나\r\n\n  \ntwo [1] \x1b\n".encode()) == ["하나", "two [1] \x1b"]


@given(texts=LINES)
def test_texts_written_as_jsonl_are_read_unchanged(texts: list[str]):
    content = lines(*({"text": text} for text in texts))

    assert read(content, "a.jsonl") == texts


def test_a_title_precedes_its_text_and_the_field_may_be_called_document():
    content = lines({"_id": "1", "title": "Title", "text": "text"}, {"title": "", "text": "alone"}, {"document": ""})

    assert read(content) == ["Title text", "alone", ""]


def test_byte_order_marks_are_not_part_of_a_text():
    assert read(b"\xef\xbb\xbf" + lines({"text": "one"})) == ["one"]
    assert read("\ufeffone\n\ufefftwo\n".encode()) == ["one", "two"]


@pytest.mark.parametrize(
    ("content", "name", "complaint"),
    [
        (b"fine\n\xff\xfe\x00", "texts", "texts, line 2: not UTF-8"),
        (lines({"text": "a"}) + b"{'text': 1}\n", "texts", "texts, line 2: not JSON"),
        (
            lines({"text": "a"}, {"headline": "b", "id": 1}),
            "texts",
            "no \"text\" or \"document\" among 'headline', 'id'",
        ),
        (b'{"text": "cut off\n', "texts", "texts, line 1: not JSON"),
        (b"[\n{}\n]\n", "texts.json", 'texts.json, line 1: no "text" or "document" among no fields'),
        (lines({}), "texts", "among no fields"),
        (lines({"documents": 5}), "texts", '"documents" must be a list, not int'),
        (lines({"documents": ["a", 5]}), "texts", '"document" must be a string, not int'),
        (lines({"text": 5}), "texts", '"text" must be a string, not int'),
        (lines({"text": "a", "title": ["b"]}), "texts", '"title" must be a string, not list'),
        (lines({"text": "a", "query": 1}), "texts", '"query" must be a string, not int'),
        (b'{"text": "a", "query": "\\ud800"}\n', "texts", "half a character"),
        (b"plain\n", "texts.jsonl", "texts.jsonl, line 1: not JSON"),
        (lines([5]), "texts.jsonl", "document 1 of the array must be a string or an object, not 5"),
        (b"[" * 100_000 + b"\n", "texts.jsonl", "JSON that cannot be read"),
    ],
)
def test_an_error_names_the_line_that_cannot_be_read(content: bytes, name: str, complaint: str):
    with pytest.raises(InputError) as error:
        read(content, name)

    assert complaint in str(error.value)


def test_a_folder_in_beir_form_has_documents_and_queries(tmp_path: Path):
    (tmp_path / "corpus.jsonl").write_bytes(lines({"title": "A", "text": "b"}, {"text": " "}, {"text": "c"}))
    (tmp_path / "queries.jsonl").write_bytes(lines({"_id": "q", "text": "which?"}, {"_id": "r", "text": " "}))

    assert read_text_collection(tmp_path) == (["A b", "c"], ["which?"])
    assert read_text_collection(tmp_path, max_texts=1) == (["A b"], ["which?"])
    assert texts_in(tmp_path) == ["A b", " ", "c"]
    (tmp_path / "queries.jsonl").unlink()
    assert read_text_collection(tmp_path).queries == []


def test_a_file_may_have_queries_with_its_documents(tmp_path: Path):
    file = tmp_path / "pairs.jsonl"
    file.write_bytes(lines({"query": "q", "document": "a"}, {"query": "q", "document": "b"}))

    assert read_text_collection(file) == (["a", "b"], ["q"])


def test_a_line_may_be_a_query_with_a_list_of_documents(tmp_path: Path):
    file = tmp_path / "lists.jsonl"
    rows = [
        {"query": "q", "documents": ["a", {"id": 1, "text": "b"}], "labels": [0, 1]},
        {"query": "r", "documents": []},
    ]
    file.write_bytes(lines(*rows))

    assert texts_in(file) == ["a", "b"]
    assert read_text_collection(file) == (["a", "b"], ["q"])
    assert read_text_collection(file, max_texts=1).documents == ["a"]


def test_a_missing_file_or_corpus_is_an_error(tmp_path: Path):
    with pytest.raises(InputError, match="cannot be read"):
        texts_in(tmp_path / "none.txt")
    for read_it in (texts_in, read_text_collection):
        with pytest.raises(InputError, match=r"has no corpus\.jsonl"):
            read_it(tmp_path)


def test_gzipped_files_are_unzipped(tmp_path: Path):
    pairs = lines({"query": "q", "document": "a"}, {"query": "q", "document": "b"})
    for name, content in {"plain.txt": b"one\ntwo\n", "pairs.jsonl": pairs, "data/corpus.jsonl": pairs}.items():
        file = tmp_path / f"{name}.gz"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(gzip.compress(content))
    (tmp_path / "data" / "queries.jsonl.gz").write_bytes(gzip.compress(lines({"_id": "1", "text": "which?"})))

    assert texts_in(tmp_path / "plain.txt.gz") == ["one", "two"]
    assert read_text_collection(tmp_path / "pairs.jsonl.gz") == (["a", "b"], ["q"])
    assert read_text_collection(tmp_path / "data") == (["a", "b"], ["which?"])
    assert [pair.document for pair in read_pairs(tmp_path / "pairs.jsonl.gz")] == ["a", "b"]


@pytest.mark.parametrize("content", [b"one\ntwo\n", gzip.compress(b"one\ntwo\n")], ids=["plain", "gzipped"])
def test_a_pipe_is_read_like_a_file(content: bytes):
    ours, theirs = os.pipe()
    os.write(theirs, content)
    os.close(theirs)
    try:
        assert texts_in(f"/dev/fd/{ours}") == ["one", "two"]
    finally:
        os.close(ours)


def test_an_error_in_a_gzipped_file_names_the_line(tmp_path: Path):
    file = tmp_path / "texts.jsonl.gz"
    file.write_bytes(gzip.compress(lines({"text": "a"}) + b"plain\n"))
    with pytest.raises(InputError, match=r"texts\.jsonl\.gz, line 2: not JSON"):
        texts_in(file)

    file.write_bytes(gzip.compress(lines({"text": "a" * 999}))[:-9])
    with pytest.raises(InputError, match=r"texts\.jsonl\.gz cannot be read: "):
        texts_in(file)


def test_a_dash_reads_stdin(monkeypatch: pytest.MonkeyPatch):
    content = lines({"query": "q", "document": "a"})
    for read_it, expected in (
        (texts_in, ["a"]),
        (read_text_collection, (["a"], ["q"])),
        (read_pairs, [("q", "a", None)]),
        (lambda path: [line.place for line in read_lines(path)], ["stdin, line 1"]),
    ):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))

        assert read_it("-") == expected


@pytest.mark.parametrize(
    "content",
    [
        '[{"query": "q", "text": "a"},\n {"query": "r", "text": "b"}]',
        '{\n"query": "q",\n"text": "a"\n}\n{"query": "r", "text": "b"}',
    ],
)
def test_objects_in_an_array_or_in_several_lines_are_read_as_lines(content: str, tmp_path: Path):
    file = tmp_path / "rows.jsonl"
    file.write_text(content, encoding="utf-8")

    assert [line.fields()["query"] for line in read_rows(file)] == ["q", "r"]
    assert read_pairs(file) == [("q", "a", None), ("r", "b", None)]


def test_an_error_in_an_object_of_an_array_names_it(tmp_path: Path):
    file = tmp_path / "rows.json"
    file.write_text('[{"query": "q", "text": "a"}, 7]', encoding="utf-8")
    with pytest.raises(InputError, match="rows.json, object 2 of the array from line 1: not a JSON object, but 7"):
        read_pairs(file)

    file.write_text('[{"query": "q"\n "text": "a"}]', encoding="utf-8")
    with pytest.raises(InputError, match="line 2: not JSON: Expecting ',' delimiter"):
        read_pairs(file)


def test_pairs_are_read_by_the_names_of_other_formats(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    file = tmp_path / "pairs.jsonl"
    rows = [
        {"query": {"_id": 1, "text": "q"}, "docid": 1, "title": "T", "contents": "a", "language": "en"},
        {"query": "r", "documents": ["b", {"_id": 1, "title": "T", "text": "c", "url": "u"}], "labels": [0, 1]},
        {"query": "s", "positive": ["d"], "negative": "e"},
    ]
    file.write_bytes(lines(*rows))

    assert read_pairs(file) == [
        ("q", "T a", "en"),
        ("r", "b", None),
        ("r", "T c", None),
        ("s", "d", None),
        ("s", "e", None),
    ]
    assert [message.partition("texts: ")[2] for message in caplog.messages] == ['"url" (1)']


@pytest.mark.parametrize("depth", [99, 101, 500, 900, 950, 970, 980, 985, 990, 995, 100_000])
@pytest.mark.parametrize(
    ("start", "inner", "end"),
    [('{"text": ', '"a"', "}"), ('{"x": ', '"a"', "}"), ("[", '"a"', "]"), ('[{"text": ', '"a"', "}]")],
)
def test_json_nested_to_any_depth_is_read_or_an_error_of_ours(
    start: str, inner: str, end: str, depth: int, tmp_path: Path
):
    """Python's limit is on all functions that wait, so that a value may be parsed that cannot be copied or printed."""
    file = tmp_path / "texts.jsonl"
    file.write_text(start * depth + inner + end * depth)

    for read in (lambda: read_documents(file), lambda: [row.fields() for row in read_rows(file)]):
        with suppress(InputError):
            read()
