"""Tables and JSON as files of documents: what is read from each form, and the errors of what would be misread."""

import bz2
import io
import json
import logging
import lzma
from pathlib import Path

import pytest
from pyarrow import Table, parquet

from onelogit import InputError
from onelogit.io.text_files import read_text_collection
from support.text_files import texts_in


def parquet_bytes(*rows: dict[str, object]) -> bytes:
    parquet.write_table(Table.from_pylist(list(rows)), buffer := io.BytesIO())
    return buffer.getvalue()


def read(folder: Path, name: str, content: str | bytes, text_name: str | None = None) -> list[str]:
    (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return texts_in(folder / name, text_name)


TABLES = {
    "commas": ("a.csv", 'id,text\n1,Beijing\n2,"Two\nlines, ""quoted"""\n', ["Beijing", 'Two\nlines, "quoted"']),
    "semicolons": ("a.csv", "id;title;text\r\n1;Peking;Ist groß, ja.\r\n", ["Peking Ist groß, ja."]),
    "spaces before quotes": ("a.csv", 'id, text\n1, "a, b"\n', ["a, b"]),
    "tabs": ("a.csv", "id\ttext\n1\ta, b\n", ["a, b"]),
    "Excel's first line": ("a.csv", "sep=;\r\nid;text\r\n1;a,b\r\n", ["a,b"]),
    "a byte order mark": ("a.CSV", "\ufeffText,ID\nA,1\n", ["A"]),
    "UTF-16": ("a.txt", "id\ttext\r\n1\tÄ 你好\r\n".encode("utf-16"), ["Ä 你好"]),
    "one column": ("a.csv", 'text\n42\n\n"a, b"\n', ["42", "a, b"]),
    "an empty cell": ("a.csv", "id,text\n1,\n,\n2,a\n", ["", "a"]),
    "a quote inside a cell": ("a.csv", 'id,text\n1,a 5" disk\n', ['a 5" disk']),
    "a long cell": ("a.csv", f"id,text\n1,{'x' * 200_000}\n", ["x" * 200_000]),
    "other names": ("a.csv", "docid,contents\n1,a\n", ["a"]),
    "no rows": ("a.csv", "id,text\n", []),
    "nothing": ("a.csv", "", []),
    "a file without an ending": ("a", "id,text\n1,a\n", ["a"]),
    "MS MARCO": ("a.tsv", '0\tThe "x"\n1\t"start\n2\tend"\n', ['The "x"', '"start', 'end"']),
    "quotes in TSV": ("a.tsv", 'id\ttext\ttitle\n1\t"A ""b"" c"\tT\n', ['T A "b" c']),
    "stray quotes in TSV": ("a.tsv", 'id\ttext\n1\t"Beijing\n2\tis"\n', ['"Beijing', 'is"']),
    "Parquet": ("a.parquet", parquet_bytes({"id": 1, "title": "T", "text": "x"}, {"id": 2, "text": "y"}), ["T x", "y"]),
    "lists in Parquet": ("a.parquet", parquet_bytes({"documents": [{"_id": "1", "title": "T", "text": "x"}]}), ["T x"]),
    "plain lines like a table": ("a.txt", "id, text of this\nb\n", ["id, text of this", "b"]),
    "a quotation in brackets": ("a.txt", '["So"] he said.\n["x"]?\n', ['["So"] he said.', '["x"]?']),
    "strings of an array without an ending": ("a", '["a",\n"b"]', ["a", "b"]),
    "lists of words": ("a.txt", "body,soul\nmind,matter\n", ["body,soul", "mind,matter"]),
    "UTF-16 lines": ("a.txt", "Ä\r\nb\r\n".encode("utf-16"), ["Ä", "b"]),
    "an array of strings": ("a.json", '["a", "b"]', ["a", "b"]),
    "an array of objects": ("a.json", '[\n {"_id": "1", "title": "T", "text": "x"},\n "y"\n]\n', ["T x", "y"]),
    "an object with documents": ("a.json", '{\n "documents": ["a", {"text": "b"}]\n}', ["a", "b"]),
    "an array in JSONL": ("a.jsonl", '[{"text": "a"}, "b"]\n', ["a", "b"]),
    "strings in JSONL": ("a.jsonl", '"a"\n"b"\n', ["a", "b"]),
    "indented objects": ("a", '{\n"text": "a"\n}\n\n{\n"text": "b"\n}\n', ["a", "b"]),
    "an array without an ending": ("a", '[\n"a"\n]', ["a"]),
    "references are no array": ("a.txt", "[1] ref\n[2] ref\n", ["[1] ref", "[2] ref"]),
}


@pytest.mark.parametrize(("name", "content", "texts"), TABLES.values(), ids=TABLES)
def test_each_form_gives_its_texts(name: str, content: str | bytes, texts: list[str], tmp_path: Path):
    assert read(tmp_path, name, content) == texts


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "nr,Absatz\n1,a\n", "a.csv has no column 'text'; its columns are 'nr', 'Absatz'; rename the one"),
        ("a.tsv", "id\tAbsatz\n1\ta\n", "has no column 'text'; its columns are 'id', 'Absatz'"),
        ("a.parquet", parquet_bytes({"id": 1, "Absatz": "a"}), "has no column 'text'; its columns are 'id', 'Absatz'"),
        ("a.csv", "id,text\n1,Beijing, the capital\n", "line 2: 3 cells instead of 2; put cells that contain ','"),
        ("a.csv", "text\nBeijing, the capital\n", "line 2: 2 cells instead of 1"),
        ("a.csv", 'id,text\n1,"Beijing" is\n', "line 2: not CSV"),
        ("a.csv", 'id,text\n1,"Beijing\n2,a\n', "line 3: not CSV: unexpected end of data"),
        ("a.csv", "text,text\na,b\n", "a.csv has 2 columns 'text'; rename all but one"),
        ("a.csv", "id,text\n1,café\n".encode("latin-1"), "a.csv, line 2: not UTF-8"),
        ("a.txt", "ok\ncafé\n".encode("latin-1"), "a.txt, line 2: not UTF-8"),
        ("a.txt", "hello\n".encode("utf-16-le"), "a.txt, line 1: not text, because it contains the character NUL"),
        ("a.csv", "id,text\n".encode("utf-16-le"), "not text, because it contains the character NUL"),
        ("a.parquet", parquet_bytes({"text": 5}), 'a.parquet, row 1: "text" must be a string, not int'),
        ("a.parquet", b"PAR1", "a.parquet cannot be read"),
        ("a.pdf", "%PDF-1.7\n", "is a PDF file, not text; save its texts as .txt, .csv or .jsonl"),
        ("a", b"PK\x03\x04\x00", "is a ZIP, Word or Excel file, not text"),
        ("a.jsonl.bz2", bz2.compress(b"a"), "is compressed by bzip2, not text"),
        ("a.jsonl.xz", lzma.compress(b"a"), "is compressed by xz, not text"),
        ("a.html", "<p>a</p>", "is a .html file, which has markup"),
        ("a.json", '[\n {"text": "a"},\n {"text" "b"}\n]', "a.json, line 3: not JSON: Expecting ':' delimiter"),
        ("a.json", '{"d1": "a", "d2": "b"}', "no \"text\" or \"document\" among 'd1', 'd2'"),
        ("a.json", '[["a"]]', 'document 1 of the array must be a string or an object, not ["a"]'),
    ],
)
def test_a_file_that_would_be_misread_is_an_error(name: str, content: str | bytes, message: str, tmp_path: Path):
    with pytest.raises(InputError) as error:
        read(tmp_path, name, content)

    assert message in str(error.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "text,Absatz\nno,yes\n"),
        ("a.parquet", parquet_bytes({"text": "no", "Absatz": "yes"})),
        ("a.jsonl", json.dumps({"text": "no", "Absatz": "yes"})),
    ],
)
def test_the_column_of_the_texts_can_be_named(name: str, content: str | bytes, tmp_path: Path):
    assert read(tmp_path, name, content, "Absatz") == ["yes"]
    with pytest.raises(InputError, match="no (column 'none'|\"none\")"):
        read(tmp_path, name, content, "none")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "title,text\nT,x\n"),
        ("a.parquet", parquet_bytes({"title": "T", "text": "x"})),
        ("a.jsonl", '{"title": "T", "text": "x"}'),
    ],
)
def test_titles_that_are_the_texts_are_not_read_twice(
    name: str, content: str | bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    assert read(tmp_path, name, content, "title") == ["T"]
    assert "columns" not in caplog.text


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "id,text\n1,a\n", "a.csv is read as CSV: column 'text', 1 document"),
        ("a.csv", "url,title,body\n,T,a\n,T,b\n", "CSV: columns 'title' and 'body', 2 documents; not read: 'url'"),
        ("a.tsv", "1\ta\n", "a.tsv is read as TSV without a header: column 'text', 1 document"),
        ("a.parquet", parquet_bytes({"text": "a", "url": "u"}), "Parquet: column 'text', 1 document; not read: 'url'"),
        ("a.md", "# a\n\nb\n", "a.md is read as plain text: each of its 2 lines is a document"),
        ("a.json", '[{"text": "a", "lang": "b"}]', 'fields of documents are not part of their texts: "lang" (1)'),
    ],
)
def test_what_is_read_is_logged_once(
    name: str, content: str | bytes, message: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    with caplog.at_level(logging.WARNING):
        read(tmp_path, name, content)

    assert len(caplog.messages) == 1
    assert message in caplog.messages[0]


def test_a_collection_of_texts_is_read_from_a_table_too(tmp_path: Path):
    (tmp_path / "a.csv").write_text("query,text\nq,a\nr,b\n", encoding="utf-8")

    assert read_text_collection(tmp_path / "a.csv") == (["a", "b"], ["q", "r"])
    assert read_text_collection(tmp_path / "a.csv", max_texts=1) == (["a"], ["q"])
