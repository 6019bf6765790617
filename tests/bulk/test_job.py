"""Whole runs without Ray: what is written, and what is detected if it is incomplete."""

import errno
import gzip
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from onelogit import InputError, OnelogitError, Reranker
from onelogit.bulk import job
from onelogit.bulk import ranking as ranking_stage
from onelogit.bulk.job import RunSummary, ShardResult, WorkerSpec, run
from onelogit.bulk.ranking import rank_table
from onelogit.bulk.shards import Shard
from onelogit.recipes.families import FAMILIES
from support.bulk_rows import (
    ROWS,
    expected_results,
    pair_rows,
    query_rows,
    ranking,
    recording_engine,
    results,
    write_jsonl,
    write_parquet,
)


@pytest.mark.parametrize("rows", [ROWS, pair_rows(ROWS)], ids=["lists", "pairs"])
@pytest.mark.parametrize("write", [write_jsonl, write_parquet])
def test_results_are_ranked_as_by_the_reranker(
    write: Callable[..., Path], rows: list[dict[str, Any]], model: str, reranker: Reranker, tmp_path: Path
):
    kind = ".jsonl" if write is write_jsonl else ".parquet"
    (tmp_path / "in").mkdir()
    write(tmp_path / "in" / f"a{kind}", rows[:3])
    write(tmp_path / "in" / f"b{kind}", rows[3:])
    (tmp_path / "in" / "_hidden.jsonl").write_text("no")

    outcome = run(tmp_path / "in", tmp_path / "out", model, slice_rows=2)

    assert outcome == RunSummary(pairs=20, errors=0)
    found = sorted(ranking(results(tmp_path / "out")), key=lambda row: (row[0], row[2]))
    assert found == expected_results(reranker, ROWS)
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"_run.json", "part-00000.parquet"}


def test_the_columns_are_as_documented(source: Path, model: str, tmp_path: Path):
    run(source, tmp_path / "out", model)

    schema = parquet.read_schema(tmp_path / "out" / "part-00000.parquet")
    assert {field.name: str(field.type) for field in schema} == {
        "query_id": "string", "document_id": "string", "logit": "float", "score": "double", "rank": "int32",
        "error": "string", "model": "string",
    }  # fmt: skip


