"""Runs that were interrupted, killed or failed, and continue when they are started again."""

import errno
import os
import re
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from onelogit import OnelogitError, Reranker
from onelogit.bulk import job
from onelogit.bulk.job import RunSummary, ShardResult, WorkerSpec, run
from onelogit.bulk.output_folder import RunFolder
from onelogit.bulk.shards import Shard
from support.bulk_rows import (
    bulk_command,
    expected_results,
    query_rows,
    ranking,
    recording_engine,
    results,
    wait_until,
    write_jsonl,
)
from support.prepared import Process


def cut_to(size: int) -> Callable[[Path], object]:
    return lambda part: part.write_bytes(part.read_bytes()[:size])


def replaced(part: Path) -> None:
    parquet.write_table(pyarrow.table({"another": ["table"]}), part)


def copied_by_another_program(part: Path) -> None:
    for name in ("slice-00000001 (1).parquet", "slice-x.parquet"):
        part.with_name(name).write_bytes(part.read_bytes())
    part.unlink()


@pytest.mark.parametrize("harm", [cut_to(0), cut_to(100), replaced, copied_by_another_program])
def test_a_shard_without_a_whole_part_file_is_scored_again(
    harm: Callable[[Path], object], source: Path, model: str, tmp_path: Path
):
    def stopped(spec: WorkerSpec, shards: Sequence[Shard]) -> Iterator[ShardResult]:
        yield from job.score_in_process(spec, shards[:3])
        raise KeyboardInterrupt

    run(source, tmp_path / "whole", model, slice_rows=1)
    with pytest.raises(KeyboardInterrupt):
        run(source, tmp_path / "out", model, slice_rows=1, engine=stopped)
    (part,) = (tmp_path / "out").glob("_scored-*/slice-00000001.parquet")
    harm(part)
    seen: list[int] = []
    run(source, tmp_path / "out", model, slice_rows=1, engine=recording_engine(seen))

    assert seen == [1, 3, 4]
    assert results(tmp_path / "out") == results(tmp_path / "whole")


def test_an_interrupt_says_how_to_continue_and_the_run_continues_later(
    source: Path, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    score = job.ShardWorker.score

    def interrupted(self: job.ShardWorker, part: Shard) -> ShardResult:
        if part.number == 2:
            raise KeyboardInterrupt
        return score(self, part)

    with monkeypatch.context() as patch:
        patch.setattr(job.ShardWorker, "score", interrupted)
        assert bulk_command(source, tmp_path / "out", "--model", model, "--slice-rows", 1) == 130
    message = f"onelogit: stopped; run the same command to continue from the results in {tmp_path / 'out'}\n"
    assert capsys.readouterr() == ("", message)
    seen: list[int] = []

    assert run(source, tmp_path / "out", model, slice_rows=1, engine=recording_engine(seen)) == RunSummary(20, 0)
    assert seen == [2, 3, 4]


@pytest.mark.parametrize("moment", ["scoring", "ranking"])
def test_a_full_disk_gives_a_one_line_error_and_the_run_continues_later(
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
        assert bulk_command(source, tmp_path / "out", "--model", model) == 2

    message = capsys.readouterr().err
    assert message.startswith(f"onelogit: {tmp_path / 'out'}/")
    assert message.endswith(" cannot be written (No space left on device); once it can, run the same command again\n")
    assert message.count("\n") == 1
    assert run(source, tmp_path / "out", model) == RunSummary(20, 0)


@pytest.mark.parametrize("name", ["_scored-*/slice-00000001", "part-00000"])
def test_following_the_advice_about_a_damaged_part_file_repairs_the_run(
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


def test_a_killed_run_continues_with_the_remaining_shards(model: str, reranker: Reranker, tmp_path: Path):
    rows = query_rows(400, 3)
    source = write_jsonl(tmp_path / "in.jsonl", rows)
    out = tmp_path / "out"

    with Process(["-m", "onelogit", "bulk", source, out, "--model", model, "--slice-rows", "1"]) as process:
        wait_until(lambda: len(list(out.glob("_scored-*/slice-*"))) >= 5)
        os.kill(process.pid, signal.SIGKILL)
    written = {part: part.stat().st_mtime_ns for part in out.glob("_scored-*/slice-*")}
    seen: list[int] = []
    outcome = run(source, out, model, slice_rows=1, engine=recording_engine(seen))

    assert process.returncode == -signal.SIGKILL
    assert 5 <= len(written) < 400
    assert len(seen) == 400 - len(written)
    assert outcome == RunSummary(pairs=1200, errors=0)
    assert ranking(results(out)) == expected_results(reranker, rows)


@pytest.mark.parametrize("moment", ["ranking", "checking", "noting", "cleaning"])
def test_a_run_interrupted_after_its_last_shard_scores_none_again(
    moment: str, source: Path, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def stop(*arguments: object) -> None:
        raise KeyboardInterrupt

    def engine(spec: WorkerSpec, shards: Sequence[Shard]) -> Iterator[ShardResult]:
        yield from job.score_in_process(spec, shards)
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
    run(source, tmp_path / "out", model, engine=recording_engine(seen))

    assert seen == []
    assert results(tmp_path / "out") == results(tmp_path / "whole")
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"_run.json", "part-00000.parquet"}
