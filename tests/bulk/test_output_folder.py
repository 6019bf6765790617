"""The output folder: which runs may write to it, and how files appear in it."""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from onelogit import InputError, OnelogitError
from onelogit.bulk import job
from onelogit.bulk.job import RunSummary, ShardResult, WorkerSpec, run
from onelogit.bulk.output_folder import RunFolder
from onelogit.bulk.part_files import write_part
from onelogit.bulk.shards import Shard
from support.bulk_rows import (
    ROWS,
    results,
    scored_table_of,
    write_jsonl,
)
from support.tiny import Tiny


def test_a_finished_run_is_not_repeated(source: Path, model: str, tmp_path: Path):
    first = run(source, tmp_path / "out", model)

    def refuse(spec: WorkerSpec, shards: Sequence[Shard]) -> Iterator[ShardResult]:
        raise AssertionError

    assert run(source, tmp_path / "out", model, engine=refuse) == first


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"instruction": "Say."}, "contains results of another model: Qwen3-Reranker-tiny@"),
        ({"slice_rows": 7}, "another run: --slice-rows was 1000, not 7"),
        ({"rows": ROWS[:2]}, "another input"),
    ],
)
def test_a_folder_with_results_of_another_run_is_refused_unless_overwriting(
    change: dict[str, Any], message: str, source: Path, model: str, tmp_path: Path
):
    run(source, tmp_path / "out", model)
    if rows := change.pop("rows", None):
        write_jsonl(source, rows)

    with pytest.raises(InputError, match=message):
        run(source, tmp_path / "out", model, **change)
    run(source, tmp_path / "out", model, is_overwriting=True, **change)

    assert len(results(tmp_path / "out")) == (8 if rows else 20)


def test_options_that_do_not_affect_logits_do_not_make_another_run(source: Path, model: str, tmp_path: Path):
    run(source, tmp_path / "out", model)

    assert run(source, tmp_path / "out", model, batch_tokens=100, device="cpu", dtype=None) == RunSummary(20, 0)


def test_other_weights_under_the_same_name_make_another_run(
    source: Path, checkpoint: Callable[..., Tiny], tmp_path: Path
):
    run(source, tmp_path / "out", str(checkpoint("Qwen3-Reranker-x", is_tied=False).folder))
    checkpoint("Qwen3-Reranker-x", is_tied=True)

    with pytest.raises(InputError, match="another model"):
        run(source, tmp_path / "out", str(tmp_path / "Qwen3-Reranker-x"))


def test_two_runs_cannot_write_to_the_same_folder(source: Path, model: str, tmp_path: Path):
    def engine(spec: WorkerSpec, shards: Sequence[Shard]) -> Iterator[ShardResult]:
        with pytest.raises(InputError, match="another process is writing to"):
            run(source, tmp_path / "out", model)
        return job.score_in_process(spec, shards)

    assert run(source, tmp_path / "out", model, engine=engine) == RunSummary(20, 0)


def test_a_worker_of_an_earlier_run_that_is_still_alive_does_no_harm(source: Path, model: str, tmp_path: Path):
    specs: list[WorkerSpec] = []

    def stopped(spec: WorkerSpec, shards: Sequence[Shard]) -> Iterator[ShardResult]:
        specs.append(spec)
        raise KeyboardInterrupt

    def engine(spec: WorkerSpec, shards: Sequence[Shard]) -> Iterator[ShardResult]:
        Path(specs[0].scored_folder).mkdir()
        list(job.score_in_process(specs[0], shards))
        return job.score_in_process(spec, shards)

    with pytest.raises(KeyboardInterrupt):
        run(source, tmp_path / "out", model, engine=stopped, instruction="Say.")
    run(source, tmp_path / "out", model, engine=engine, is_overwriting=True)
    run(source, tmp_path / "fresh", model)

    assert results(tmp_path / "out") == results(tmp_path / "fresh")
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"_run.json", "part-00000.parquet"}


def test_a_folder_with_files_of_another_program_is_not_changed(source: Path, model: str, tmp_path: Path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")

    with pytest.raises(InputError, match="was not written by onelogit bulk"):
        run(source, tmp_path / "out", model, is_overwriting=True)
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["thesis.txt"]


def test_an_output_folder_inside_the_input_is_refused(source: Path, model: str, tmp_path: Path):
    with pytest.raises(InputError, match="is inside the input folder"):
        run(tmp_path, tmp_path / "out", model)


def test_a_part_file_that_cannot_be_written_completely_does_not_appear(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(table: object, path: Path, **options: object) -> None:
        Path(path).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(parquet, "write_table", fail)

    with pytest.raises(
        OnelogitError, match=r"part\.parquet cannot be written \(disk full\); once it can, run the same"
    ):
        write_part(scored_table_of([]), tmp_path / "part.parquet")
    assert list(tmp_path.iterdir()) == []


def test_a_part_file_is_flushed_to_the_disk_before_it_is_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    seen: list[bool] = []
    flush = os.fsync

    def watched(descriptor: int) -> None:
        seen.append((tmp_path / "part.parquet").exists())
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    write_part(scored_table_of([]), tmp_path / "part.parquet")

    assert seen == [False]


def test_missing_result_files_are_detected(source: Path, model: str, tmp_path: Path):
    run(source, tmp_path / "out", model)
    (tmp_path / "out" / "part-00000.parquet").unlink()

    with pytest.raises(OnelogitError, match="contains 0 of 20 pairs; remove it"):
        run(source, tmp_path / "out", model)


def test_a_run_can_start_after_clearing_the_folder_was_interrupted(
    source: Path, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def stop(*arguments: object) -> None:
        raise KeyboardInterrupt

    run(source, tmp_path / "out", model, instruction="Say.")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(RunFolder, "clean", stop)
        run(source, tmp_path / "out", model, is_overwriting=True)

    assert run(source, tmp_path / "out", model) == RunSummary(20, 0)


def test_a_record_that_is_nested_without_end_is_one_sentence(source: Path, model: str, tmp_path: Path):
    (tmp_path / "_run.json").write_text('{"model": ' + "[" * 100_000 + "]" * 100_000 + "}")

    with pytest.raises(InputError, match="_run.json cannot be read .*nested"):
        run(source, tmp_path, model)
