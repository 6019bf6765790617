"""Input files -> shards, and their rows."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onelogit import InputError
from onelogit.bulk import shards
from onelogit.bulk.shards import ShardReader, plan_shards
from support.bulk_rows import (
    ROWS,
    query_rows,
    write_jsonl,
    write_parquet,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(
    sizes=st.lists(st.integers(0, 40), min_size=1, max_size=30),
    slice_rows=st.integers(1, 9),
    group=st.integers(1, 12),
    kind=st.sampled_from([".jsonl", ".json", ".parquet"]),
    seen=st.sets(st.integers(0, 29)),
)
def test_every_row_is_in_one_shard_and_is_read_from_it(
    sizes: list[int], slice_rows: int, group: int, kind: str, seen: set[int], tmp_path: Path
):
    rows = [{"query_id": str(index), "query": "x" * size, "documents": ["d"]} for index, size in enumerate(sizes)]
    file = tmp_path / f"in{kind}"
    if kind == ".jsonl":
        file.write_text("\n\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    elif kind == ".json":
        file.write_text(json.dumps(rows), encoding="utf-8")
    else:
        write_parquet(file, rows, row_group_size=group)

    plan = plan_shards(file, slice_rows)
    reader = ShardReader()
    read = {shard: reader.rows(shard) for shard in plan.shards if shard.number not in seen}

    assert plan.row_count == len(rows)
    assert all(shard.rows <= slice_rows for shard in plan.shards)
    assert [shard.start for shard in plan.shards] == [
        sum(each.rows for each in plan.shards[:at]) for at in range(len(plan.shards))
    ]
    assert all(found == rows[shard.start :][: shard.rows] for shard, found in read.items())


def test_shards_can_be_read_in_descending_order(tmp_path: Path):
    plan = plan_shards(write_parquet(tmp_path / "in.parquet", ROWS, row_group_size=2), 1)
    reader = ShardReader()

    assert [reader.rows(shard) for shard in reversed(plan.shards)] == [[row] for row in reversed(ROWS)]


@pytest.mark.parametrize("kind", [".jsonl", ".parquet"])
def test_long_rows_make_small_shards(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shards, "_MAX_SHARD_BYTES", 3000)
    rows = [{**row, "query": f"{row['query']}{os.urandom(500).hex()}"} for row in query_rows(12, 2)]
    write = write_jsonl if kind == ".jsonl" else write_parquet

    plan = plan_shards(write(tmp_path / f"in{kind}", rows), 1000)

    assert plan.row_count == 12
    assert all(1 <= shard.rows <= 3 for shard in plan.shards)


def test_a_line_that_is_not_json_is_read_as_an_error(tmp_path: Path):
    file = tmp_path / "in.jsonl"
    file.write_bytes(b'\xef\xbb\xbf{"a": 1}\nno\n\xff\n' + b"[" * 100_000)

    rows = [row for shard in plan_shards(file, 9).shards for row in ShardReader().rows(shard)]

    assert rows[0] == {"a": 1}
    assert all(isinstance(row, InputError) for row in rows[1:])
    assert [str(row).partition(":")[0] for row in rows[1:]] == ["not JSON", "not UTF-8", "JSON that cannot be read"]


def test_byte_order_marks_of_concatenated_files_are_ignored(tmp_path: Path):
    file = tmp_path / "in.jsonl"
    file.write_bytes(b'\xef\xbb\xbf\n\xef\xbb\xbf{"a": 1}\n\xef\xbb\xbf{"a": 2}\n')

    assert [ShardReader().rows(shard) for shard in plan_shards(file, 1).shards] == [[{"a": 1}], [{"a": 2}]]


def test_a_file_that_changed_after_planning_is_an_error(source: Path):
    plan = plan_shards(source, 9)
    source.write_text("{}\n", encoding="utf-8")

    with pytest.raises(InputError, match="has changed: 1 row instead of 5"):
        ShardReader().rows(plan.shards[0])


def test_the_digest_of_an_input_depends_on_its_content(tmp_path: Path):
    digests = set()
    for rows in (ROWS, ROWS[1:], [*ROWS[1:], ROWS[0]]):
        digests.add(plan_shards(write_jsonl(tmp_path / "in.jsonl", rows), 2).digest)
        digests.add(plan_shards(write_parquet(tmp_path / "in.parquet", rows), 2).digest)

    assert len(digests) == 6


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("nowhere.jsonl", None, "there is no file or folder"),
        ("in.csv", b"a,b", "has no column 'text'; its columns are 'a', 'b'"),
        ("in.csv", b"query,text\nq,d\n", "has the columns query, text; it needs query_id"),
        ("in.xlsx", b"PK\x03\x04", "has none of the endings .parquet, .jsonl"),
        ("in.csv", b"PK\x03\x04", "in.csv is a ZIP, Word or Excel file"),
        ("in.jsonl", b"\n", "contains no rows"),
        ("in.jsonl", b'[\n{"query_id" 1}]\n', "in.jsonl, line 2: not JSON: Expecting ':' delimiter"),
        ("in.parquet", b"PAR1", "cannot be read"),
    ],
)
def test_an_unusable_input_is_refused(name: str, content: bytes | None, message: str, tmp_path: Path):
    if content is not None:
        (tmp_path / name).write_bytes(content)

    with pytest.raises(InputError, match=message):
        plan_shards(tmp_path / name, 9)


def test_a_table_without_the_required_columns_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match="has the columns query, text; it needs query_id"):
        plan_shards(write_parquet(tmp_path / "in.parquet", [{"query": "q", "text": "d"}]), 9)


def test_files_of_a_folder_that_are_not_read_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    write_jsonl(tmp_path / "in.jsonl", ROWS)
    for name in ("b.txt", "a.json", "_SUCCESS", ".part.json"):
        (tmp_path / name).write_text("x")

    assert plan_shards(tmp_path, 9).row_count == len(ROWS)
    assert caplog.messages == [f"{tmp_path}: 2 files with other endings are not read, such as a.json"]