def test_ranking_in_many_tables_gives_the_results_of_one_table(
    source: Path, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run(source, tmp_path / "one", model)
    monkeypatch.setattr(ranking_stage, "_PAIRS_PER_TABLE", 3)
    run(source, tmp_path / "many", model)

    assert len(list((tmp_path / "many").glob("part-*"))) == 7
    assert sorted(map(str, results(tmp_path / "many"))) == sorted(map(str, results(tmp_path / "one")))


def test_invalid_rows_are_errors_in_the_results_with_their_location(model: str, tmp_path: Path):
    rows = [ROWS[0], {**ROWS[1], "query": ""}, {"query_id": None, "query": "q", "documents": ["d"]}, ROWS[2]]

    outcome = run(write_jsonl(tmp_path / "in.jsonl", rows), tmp_path / "out", model, slice_rows=3)

    assert outcome == RunSummary(pairs=13, errors=5)
    errors = {row["query_id"]: row["error"] for row in results(tmp_path / "out") if row["error"]}
    assert "the query is empty" in errors["q1"]
    assert errors[None].startswith("in.jsonl, row 3: this row has no query_id")


def test_queries_without_documents_give_no_results(model: str, tmp_path: Path):
    source = write_jsonl(tmp_path / "in.jsonl", [{**ROWS[0], "documents": []}] * 2)

    assert run(source, tmp_path / "out", model, slice_rows=1) == RunSummary(pairs=0, errors=0)
    assert results(tmp_path / "out") == []


def test_a_worker_spec_is_plain_data(source: Path, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """No model or tokenizer: Ray could not restart a worker if it had lost such an object."""
    specs: list[WorkerSpec] = []

    def engine(spec: WorkerSpec, shards: Sequence[Shard]) -> Iterator[ShardResult]:
        specs.append(spec)
        return job.score_in_process(spec, shards)

    monkeypatch.chdir(Path(model).parent)
    run(source, tmp_path / "out", Path(model).name, engine=engine, recipe=FAMILIES[0], max_tokens=900)

    assert WorkerSpec(**json.loads(json.dumps(specs[0]._asdict()))) == specs[0]
    assert Path(specs[0].model).is_absolute()


def test_a_gzipped_file_gives_the_results_of_the_plain_file(model: str, tmp_path: Path):
    plain = write_jsonl(tmp_path / "in.jsonl", [*ROWS, {}, 7])
    (tmp_path / "zipped").mkdir()
    (tmp_path / "zipped" / "in.jsonl.gz").write_bytes(gzip.compress(plain.read_bytes()))

    for name, file in {"a": plain, "b": tmp_path / "zipped"}.items():
        run(file, tmp_path / name, model, slice_rows=2)

    first, second = (
        [{**row, "error": (row["error"] or "").replace(".gz", "")} for row in results(tmp_path / name)] for name in "ab"
    )
    assert first == second
    assert any("not a JSON object, but 7" in row["error"] for row in first)


def test_a_truncated_gzipped_file_is_named_in_the_error(model: str, tmp_path: Path):
    file = tmp_path / "in.jsonl.gz"
    file.write_bytes(gzip.compress(write_jsonl(tmp_path / "in.jsonl", ROWS).read_bytes())[:-9])

    with pytest.raises(InputError, match=r"in\.jsonl\.gz cannot be read"):
        run(file, tmp_path / "out", model)


def test_a_table_with_damaged_pages_is_named_in_the_error(model: str, tmp_path: Path):
    source = write_parquet(tmp_path / "in.parquet", query_rows(200, 4), compression="zstd")
    content = bytearray(source.read_bytes())
    content[100:400] = bytes(300)
    source.write_bytes(content)

    with pytest.raises(InputError, match="in.parquet cannot be read"):
        run(source, tmp_path / "out", model)


def test_shards_that_an_engine_left_out_are_detected_and_scored_later(source: Path, model: str, tmp_path: Path):
    def forget(spec: WorkerSpec, shards: Sequence[Shard]) -> Iterator[ShardResult]:
        return job.score_in_process(spec, shards[1:])

    with pytest.raises(OnelogitError, match="1 of 5 shards were not scored, the first is slice-00000000"):
        run(source, tmp_path / "out", model, slice_rows=1, engine=forget)

    seen: list[int] = []
    run(source, tmp_path / "out", model, slice_rows=1, engine=recording_engine(seen))
    assert seen == [0]


def test_results_that_differ_from_what_was_scored_are_detected(
    source: Path, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for broken, message in [
        (lambda table, label: rank_table(table, label).slice(1), "contains 19 of 20 pairs"),
        (lambda table, label: pyarrow.concat_tables([rank_table(table, label)] * 2), "contains a pair twice"),
    ]:
        monkeypatch.setattr(job, "rank_table", broken)
        with pytest.raises(OnelogitError, match=message):
            run(source, tmp_path / "out", model, is_overwriting=True)


def test_an_error_of_a_worker_ends_the_run(source: Path, model: str, tmp_path: Path):
    def engine(spec: WorkerSpec, shards: Sequence[Shard]) -> Iterator[ShardResult]:
        yield ShardResult(0, 5, "host:1", "no memory")

    with pytest.raises(OnelogitError, match="worker host:1: no memory"):
        run(source, tmp_path / "out", model, engine=engine)


def test_the_message_of_a_system_error_names_its_file_if_there_is_one(source: Path, model: str, tmp_path: Path):
    for error, message in (
        (
            FileNotFoundError(errno.ENOENT, "No such file", "/elsewhere/model"),
            "/elsewhere/model: No such file",
        ),
        (OSError("it broke over there"), "it broke over there"),
    ):

        def fail(spec: WorkerSpec, shards: Sequence[Shard], error: OSError = error) -> Iterator[ShardResult]:
            raise error

        with pytest.raises(OnelogitError) as raised:
            run(source, tmp_path / "out", model, engine=fail)
        assert str(raised.value) == f"{message}; once this is fixed, run the same command again"


@pytest.mark.parametrize("write", [write_jsonl, write_parquet])
def test_documents_with_a_title_and_beirs_id_are_ranked_as_in_other_commands(
    write: Callable[..., Path], model: str, reranker: Reranker, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    documents = [
        {"_id": "d7", "title": "Beijing", "text": "It is the capital.", "abstract": "unread"},
        {"_id": "d8", "title": None, "text": "Bananas are yellow.", "abstract": None},
    ]
    kind = ".jsonl" if write is write_jsonl else ".parquet"
    source = write(tmp_path / f"in{kind}", [{"query_id": "q1", "query": "capital?", "documents": documents}])

    run(source, tmp_path / "out", model)

    logits = reranker.logits("capital?", ["Beijing It is the capital.", "Bananas are yellow."])
    found = {row["document_id"]: row["logit"] for row in results(tmp_path / "out")}
    assert found == {"d7": pytest.approx(logits[0], abs=1e-5), "d8": pytest.approx(logits[1], abs=1e-5)}
    assert (
        caplog.messages.count(f'in{kind}: these fields of documents are not part of their texts: "abstract" (1)') == 1
    )


def test_a_table_of_pairs_with_other_names_is_read_and_unread_columns_are_named(
    model: str, reranker: Reranker, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    row = {"qid": 1, "query": "capital?", "docid": 7, "title": "Beijing", "text": "It is the capital.", "url": "u"}

    run(write_parquet(tmp_path / "in.parquet", [row]), tmp_path / "out", model)

    logit = reranker.logits("capital?", ["Beijing It is the capital."])[0]
    assert ranking(results(tmp_path / "out")) == [("1", "7", 1, pytest.approx(logit, abs=1e-5))]
    assert any('"url" (1)' in message for message in caplog.messages)


@pytest.mark.parametrize("kind", [".jsonl", ".parquet"])
def test_rows_without_documents_and_lists_beside_documents_are_reported(
    kind: str, model: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    rows = [
        {"query_id": "1", "query": "a", "documents": ["b", "c"], "document_ids": ["x", "y"]},
        {"query_id": "2", "query": "a", "documents": [], "document_ids": ["x"]},
        {"query_id": "3", "query": "a", "documents": [], "document_ids": ["x"]},
    ]
    write = write_jsonl if kind == ".jsonl" else write_parquet
    source = write(tmp_path / f"in{kind}", rows)

    assert run(source, tmp_path / "out", model).pairs == 2
    assert f"in{kind}: rows with an empty list of documents, which give no result: 2" in caplog.messages
    assert '"document_ids" (' in caplog.text
