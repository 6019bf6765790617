"""The same rows in every form of file are the same data for `bulk`, `evaluate` and `verify`."""

import csv
import gzip
import io
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from pyarrow import Table, parquet

from onelogit import DEMO_MODEL, InputError
from onelogit.bulk.input_rows import ScoringPair, pairs_of
from onelogit.bulk.shards import ShardReader, plan_shards
from onelogit.evaluation.data.dataset import Dataset
from onelogit.evaluation.data.query_rows import read_query_rows
from onelogit.io.bad_lines import BadLines
from onelogit.io.sample_pairs import read_pairs
from support.commands import output

COLUMNS = ("query_id", "query", "document_id", "title", "text", "label", "language")
ROWS = [
    dict(zip(COLUMNS, values, strict=True))
    for values in [
        ("q1", "Which fruit, please?", "d1", "Fruit", 'Bananas; "yellow"', 1, "en"),
        ("q2", "수도는?", "d1", "Fruit", 'Bananas; "yellow"', 0, "ko"),
        ("q1", "Which fruit, please?", "d2", "", "Two\nlines", 0, "en"),
        ("q2", "수도는?", "d3", "서울", "서울은 수도다.", 2, "ko"),
    ]
]


def separated(rows: Sequence[dict[str, object]], separator: str) -> str:
    writer = csv.DictWriter(stream := io.StringIO(newline=""), [*rows[0]], delimiter=separator)
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def parquet_bytes(rows: Sequence[dict[str, object]]) -> bytes:
    parquet.write_table(Table.from_pylist([*rows]), buffer := io.BytesIO())
    return buffer.getvalue()


JSONL = "\n".join(json.dumps(row) for row in ROWS)
FORMS = {
    "rows.jsonl": JSONL.encode(),
    "rows.JSONL.gz": gzip.compress(JSONL.encode()),
    "rows.ndjson": JSONL.encode(),
    "rows.json": json.dumps(ROWS).encode(),
    "indented.json": json.dumps(ROWS, indent=1).encode(),
    "an-array.jsonl": json.dumps(ROWS, indent=1).encode(),
    "UTF-16.jsonl": JSONL.encode("utf-16"),
    "rows.csv": separated(ROWS, ",").encode(),
    "mark.CSV": separated(ROWS, ",").encode("utf-8-sig"),
    "rows.csv.gz": gzip.compress(separated(ROWS, ",").encode()),
    "excel.csv": separated(ROWS, ";").encode(),
    "excels.csv": separated(ROWS, "\t").encode("utf-16"),
    "rows.tsv": separated(ROWS, "\t").encode(),
    "rows.parquet": parquet_bytes(ROWS),
}


@pytest.fixture(params=FORMS)
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    (path := tmp_path / request.param).write_bytes(FORMS[request.param])
    return path


def dataset(path: Path, bad_lines: BadLines | None = None) -> Dataset:
    return read_query_rows(path, bad_lines or BadLines())


def bulk_pairs(path: Path, slice_rows: int = 3) -> list[ScoringPair]:
    shards, reader = plan_shards(path, slice_rows).shards, ShardReader()
    return [pair for shard in shards for row in reader.rows(shard) for pair in pairs_of(row)]


def test_evaluate_gathers_the_rows_of_a_query(file: Path):
    data = dataset(file)

    first, second = data.queries
    assert (first.id, first.text, first.labels) == ("q1", "Which fruit, please?", {"d1": 1, "d2": 0})
    assert (second.id, second.candidates, second.labels) == ("q2", ("d1", "d3"), {"d1": 0, "d3": 2})
    assert [dict(query.fields) for query in data.queries] == [{"language": "en"}, {"language": "ko"}]
    assert data.documents == {"d1": 'Fruit Bananas; "yellow"', "d2": "Two\nlines", "d3": "서울 서울은 수도다."}


def test_bulk_scores_each_row(file: Path):
    pairs = bulk_pairs(file)

    assert [(pair.query_id, pair.document_id) for pair in pairs] == [
        (row["query_id"], row["document_id"]) for row in ROWS
    ]
    assert [pair.error for pair in pairs] == [None] * 4
    assert [pairs[2].query, pairs[2].document] == ["Which fruit, please?", "Two\nlines"]


def test_verify_takes_each_row_as_a_pair(file: Path):
    assert [pair.document for pair in read_pairs(file)][:3] == ['Fruit Bananas; "yellow"'] * 2 + ["Two\nlines"]


def test_rows_without_ids_belong_to_their_query_text(tmp_path: Path):
    rows = "query,text,relevance,source\nA?,x,1,web\nB?,y,1,web\nA?,z,0,book\n"
    (tmp_path / "a.csv").write_text(rows)

    first, second = dataset(tmp_path / "a.csv").queries
    assert (first.id, first.labels, first.fields) == ("1", {"1/1": 1, "1/2": 0}, {})
    assert (second.id, second.labels, second.fields) == ("2", {"2/1": 1}, {"source": "web"})


