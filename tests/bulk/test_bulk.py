"""Bulk jobs without Ray: what comes out, what becomes of bad rows, and that a run can be stopped at any moment."""

import errno
import gzip
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from onelogit import DEMO_MODEL, InputError, LogitError, OnelogitError, Reranker
from onelogit.bulk import job, shards
from onelogit.bulk import ranking as ranking_stage
from onelogit.bulk.input_rows import ScoringPair, pairs_of
from onelogit.bulk.job import RunSummary, ShardResult, WorkerSpec, run
from onelogit.bulk.output_folder import RunFolder
from onelogit.bulk.part_files import SCORED, write_part
from onelogit.bulk.ranking import rank_table
from onelogit.bulk.scoring import score_pairs
from onelogit.bulk.shards import Shard, ShardReader, plan_shards
from onelogit.cli.main import main
from onelogit.errors import check_packages
from onelogit.options import DEMO_NOTE
from onelogit.recipes.families import FAMILIES
from support.bulk_rows import (
    expected_results,
    pair_rows,
    query_rows,
    ranking,
    results,
    write_jsonl,
    write_parquet,
)
from support.prepared import Process
from support.tiny import Tiny

ROWS = query_rows(5, 4)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_jsonl(tmp_path / "in.jsonl", ROWS)


@pytest.fixture
def model(tiny_qwen: Tiny) -> str:
    return str(tiny_qwen.folder)


