"""kill -9 and a full disk at random moments of an export, a bulk run and an evaluation.

Afterwards, no file or folder is incomplete under its own name, and the same command completes the work.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from onelogit import DEMO_MODEL, CheckpointError, Reranker
from onelogit.cli.main import main
from support.bulk_rows import query_rows, results, write_jsonl
from support.evaluation_data import list_row, write_lines
from support.faults import (
    DOCUMENTS,
    IS_LONG,
    QUERY,
    changes_of,
    chosen,
    json_lines,
    largest_file,
    moments,
    one_sentence,
    run_with_fault,
)
from support.prepared import Process
from support.tiny import Tiny

Capture = pytest.CaptureFixture[str]


@dataclass(frozen=True)
class Work:
    """A command that writes files, and what must be true of them.

    Attributes:
        arguments: (input folder, output folder) -> the command that starts or continues the work.
        check: (output folder) raises AssertionError if a file is incomplete under its own name.
        result: (output folder) -> what the work gives, equal each time.
    """

    arguments: Callable[[Path, Path], list[object]]
    check: Callable[[Path], None]
    result: Callable[[Path], Any]


def export_arguments(inputs: Path, output: Path) -> list[object]:
    return ["save", (inputs / "model").resolve(), output / "mine"]


def check_export(output: Path) -> None:
    if (output / "mine").exists():
        export_result(output)


def export_result(output: Path) -> Any:
    with Reranker.load(output / "mine") as reranker:
        return reranker.logits(QUERY, DOCUMENTS)


def bulk_arguments(inputs: Path, output: Path) -> list[object]:
    source = inputs / "rows.jsonl"
    return ["bulk", source, output / "ranked", "--model", (inputs / "model").resolve(), "--slice-rows", 2]


def check_bulk(output: Path) -> None:
    for part in (output / "ranked").glob("part-*.parquet"):
        parquet.read_table(part)
    if (output / "ranked" / "_run.json").exists():
        json.loads((output / "ranked" / "_run.json").read_text(encoding="utf-8"))


def evaluate_arguments(inputs: Path, output: Path) -> list[object]:
    more = ["--resume", "--report", output / "report.html", "--plot", output / "plot.png"]
    return ["evaluate", DEMO_MODEL, "--data", inputs / "data.jsonl", "--output", output / "evaluated", *more]


def check_evaluation(output: Path) -> None:
    figures, per_query = output / "evaluated" / "figures.json", output / "evaluated" / "per-query.jsonl"
    if figures.exists():
        json.loads(figures.read_text(encoding="utf-8"))
    if per_query.exists():
        assert len(json_lines(per_query)) == 6
    if (output / "report.html").exists():
        assert (output / "report.html").read_text(encoding="utf-8").rstrip().endswith("</html>")
    if (output / "plot.png").exists():
        assert (output / "plot.png").read_bytes().endswith(b"IEND\xaeB`\x82")


def evaluation_result(output: Path) -> Any:
    check_evaluation(output)
    assert (output / "report.html").exists()
    assert (output / "plot.png").exists()
    found = json.loads((output / "evaluated" / "figures.json").read_text(encoding="utf-8"))
    return [entry["means"] for entry in found["entries"]], len(json_lines(output / "evaluated" / "per-query.jsonl"))


WORKS = {
    "export": Work(export_arguments, check_export, export_result),
    "bulk": Work(bulk_arguments, check_bulk, lambda output: results(output / "ranked")),
    "evaluate": Work(evaluate_arguments, check_evaluation, evaluation_result),
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory, tiny_qwen: Tiny) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    write_jsonl(folder / "rows.jsonl", query_rows(7, 3))
    write_lines(folder / "data.jsonl", [list_row(number) for number in range(6)])
    (folder / "model").symlink_to(tiny_qwen.folder)
    return folder


def complete(work: Work, inputs: Path, output: Path) -> Any:
    """Do, or continue, the work in this process; returns its result."""
    arguments = [str(each) for each in work.arguments(inputs, output)]
    if arguments[0] == "save":
        with Reranker.load(arguments[1]) as reranker:
            reranker.save(arguments[2], force=True)
    else:
        assert main(arguments) == 0
    return work.result(output)


def attempted(work: Work, inputs: Path, output: Path) -> str | None:
    """Try the work in this process: the one sentence that says why it failed, or None."""
    try:
        arguments = [str(each) for each in work.arguments(inputs, output)]
        if arguments[0] == "save":
            with Reranker.load(arguments[1]) as reranker:
                reranker.save(arguments[2], force=True)
            return None
        return None if main(arguments) == 0 else "failed"
    except CheckpointError as error:
        return str(error)


def new_folder(tmp_path: Path, name: object) -> Path:
    folder = tmp_path / f"output-{name}"
    folder.mkdir()
    return folder


@pytest.fixture(scope="module")
def unharmed(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[int, Any, float]]:
    """The number of changes of files of a work without a fault, its result, and its seconds."""

    @cache
    def ran(name: str) -> tuple[int, Any, float]:
        output, work, started = tmp_path_factory.mktemp("whole"), WORKS[name], time.monotonic()
        count = changes_of(run_with_fault("none", 0, output, *work.arguments(inputs, output)))
        return count, work.result(output), time.monotonic() - started

    return ran


@pytest.mark.parametrize("fault", ["kill", "full"])
@pytest.mark.parametrize("name", WORKS)
def test_a_fault_at_any_change_of_a_file_leaves_nothing_incomplete(
    name: str, fault: str, inputs: Path, tmp_path: Path, unharmed: Callable[[str], tuple[int, Any, float]]
):
    work, (count, expected, _) = WORKS[name], unharmed(name)

    for at in chosen(count, few=1, many=20, seed=len(name)):
        output = new_folder(tmp_path, at)
        ended = run_with_fault(fault, at, output, *work.arguments(inputs, output))
        if fault == "kill":
            assert ended.returncode == -signal.SIGKILL, ended
        elif ended.returncode != 0:
            assert ended.returncode in (2, 3), ended
            message = one_sentence(ended.stderr)
            assert message.startswith("onelogit: " if ended.returncode == 2 else "raised onelogit.errors."), message
            assert "No space left on device" in message
        work.check(output)
        assert complete(work, inputs, output) == expected, at
        shutil.rmtree(output)


@pytest.mark.parametrize("name", ["export", "bulk"])
def test_a_kill_while_an_earlier_result_is_replaced_keeps_one_of_the_two(
    name: str, inputs: Path, tmp_path: Path, unharmed: Callable[[str], tuple[int, Any, float]]
):
    work, (count, expected, _) = WORKS[name], unharmed(name)
    again = ["--overwrite"] if name == "bulk" else []

    for at in chosen(count, few=1, many=20, seed=5):
        output = new_folder(tmp_path, at)
        complete(work, inputs, output)
        ended = run_with_fault("kill", at, output, *work.arguments(inputs, output), *again)
        assert ended.returncode == -signal.SIGKILL, ended
        work.check(output)
        if name == "export" and not (output / "mine").exists():  # between two renames
            (aside,) = output.glob(".mine-*/mine")
            with pytest.raises(CheckpointError, match="the earlier one at "):
                Reranker.load(output / "mine")
            assert Reranker.load(aside).logits(QUERY, DOCUMENTS) == expected
        assert complete(work, inputs, output) == expected, at


@pytest.mark.skipif(not IS_LONG, reason="the suite has a kill at a random time for each command elsewhere")
@pytest.mark.parametrize("name", WORKS)
def test_a_kill_at_a_random_time_leaves_nothing_incomplete(
    name: str, inputs: Path, tmp_path: Path, unharmed: Callable[[str], tuple[int, Any, float]]
):
    chance, work, (_, expected, length_s) = random.Random(14), WORKS[name], unharmed(name)

    for number in range(20):
        output = new_folder(tmp_path, number)
        arguments = work.arguments(inputs, output)
        program = "import sys; from onelogit.cli.main import main; sys.exit(main(sys.argv[1:]))"
        if arguments[0] == "save":
            program = (
                "import sys; from onelogit import Reranker; Reranker.load(sys.argv[2]).save(sys.argv[3], force=True)"
            )
        with Path(os.devnull).open("r+b") as nothing:
            with Process(["-c", program, *arguments], stdin=nothing, stdout=nothing, stderr=nothing) as process:
                time.sleep(chance.uniform(0.2, 1.0) * length_s)
                process.kill()
        work.check(output)
        assert complete(work, inputs, output) == expected, number


@pytest.mark.parametrize("name", WORKS)
def test_a_file_that_cannot_grow_is_one_clear_error_and_nothing_incomplete(
    name: str, inputs: Path, tmp_path: Path, unharmed: Callable[[str], tuple[int, Any, float]], capsys: Capture
):
    """A limit for the size of files fails real writes, in Python's code and in that of libraries."""
    chance, work, (_, expected, _) = random.Random(15), WORKS[name], unharmed(name)

    for number in moments(few=2, many=20):
        output = new_folder(tmp_path, number)
        size = int(2 ** chance.uniform(0, 19 if name == "export" else 13))
        with largest_file(size):
            failure = attempted(work, inputs, output)
        message = capsys.readouterr().err
        if failure is not None:
            sentence = failure if name == "export" else one_sentence(message)
            assert "File too large" in sentence or "os error 27" in sentence, sentence
            assert "\n" not in sentence
        work.check(output)
        assert complete(work, inputs, output) == expected, size
        capsys.readouterr()


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Path]:
    """A file system of so many bytes; skips the test if this process must not mount one."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "onelogit", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.skipif(shutil.which("mount") is None or not hasattr(os, "geteuid") or os.geteuid() != 0, reason="not root")
@pytest.mark.parametrize("name", WORKS)
def test_a_disk_that_fills_up_is_one_clear_error_and_nothing_incomplete(
    name: str, inputs: Path, tmp_path: Path, unharmed: Callable[[str], tuple[int, Any, float]], capsys: Capture
):
    chance, work, (_, expected, _) = random.Random(16), WORKS[name], unharmed(name)

    for number in moments(few=1, many=20):
        size = int(4096 * 2 ** chance.uniform(0, 8 if name == "export" else 5))
        with small_disk(tmp_path / f"disk-{number}", size) as output:
            failure = attempted(work, inputs, output)
            message = capsys.readouterr().err
            if failure is None:
                continue
            sentence = failure if name == "export" else one_sentence(message)
            assert "No space left on device" in sentence or "os error 28" in sentence, sentence
            work.check(output)
            subprocess.run(["mount", "-o", "remount,size=64m", output], check=True)
            assert complete(work, inputs, output) == expected, size
            capsys.readouterr()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize("arguments", [["recipes"], ["rank", "fruit?", "banana", "Paris", "--json"]])
def test_an_output_that_cannot_be_written_is_one_sentence(arguments: list[str], tmp_path: Path):
    error = tmp_path / "stderr"
    with Path(os.devnull).open("rb") as nothing, Path("/dev/full").open("wb") as full, error.open("wb") as file:
        with Process(["-m", "onelogit", *arguments], stdin=nothing, stdout=full, stderr=file) as process:
            code = process.wait(60)

    assert code == 2
    sentence = one_sentence(error.read_text(encoding="utf-8").replace("The demo model", "\nThe demo model"))
    assert "No space left on device" in error.read_text(encoding="utf-8"), sentence
