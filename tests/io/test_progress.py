"""Progress bars: drawn in a terminal and removed afterwards; elsewhere none, and lines for the rows of a call."""

import gc
import re
import weakref
from pathlib import Path

import pytest

from onelogit.io import progress
from onelogit.io.progress import RowProgress, progress_bar, tracked, waiting
from support.terminal import in_terminal
from support.tiny import Tiny

BARS = """
from onelogit.io.progress import progress_bar, tracked, waiting
from transformers.utils import logging

with waiting("[bold]waiting[/] for it"):
    print("others inside:", logging.is_progress_bar_enabled())
print("others outside:", logging.is_progress_bar_enabled())
print("items:", list(tracked([1, 2, 3], "going through")))
with progress_bar("first", 2) as advance:
    advance(1, "second [red]")
"""
ROWS = """
import sys, time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from onelogit.io.progress import RowProgress

def score(total):
    rows = RowProgress(is_shown=True)
    rows(1)
    with rows.shown(total):
        both.wait()
        rows(total - 2)
        time.sleep(0.3)
        both.wait()

both = Barrier(2)
with ThreadPoolExecutor(2) as threads:
    list(threads.map(score, [20, 30]))
print("loaded:", "transformers" in sys.modules)
"""
RESUMED = """
import time
from onelogit.io.progress import progress_bar

name = "a model with quite a long name, and an instruction"
with progress_bar(name, 2000, 1990, unit="s", refreshes_per_s=50) as advance:
    for _ in range(5):
        time.sleep(0.1)
        advance(1)
    time.sleep(0.3)
"""
COMMANDS = """
import sys
from onelogit.cli.main import main

model, folder, rows = sys.argv[1:]
print("codes:", main(["convert", model, "-o", folder + "/converted"]),
      main(["verify", model, "--pairs", rows, "--against", folder + "/converted", "--json"]),
      main(["bulk", rows, folder + "/ranked", "--model", folder + "/converted"]))
"""


def test_without_a_terminal_nothing_is_written(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # makes Rich believe that any file is a terminal

    rows = RowProgress(is_shown=False)
    with waiting("waiting"), progress_bar("bar", 2) as advance, rows.shown(2):
        advance(1, "other")
        rows(2)
    items = list(tracked([1, 2], "items"))

    assert items == [1, 2]
    assert capfd.readouterr() == ("", "")


def test_without_a_terminal_rows_are_counted_in_lines(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("FORCE_COLOR", "1")
    for interval_s in (0, 999):
        monkeypatch.setattr("onelogit.io.progress._LINE_INTERVAL_S", interval_s)
        rows = RowProgress(is_shown=True)
        rows(1)
        with rows.shown(4):
            rows(1)
            rows(2)
        rows(1)  # by a thread that learns later that its call is over

    lines = [line.partition(" in ")[0] for line in capfd.readouterr().err.splitlines()]
    assert lines[:3] == ["reranking: 25%, 1/4 rows", "reranking: 50%, 2/4 rows", "reranking: 100%, 4/4 rows"]
    assert lines[3:] == ["reranking: 100%, 4/4 rows"]


def test_lines_tell_the_time_left(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    clock = iter([100.0, 120.0, 130.0, 160.0])
    monkeypatch.setattr("onelogit.io.progress.time.monotonic", lambda: next(clock))
    rows = RowProgress(is_shown=True)
    with rows.shown(40):
        rows(0)
        rows(10)
        rows(30)

    assert capfd.readouterr().err.splitlines() == [
        "reranking: 0%, 0/40 rows in 20.0 s",
        "reranking: 25%, 10/40 rows in 30.0 s, about 90 s left",
        "reranking: 100%, 40/40 rows in 60.0 s",
    ]


@pytest.mark.parametrize("columns", [40, 80, 120])
def test_bars_tell_the_count_and_the_time_left_and_start_where_the_work_stands(columns: int):
    ran = in_terminal(["-c", RESUMED], columns=columns)

    assert ran.code == 0, ran.screen
    frames = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", ran.screen)
    assert "1,990/2,000 s" in frames
    assert "1,995/2,000 s" in frames
    assert " 0/2,000" not in frames
    assert re.search(r"1,995/2,000 s +\d+:\d\d:\d\d +left", frames)
    assert max(map(len, re.split(r"[\r\n]+", frames))) <= columns


def test_slow_work_tells_the_time_left():
    clock = [0.0]
    display = progress._display([])
    display.get_time = lambda: clock[0]
    task = display.add_task("verifying", total=48)
    for clock[0], completed in ((50, 16), (100, 32)):
        display.update(task, completed=completed)

    assert display.tasks[0].time_remaining == pytest.approx(50)


def test_in_a_terminal_the_rows_of_calls_in_several_threads_are_drawn_together_and_removed():
    ran = in_terminal(["-c", ROWS])

    assert ran.code == 0, ran.screen
    assert "19/20" in ran.screen
    assert "29/30" in ran.screen
    assert ran.screen.count("\x1b[?25l") == 1  # one display hides the cursor, for both
    assert ran.screen.endswith("\x1b[1A\x1b[2K\x1b[?25h\rloaded: False\r\n")


@pytest.mark.parametrize("columns", [20, 80])
def test_in_a_terminal_bars_are_drawn_and_removed_and_hide_the_bars_of_transformers_meanwhile(columns: int):
    ran = in_terminal(["-c", BARS], columns=columns, environment={"HF_HUB_DISABLE_PROGRESS_BARS": "0"})

    assert ran.code == 0
    assert "others inside: False" in ran.screen
    assert "others outside: True" in ran.screen
    assert "items: [1, 2, 3]" in ran.screen
    assert ran.screen.rstrip().endswith("\x1b[2K")  # the last bar is wiped away
    if columns == 80:
        assert all(text in ran.screen for text in ("[bold]waiting[/] for it", "going through", "second [red]"))


def test_commands_show_their_own_bars_and_none_of_transformers(tiny_qwen: Tiny, tmp_path: Path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"query_id": "1", "document_id": "2", "query": "which?", "document": "this"}\n')

    ran = in_terminal(
        ["-c", COMMANDS, tiny_qwen.folder, tmp_path, rows],
        environment={"HF_HUB_DISABLE_PROGRESS_BARS": "0"},
        needs_torch=True,
    )

    assert "codes: 0 0 0" in ran.screen, ran.screen[-3000:]
    converting, _, others = ran.screen.partition("Written to")
    assert "converting" in converting
    assert "Loading weights" not in converting
    assert "loading" in others
    assert "scoring rows" in others
    assert "Loading weights" not in others


def test_a_bar_that_cannot_be_drawn_keeps_nothing_in_memory(monkeypatch: pytest.MonkeyPatch):
    class Model:
        pass

    def refuse(*_: object) -> None:
        raise OSError(5, "Input/output error")

    def call() -> "weakref.ref[Model]":
        model, rows = Model(), RowProgress(is_shown=True)
        with pytest.raises(OSError, match="Input/output"), rows.shown(3):
            pass
        return weakref.ref(model)

    monkeypatch.setattr(progress, "is_shown", lambda: True)
    monkeypatch.setattr(progress, "_display", refuse)
    gc.collect()
    gc.disable()
    try:
        assert call()() is None
    finally:
        gc.enable()