class Watched:
    """A reranker that notes what it is asked, and fails where a text says so."""

    def __init__(self, reranker: Reranker) -> None:
        self.activation = reranker.activation
        self.asked: list[int] = []
        self._reranker = reranker

    def pair_logits(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        self.asked.append(len(pairs))
        for _, document in pairs:
            if document == "NaN":
                raise LogitError("the logit of document 0 is nan")
            if document == "poison":
                raise RuntimeError("a poisoned\nrow")
        return self._reranker.pair_logits(pairs)


# Rows


def test_a_row_with_a_list_is_a_pair_for_each_document():
    documents = ["a", {"text": "b", "id": 7}, {"text": "c", "document_id": "x", "id": 8}, {"text": "d"}]

    pairs = pairs_of({"query_id": 1, "query": "q", "documents": documents})

    assert pairs == [ScoringPair("1", id, "q", text) for id, text in [("0", "a"), ("7", "b"), ("x", "c"), ("3", "d")]]


def test_a_row_may_be_a_pair():
    row = {"query_id": "q1", "document_id": "d1", "query": "q", "document": "", "documents": None}

    assert pairs_of(row) == [ScoringPair("q1", "d1", "q", "")]


FINE = {"query_id": "q1", "query": "q", "documents": ["a", "b"]}
BAD_ROWS = [
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
def test_a_bad_row_is_an_error_in_its_pairs(row: object, query_ids: list[str | None], error: str):
    pairs = pairs_of(row)

    assert [pair.query_id for pair in pairs] == query_ids
    assert all(pair.error is not None and error in pair.error for pair in pairs)


def test_a_bad_document_is_an_error_of_its_own():
    errors = [pair.error for pair in pairs_of({**FINE, "documents": ["a", None, {"id": 1}, "\ud800"]})]

    assert errors[0] is None
    assert "document 1 must be a string, not NoneType" in str(errors[1])
    assert "the text of document 2 must be a string" in str(errors[2])
    assert "half a character" in str(errors[3])


# Scoring


def test_a_pair_that_fails_takes_no_other_with_it(reranker: Reranker):
    pairs = [
        ScoringPair("q", str(place), "q", text) for place, text in enumerate(["a", "NaN", "b", "poison", "c", "d"])
    ]

    scored = score_pairs(Watched(reranker), pairs)  # type: ignore[arg-type]

    assert [each.error for each in scored] == [
        None, "the logit of document 0 is nan", None, "a poisoned row", None, None,
    ]  # fmt: skip
    fine = [each.logit for each in scored if each.error is None]
    assert fine == pytest.approx(reranker.logits("q", ["a", "b", "c", "d"]), abs=1e-5)


def test_a_query_that_is_too_long_is_its_own_error(tiny_qwen: Tiny):
    reranker = Reranker.load(tiny_qwen.folder, max_tokens=300)

    scored = score_pairs(reranker, [ScoringPair("1", "0", "short", "a"), ScoringPair("2", "0", "long " * 500, "a")])

    assert scored[0].error is None
    assert "leaves no room for a document in max_tokens=300" in str(scored[1].error)


def test_what_is_no_pairs_fault_is_raised(tiny_qwen: Tiny):
    reranker = Reranker.load(tiny_qwen.folder)
    reranker.close()

    with pytest.raises(OnelogitError, match="closed"):
        score_pairs(reranker, [ScoringPair("1", "0", "q", "a")])


def test_a_query_with_ten_thousand_documents_is_scored_in_pieces(reranker: Reranker):
    watched = Watched(reranker)
    watched.pair_logits = lambda pairs: (watched.asked.append(len(pairs)), [0.0] * len(pairs))[1]  # type: ignore[method-assign]

    scored = score_pairs(watched, [ScoringPair("q", str(place), "q", "d") for place in range(10_000)])  # type: ignore[arg-type]

    assert len(scored) == sum(watched.asked) == 10_000
    assert max(watched.asked) <= 1024


@pytest.mark.parametrize("activation", ["identity", "sigmoid"])
def test_the_score_is_on_the_rerankers_scale(activation: Any, tiny_qwen: Tiny):
    reranker = Reranker.load(tiny_qwen.folder, activation=activation)
    (ranked,) = reranker.rank("q", ["a"])

    assert score_pairs(reranker, [ScoringPair("q", "0", "q", "a")])[0] == (ranked.logit, ranked.score, None)


# Slices


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(
    sizes=st.lists(st.integers(0, 40), min_size=1, max_size=30),
    slice_rows=st.integers(1, 9),
    group=st.integers(1, 12),
    kind=st.sampled_from([".jsonl", ".parquet"]),
    seen=st.sets(st.integers(0, 29)),
)
def test_every_row_stands_in_one_slice_and_is_read_from_it(
    sizes: list[int], slice_rows: int, group: int, kind: str, seen: set[int], tmp_path: Path
):
    rows = [{"query_id": str(place), "query": "x" * size, "documents": ["d"]} for place, size in enumerate(sizes)]
    file = tmp_path / f"in{kind}"
    if kind == ".jsonl":
        file.write_text("\n\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    else:
        write_parquet(file, rows, row_group_size=group)

    plan = plan_shards(file, slice_rows)
    reader = ShardReader()
    read = {part: reader.rows(part) for part in plan.shards if part.number not in seen}

    assert plan.row_count == len(rows)
    assert all(part.rows <= slice_rows for part in plan.shards)
    assert [part.start for part in plan.shards] == [
        sum(each.rows for each in plan.shards[:at]) for at in range(len(plan.shards))
    ]
    assert all(found == rows[part.start :][: part.rows] for part, found in read.items())


def test_slices_may_be_read_backwards(tmp_path: Path):
    plan = plan_shards(write_parquet(tmp_path / "in.parquet", ROWS, row_group_size=2), 1)
    reader = ShardReader()

    assert [reader.rows(part) for part in reversed(plan.shards)] == [[row] for row in reversed(ROWS)]


@pytest.mark.parametrize("kind", [".jsonl", ".parquet"])
def test_long_rows_make_small_slices(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shards, "_MAX_SHARD_BYTES", 3000)
    rows = [{**row, "query": f"{row['query']}{os.urandom(500).hex()}"} for row in query_rows(12, 2)]
    write = write_jsonl if kind == ".jsonl" else write_parquet

    plan = plan_shards(write(tmp_path / f"in{kind}", rows), 1000)

    assert plan.row_count == 12
    assert all(1 <= part.rows <= 3 for part in plan.shards)


def test_a_line_that_is_not_json_is_an_error_in_its_place(tmp_path: Path):
    file = tmp_path / "in.jsonl"
    file.write_bytes(b'\xef\xbb\xbf{"a": 1}\nno\n\xff\n' + b"[" * 100_000)

    rows = [row for part in plan_shards(file, 9).shards for row in ShardReader().rows(part)]

    assert rows[0] == {"a": 1}
    assert all(isinstance(row, InputError) for row in rows[1:])
    assert [str(row).partition(":")[0] for row in rows[1:]] == ["not JSON", "not UTF-8", "not JSON that can be read"]


def test_a_file_that_changes_while_it_is_read_is_an_error(source: Path):
    plan = plan_shards(source, 9)
    source.write_text("{}\n", encoding="utf-8")

    with pytest.raises(InputError, match="has changed: 1 rows where 5 were planned"):
        ShardReader().rows(plan.shards[0])


def test_inputs_are_told_apart_by_their_content(tmp_path: Path):
    digests = set()
    for rows in (ROWS, ROWS[1:], [*ROWS[1:], ROWS[0]]):
        digests.add(plan_shards(write_jsonl(tmp_path / "in.jsonl", rows), 2).digest)
        digests.add(plan_shards(write_parquet(tmp_path / "in.parquet", rows), 2).digest)

    assert len(digests) == 6


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("nowhere.jsonl", None, "there is no file or folder"),
        ("in.csv", b"a,b", "neither .parquet nor .jsonl"),
        ("in.jsonl", b"\n", "holds no rows"),
        ("in.parquet", b"PAR1", "cannot be read"),
    ],
)
def test_an_input_that_cannot_be_used_is_refused(name: str, content: bytes | None, said: str, tmp_path: Path):
    if content is not None:
        (tmp_path / name).write_bytes(content)

    with pytest.raises(InputError, match=said):
        plan_shards(tmp_path / name, 9)


def test_a_table_without_the_columns_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match="has the columns query, text; it needs query_id"):
        plan_shards(write_parquet(tmp_path / "in.parquet", [{"query": "q", "text": "d"}]), 9)