@pytest.mark.parametrize("name", ["training.csv", "training.tsv", "training.parquet"])
def test_tables_of_training_data_are_read(name: str, tmp_path: Path):
    rows = [{"query": "A?", "positive": "yes", "negative": "no"}, {"query": "B?", "positive": "ja", "negative": ""}]
    content = separated(rows, "\t" if name.endswith("tsv") else ",").encode()
    (tmp_path / name).write_bytes(parquet_bytes(rows[:1]) if name.endswith("parquet") else content)

    assert [*dataset(tmp_path / name).queries[0].labels.values()] == [1, 0]
    assert [pair.document for pair in read_pairs(tmp_path / name)][:3] in (["yes", "no", "ja"], ["yes", "no"])


def test_lists_of_documents_in_parquet_are_evaluated_as_in_jsonl(tmp_path: Path):
    rows = [{"query": "A?", "documents": ["x", "y"], "labels": [1, 0], "language": "en"}]
    (tmp_path / "a.parquet").write_bytes(parquet_bytes(rows))
    (tmp_path / "a.jsonl").write_text(json.dumps(rows[0]))

    assert dataset(tmp_path / "a.parquet").queries == dataset(tmp_path / "a.jsonl").queries


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("query,text,label\nA?,x,maybe\n", "a.csv, line 2: a label must be an integer from -1000 to 1000, not 'maybe'"),
        ("query,text\nA?,x\n", 'line 2: "label" is missing; a row with one document has its label'),
        ("query,text,label\nA?,x,1\nA?,y\n", "a.csv, line 3: 2 cells instead of 3; put cells that contain ','"),
        ("query_id,query,text,label\n1,A?,x,1\n1,B?,y,1\n", "line 3: the query id '1' has two different queries"),
        ("query,id,text,label\nA?,1,x,1\nA?,1,y,1\n", "line 3: the document id '1' occurs twice for the query '1'"),
        ("query,id,text,label\nA?,1,x,1\nB?,1,y,1\n", "line 3: the document id '1' has two different texts"),
        ("text,label\nx,1\n", 'line 2: "query" is missing'),
        ("query,label\nA?,1\n", "a.csv has no column 'text'; its columns are 'query', 'label'; rename the one"),
        ("query,text,label\nA?,x,0\n", "contains no query with a relevant document"),
        ("", "contains no queries"),
    ],
)
def test_an_error_of_a_table_names_its_line(content: str, message: str, tmp_path: Path):
    (tmp_path / "a.csv").write_text(content)

    with pytest.raises(InputError) as error:
        dataset(tmp_path / "a.csv")
    assert message in str(error.value)


def test_bad_rows_of_a_table_are_counted(tmp_path: Path):
    (tmp_path / "a.csv").write_text("query,text,label\nA?,x,1\nA?,y\nA?,z,much\nA?,v,0\n")
    bad_lines = BadLines(is_skipping=True)

    assert dataset(tmp_path / "a.csv", bad_lines).queries[0].labels == {"1/1": 1, "1/2": 0}
    assert bad_lines.skipped["queries"].count == 2


def test_a_bad_row_of_a_table_is_an_error_of_bulk(tmp_path: Path):
    (tmp_path / "a.csv").write_text("query_id,query,document_id,text\n1,A?,d,x\n1,A?,e\n,A?,f,y\n")

    assert [pair.error for pair in bulk_pairs(tmp_path / "a.csv")] == [
        None,
        "3 cells instead of 4; put cells that contain ',' in double quotes",
        "this row has no query_id; a row must have query_id, query and documents, or query_id, document_id, query and "
        "document",
    ]


def test_a_folder_of_tables_is_one_input(tmp_path: Path):
    for number, row in enumerate(ROWS):
        (tmp_path / f"part-{number}.csv").write_text(separated([row], ","), encoding="utf-8")
    (tmp_path / "about.json").write_text("{}")

    assert [pair.document_id for pair in bulk_pairs(tmp_path)] == ["d1", "d1", "d2", "d3"]


def test_commands_read_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.chdir(tmp_path)
    Path("a.csv").write_text(separated(ROWS, ","), encoding="utf-8")

    assert "nDCG@10" in output(capsys, "evaluate", DEMO_MODEL, "--data", "a.csv", "--slice", "language")
    assert "4 pairs written to ranked." in output(capsys, "bulk", "a.csv", "ranked", "--model", DEMO_MODEL)
    assert "4 pairs" in output(capsys, "verify", DEMO_MODEL, "--pairs", "a.csv")