# Ranking


def scored(rows: Sequence[tuple[Any, ...]]) -> Any:
    names = [field.name for field in SCORED]
    whole = [(place, *row) if len(row) == 6 else row for place, row in enumerate(rows)]
    return pyarrow.Table.from_pylist([dict(zip(names, row, strict=True)) for row in whole], SCORED)


def test_equal_logits_keep_the_order_of_the_input_whatever_order_they_come_in():
    table = scored([("q", id, 1, 0.5, 0.5, None) for id in "cab"])

    assert rank_table(table.take([2, 0, 1]), "m")["document_id"].to_pylist() == ["c", "a", "b"]


def test_contradictions_are_errors_of_the_later_row():
    table = scored(
        [
            ("q", "a", 1, 0.1, 0.1, None),
            ("q", "a", 1, 0.9, 0.9, None),
            ("q", "b", 2, 0.9, 0.9, None),
            ("q", "c", 1, 0.2, 0.2, None),
        ]
    )

    ranked = rank_table(table, "m").to_pylist()

    assert [(row["document_id"], row["rank"], row["logit"] is None) for row in ranked] == [
        ("c", 1, False), ("a", 2, False), ("a", None, True), ("b", None, True),
    ]  # fmt: skip
    assert "this document_id" in ranked[2]["error"]
    assert "this query_id" in ranked[3]["error"]


# Jobs


@pytest.mark.parametrize("rows", [ROWS, pair_rows(ROWS)], ids=["lists", "pairs"])
@pytest.mark.parametrize("write", [write_jsonl, write_parquet])
def test_a_job_ranks_as_the_reranker_does(
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


def test_many_groups_give_what_one_gives(source: Path, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run(source, tmp_path / "one", model)
    monkeypatch.setattr(ranking_stage, "_PAIRS_PER_TABLE", 3)
    run(source, tmp_path / "many", model)

    assert len(list((tmp_path / "many").glob("part-*"))) == 7
    assert sorted(map(str, results(tmp_path / "many"))) == sorted(map(str, results(tmp_path / "one")))


def test_bad_rows_are_errors_in_the_results_and_say_where_they_stand(model: str, tmp_path: Path):
    rows = [ROWS[0], {**ROWS[1], "query": ""}, {"query_id": None, "query": "q", "documents": ["d"]}, ROWS[2]]

    outcome = run(write_jsonl(tmp_path / "in.jsonl", rows), tmp_path / "out", model, slice_rows=3)

    assert outcome == RunSummary(pairs=13, errors=5)
    errors = {row["query_id"]: row["error"] for row in results(tmp_path / "out") if row["error"]}
    assert "the query is empty" in errors["q1"]
    assert errors[None].startswith("in.jsonl, row 3: this row has no query_id")


def test_queries_without_documents_make_no_rows(model: str, tmp_path: Path):
    source = write_jsonl(tmp_path / "in.jsonl", [{**ROWS[0], "documents": []}] * 2)

    assert run(source, tmp_path / "out", model, slice_rows=1) == RunSummary(pairs=0, errors=0)
    assert results(tmp_path / "out") == []


def test_a_finished_job_is_not_run_again(source: Path, model: str, tmp_path: Path):
    first = run(source, tmp_path / "out", model)

    def refuse(work: WorkerSpec, shards: Sequence[Shard]) -> Iterator[ShardResult]:
        raise AssertionError

    assert run(source, tmp_path / "out", model, engine=refuse) == first


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"instruction": "Say."}, "holds results of another model: Qwen3-Reranker-tiny@"),
        ({"slice_rows": 7}, "another run: --slice-rows was 1000, not 7"),
        ({"rows": ROWS[:2]}, "another input"),
    ],
)
def test_a_folder_with_other_results_is_refused_until_told_to_overwrite(
    change: dict[str, Any], said: str, source: Path, model: str, tmp_path: Path
):
    run(source, tmp_path / "out", model)
    if rows := change.pop("rows", None):
        write_jsonl(source, rows)

    with pytest.raises(InputError, match=said):
        run(source, tmp_path / "out", model, **change)
    run(source, tmp_path / "out", model, is_overwriting=True, **change)

    assert len(results(tmp_path / "out")) == (8 if rows else 20)


def test_options_that_change_no_logit_are_the_same_run(source: Path, model: str, tmp_path: Path):
    run(source, tmp_path / "out", model)

    assert run(source, tmp_path / "out", model, batch_tokens=100, device="cpu", dtype=None) == RunSummary(20, 0)


def test_what_a_worker_is_told_is_plain_data(source: Path, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Not a model or a tokenizer: Ray could not start a worker anew once such an object is lost."""
    works: list[WorkerSpec] = []

    def engine(work: WorkerSpec, shards: Sequence[Shard]) -> Iterator[ShardResult]:
        works.append(work)
        return job.score_in_process(work, shards)

    monkeypatch.chdir(Path(model).parent)
    run(source, tmp_path / "out", Path(model).name, engine=engine, recipe=FAMILIES[0], max_tokens=900)

    assert WorkerSpec(**json.loads(json.dumps(works[0]._asdict()))) == works[0]
    assert Path(works[0].model).is_absolute()


def test_the_weights_are_a_part_of_the_models_name(source: Path, checkpoint: Callable[..., Tiny], tmp_path: Path):
    run(source, tmp_path / "out", str(checkpoint("Qwen3-Reranker-x", is_tied=False).folder))
    checkpoint("Qwen3-Reranker-x", is_tied=True)

    with pytest.raises(InputError, match="another model"):
        run(source, tmp_path / "out", str(tmp_path / "Qwen3-Reranker-x"))


def test_two_runs_do_not_write_to_one_folder(source: Path, model: str, tmp_path: Path):
    def engine(work: WorkerSpec, shards: Sequence[Shard]) -> Iterator[ShardResult]:
        with pytest.raises(InputError, match="another process is writing to"):
            run(source, tmp_path / "out", model)
        return job.score_in_process(work, shards)

    assert run(source, tmp_path / "out", model, engine=engine) == RunSummary(20, 0)


def test_a_worker_of_an_earlier_run_that_still_lives_does_no_harm(source: Path, model: str, tmp_path: Path):
    works: list[WorkerSpec] = []

    def stopped(work: WorkerSpec, shards: Sequence[Shard]) -> Iterator[ShardResult]:
        works.append(work)
        raise KeyboardInterrupt

    def engine(work: WorkerSpec, shards: Sequence[Shard]) -> Iterator[ShardResult]:
        Path(works[0].scored_folder).mkdir()
        list(job.score_in_process(works[0], shards))
        return job.score_in_process(work, shards)

    with pytest.raises(KeyboardInterrupt):
        run(source, tmp_path / "out", model, engine=stopped, instruction="Say.")
    run(source, tmp_path / "out", model, engine=engine, is_overwriting=True)
    run(source, tmp_path / "fresh", model)

    assert results(tmp_path / "out") == results(tmp_path / "fresh")
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"_run.json", "part-00000.parquet"}


def test_a_folder_of_somebody_else_is_never_touched(source: Path, model: str, tmp_path: Path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")

    with pytest.raises(InputError, match="was not written by onelogit bulk"):
        run(source, tmp_path / "out", model, is_overwriting=True)
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["thesis.txt"]


def test_results_do_not_lie_in_their_input(source: Path, model: str, tmp_path: Path):
    with pytest.raises(InputError, match="is inside the input folder"):
        run(tmp_path, tmp_path / "out", model)


def test_a_part_stands_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(table: object, path: Path, **options: object) -> None:
        Path(path).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(parquet, "write_table", fail)

    with pytest.raises(
        OnelogitError, match=r"part\.parquet cannot be written \(disk full\); once it can, run the same"
    ):
        write_part(scored([]), tmp_path / "part.parquet")
    assert list(tmp_path.iterdir()) == []


def test_a_part_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    seen: list[bool] = []
    keep = os.fsync

    def watched(place: int) -> None:
        seen.append((tmp_path / "part.parquet").exists())
        keep(place)

    monkeypatch.setattr(os, "fsync", watched)
    write_part(scored([]), tmp_path / "part.parquet")

    assert seen == [False]


@pytest.mark.parametrize("left", [0, 100])
def test_a_part_that_is_torn_is_scored_again(left: int, source: Path, model: str, tmp_path: Path):
    def stopped(work: WorkerSpec, shards: Sequence[Shard]) -> Iterator[ShardResult]:
        yield from job.score_in_process(work, shards[:3])
        raise KeyboardInterrupt

    run(source, tmp_path / "whole", model, slice_rows=1)
    with pytest.raises(KeyboardInterrupt):
        run(source, tmp_path / "out", model, slice_rows=1, engine=stopped)
    (part,) = (tmp_path / "out").glob("_scored-*/slice-00000001.parquet")
    part.write_bytes(part.read_bytes()[:left])
    seen: list[int] = []
    run(source, tmp_path / "out", model, slice_rows=1, engine=noting(seen))

    assert seen == [1, 3, 4]
    assert results(tmp_path / "out") == results(tmp_path / "whole")


def test_results_that_are_gone_are_missed(source: Path, model: str, tmp_path: Path):
    run(source, tmp_path / "out", model)
    (tmp_path / "out" / "part-00000.parquet").unlink()

    with pytest.raises(OnelogitError, match="holds 0 pairs of 20; remove it"):
        run(source, tmp_path / "out", model)


def test_an_interrupt_says_how_to_go_on_and_the_run_goes_on_later(
    source: Path, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    score = job.ShardWorker.score

    def interrupted(self: job.ShardWorker, part: Shard) -> ShardResult:
        if part.number == 2:
            raise KeyboardInterrupt
        return score(self, part)

    with monkeypatch.context() as patch:
        patch.setattr(job.ShardWorker, "score", interrupted)
        assert bulk(source, tmp_path / "out", "--model", model, "--slice-rows", 1) == 130
    said = f"onelogit: stopped; the same command goes on, from what stands in {tmp_path / 'out'}\n"
    assert capsys.readouterr() == ("", said)
    seen: list[int] = []

    assert run(source, tmp_path / "out", model, slice_rows=1, engine=noting(seen)) == RunSummary(20, 0)
    assert seen == [2, 3, 4]


@pytest.mark.parametrize("moment", ["scoring", "ranking"])
def test_a_full_disk_is_one_line_and_the_run_goes_on_later(
    moment: str, source: Path, model: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
):  # fmt: skip
    write = parquet.write_table

    def fail(table: Any, path: Path, **options: Any) -> None:
        if ("slice" in path.name) is (moment == "scoring"):
            raise OSError(errno.ENOSPC, "No space left on device")
        write(table, path, **options)

    with monkeypatch.context() as patch:
        patch.setattr(parquet, "write_table", fail)
        assert bulk(source, tmp_path / "out", "--model", model) == 2

    said = capsys.readouterr().err
    assert said.startswith(f"onelogit: {tmp_path / 'out'}/")
    assert said.endswith(" cannot be written (No space left on device); once it can, run the same command again\n")
    assert said.count("\n") == 1
    assert run(source, tmp_path / "out", model) == RunSummary(20, 0)


@pytest.mark.parametrize("name", ["_scored-*/slice-00000001", "part-00000"])
def test_a_damaged_part_is_named_with_what_to_do_and_that_helps(
    name: str, source: Path, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def stop(*arguments: object) -> None:
        raise KeyboardInterrupt

    run(source, tmp_path / "whole", model, slice_rows=1)
    if "slice" in name:
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(job, "_rank", stop)
            run(source, tmp_path / "out", model, slice_rows=1)
    else:
        run(source, tmp_path / "out", model, slice_rows=1)
    (part,) = (tmp_path / "out").glob(f"{name}.parquet")
    content = part.read_bytes()
    # Of a part of a finished run the end is read, of a scored one the pages, too.
    part.write_bytes(content[:4] + bytes(96) + content[100:] if "slice" in name else content[:100])
    with pytest.raises(OnelogitError, match="is damaged") as error:
        run(source, tmp_path / "out", model, slice_rows=1)

    (damaged, removed) = re.fullmatch(
        r"(\S+) is damaged \(.*\); remove (\S+), and run the same command again", str(error.value)
    ).groups()
    assert damaged == str(part)
    shutil.rmtree(removed) if Path(removed).is_dir() else Path(removed).unlink()
    assert run(source, tmp_path / "out", model, slice_rows=1) == RunSummary(20, 0)
    assert results(tmp_path / "out") == results(tmp_path / "whole")


def test_an_error_of_the_system_is_named_by_the_file_that_it_names_or_by_none(source: Path, model: str, tmp_path: Path):
    for error, said in (
        (
            FileNotFoundError(errno.ENOENT, "No such file", "/elsewhere/model"),
            "/elsewhere/model: No such file",
        ),
        (OSError("it broke over there"), "it broke over there"),
    ):

        def fail(work: WorkerSpec, shards: Sequence[Shard], error: OSError = error) -> Iterator[ShardResult]:
            raise error

        with pytest.raises(OnelogitError) as raised:
            run(source, tmp_path / "out", model, engine=fail)
        assert str(raised.value) == f"{said}; once this is fixed, run the same command again"


def test_gzipped_rows_are_those_of_the_file_itself(model: str, tmp_path: Path):
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


def test_a_gzipped_file_that_is_cut_is_named(model: str, tmp_path: Path):
    file = tmp_path / "in.jsonl.gz"
    file.write_bytes(gzip.compress(write_jsonl(tmp_path / "in.jsonl", ROWS).read_bytes())[:-9])

    with pytest.raises(InputError, match=r"in\.jsonl\.gz cannot be read"):
        run(file, tmp_path / "out", model)


def test_the_demo_model_is_named_as_what_it_is(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert bulk(source, tmp_path / "out", "--model", DEMO_MODEL) == 0

    assert capsys.readouterr().err == f"onelogit: {DEMO_NOTE}\n"


def test_a_table_whose_pages_are_damaged_ends_the_run_with_its_name(model: str, tmp_path: Path):
    source = write_parquet(tmp_path / "in.parquet", query_rows(200, 4), compression="zstd")
    content = bytearray(source.read_bytes())
    content[100:400] = bytes(300)
    source.write_bytes(content)

    with pytest.raises(InputError, match="in.parquet cannot be read"):
        run(source, tmp_path / "out", model)


def test_an_engine_that_leaves_something_out_is_found_out(source: Path, model: str, tmp_path: Path):
    def forget(work: WorkerSpec, shards: Sequence[Shard]) -> Iterator[ShardResult]:
        return job.score_in_process(work, shards[1:])

    with pytest.raises(OnelogitError, match="1 of 5 shards were not scored, the first is slice-00000000"):
        run(source, tmp_path / "out", model, slice_rows=1, engine=forget)

    seen: list[int] = []
    run(source, tmp_path / "out", model, slice_rows=1, engine=noting(seen))
    assert seen == [0]


def noting(seen: list[int]) -> job.BulkEngine:
    """The engine of small jobs, which notes what it is asked for."""

    def engine(work: WorkerSpec, shards: Sequence[Shard]) -> Iterator[ShardResult]:
        seen.extend(part.number for part in shards)
        return job.score_in_process(work, shards)

    return engine


def test_results_that_are_not_what_was_scored_are_found_out(
    source: Path, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for broken, said in [
        (lambda table, label: rank_table(table, label).slice(1), "holds 19 pairs of 20"),
        (lambda table, label: pyarrow.concat_tables([rank_table(table, label)] * 2), "holds a pair twice"),
    ]:
        monkeypatch.setattr(job, "rank_table", broken)
        with pytest.raises(OnelogitError, match=said):
            run(source, tmp_path / "out", model, is_overwriting=True)


def test_a_worker_that_tells_of_a_fault_ends_the_run(source: Path, model: str, tmp_path: Path):
    def engine(work: WorkerSpec, shards: Sequence[Shard]) -> Iterator[ShardResult]:
        yield ShardResult(0, 5, "host:1", "no memory")

    with pytest.raises(OnelogitError, match="worker host:1: no memory"):
        run(source, tmp_path / "out", model, engine=engine)


def test_a_run_that_is_killed_goes_on_where_it_stood(model: str, reranker: Reranker, tmp_path: Path):
    rows = query_rows(400, 3)
    source = write_jsonl(tmp_path / "in.jsonl", rows)
    out = tmp_path / "out"

    with Process(["-m", "onelogit", "bulk", source, out, "--model", model, "--slice-rows", "1"]) as process:
        until(lambda: len(list(out.glob("_scored-*/slice-*"))) >= 5)
        os.kill(process.pid, signal.SIGKILL)
    written = {part: part.stat().st_mtime_ns for part in out.glob("_scored-*/slice-*")}
    seen: list[int] = []
    outcome = run(source, out, model, slice_rows=1, engine=noting(seen))

    assert process.returncode == -signal.SIGKILL
    assert 5 <= len(written) < 400
    assert len(seen) == 400 - len(written)
    assert outcome == RunSummary(pairs=1200, errors=0)
    assert ranking(results(out)) == expected_results(reranker, rows)


def until(condition: Callable[[], object], timeout_s: float = 60) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


@pytest.mark.parametrize("moment", ["ranking", "checking", "noting", "cleaning"])
def test_a_run_that_ends_behind_its_last_slice_scores_none_again(
    moment: str, source: Path, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def stop(*arguments: object) -> None:
        raise KeyboardInterrupt

    def engine(work: WorkerSpec, shards: Sequence[Shard]) -> Iterator[ShardResult]:
        yield from job.score_in_process(work, shards)
        owner, name = {
            "ranking": (job, "write_part"),
            "checking": (job, "_check_results"),
            "noting": (RunFolder, "write_record"),
            "cleaning": (RunFolder, "clean"),
        }[moment]
        patch.setattr(owner, name, stop)

    run(source, tmp_path / "whole", model)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        run(source, tmp_path / "out", model, engine=engine)
    seen: list[int] = []
    run(source, tmp_path / "out", model, engine=noting(seen))

    assert seen == []
    assert results(tmp_path / "out") == results(tmp_path / "whole")
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"_run.json", "part-00000.parquet"}


def test_a_folder_that_is_being_cleared_is_nobodys(
    source: Path, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def stop(*arguments: object) -> None:
        raise KeyboardInterrupt

    run(source, tmp_path / "out", model, instruction="Say.")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(RunFolder, "clean", stop)
        run(source, tmp_path / "out", model, is_overwriting=True)

    assert run(source, tmp_path / "out", model) == RunSummary(20, 0)


# The command


def bulk(*arguments: object) -> int:
    return main(["bulk", *map(str, arguments)])


def test_the_command_says_what_it_wrote(source: Path, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert bulk(source, tmp_path / "out", "--model", model) == 0
    printed = capsys.readouterr()
    assert printed.out == f"20 pairs written to {tmp_path / 'out'}.\n"
    assert printed.err == ""  # no bar where there is no terminal

    assert bulk(source, tmp_path / "out", "--model", model, "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"folder": str(tmp_path / "out"), "pairs": 20, "errors": 0}


def test_the_command_exits_with_1_where_pairs_have_errors(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    source = write_jsonl(tmp_path / "in.jsonl", [ROWS[0], {}])

    assert bulk(source, tmp_path / "out", "--model", model) == 1
    assert capsys.readouterr().out.endswith("; 1 have errors.\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nowhere.jsonl", "out", "--model", "MODEL"), "there is no file or folder 'nowhere.jsonl'"),
        (("SOURCE", "out", "--model", "./no-such-model"), "there is no folder './no-such-model'"),
        (("SOURCE", "out", "--model", "MODEL", "--slice-rows", "0"), "--slice-rows must be an integer of at least 1"),
        (("SOURCE", "out", "--model", "MODEL", "--workers", "-1"), "--workers must be an integer of at least 0"),
        (("SOURCE", "out", "--model", "MODEL", "--template", "server"), "'template' is not an option of a local model"),
        (("SOURCE", "out", "--model", "http://a", "--url", "http://b"), "two servers are named"),
        (("SOURCE", "out"), "name what scores: --model, or the --url of a server, or both"),
        (("SOURCE", "out", "--model", "MODEL", "--engine", "remote"), "--engine remote wants a --url"),
        (("SOURCE", "out", "--url", "http://127.0.0.1:9", "--engine", "local"), "--engine local has no --url"),
        (
            ("SOURCE", "out", "--model", "MODEL", "--url", "http://127.0.0.1:9", "--dtype", "float32"),
            "'dtype' is not an option of a server",
        ),
        (("SOURCE", "SOURCE", "--model", "MODEL"), "is a file; results are written to a folder"),
        (("SOURCE", "out", "--model", "MODEL", "--engine", "vllm"), "this needs vllm: pip install 'ray[llm]'"),
    ],
)
def test_errors_are_one_line(
    arguments: Sequence[str], said: str, source: Path, model: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
):  # fmt: skip
    monkeypatch.chdir(tmp_path)

    assert bulk(*({"SOURCE": source, "MODEL": model}.get(word, word) for word in arguments)) == 2
    printed = capsys.readouterr()
    assert said in printed.err
    assert printed.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("package", "extra"), [("pyarrow", "onelogit[bulk]"), ("ray", "onelogit[ray]")])
def test_a_missing_package_is_named_with_what_brings_it(
    package: str, extra: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("onelogit.errors.find_spec", lambda name: None if name == package else object())

    assert bulk("in", "out", "--model", "m", "--workers", 1) == 2
    assert f"this needs {package}: pip install '{extra}'" in capsys.readouterr().err
    with pytest.raises(InputError, match=package):
        check_packages("pyarrow", "ray")


def test_neither_ray_nor_pyarrow_is_loaded_before_it_is_used():
    program = (
        "import sys, onelogit.cli.main, onelogit.bulk; sys.exit(any(x in sys.modules for x in ('ray', 'pyarrow')))"
    )

    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
