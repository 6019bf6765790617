"""Progress bars: in a terminal one at a time, elsewhere none."""

from pathlib import Path

import pytest

from onelogit.io.progress import progress_bar, tracked, waiting
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

    with waiting("waiting"), progress_bar("bar", 2) as advance:
        advance(1, "other")
    items = list(tracked([1, 2], "items"))

    assert items == [1, 2]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("columns", [20, 80])
def test_in_a_terminal_they_are_drawn_and_gone_and_hide_those_of_others_meanwhile(columns: int):
    ran = in_terminal(["-c", BARS], columns=columns, environment={"HF_HUB_DISABLE_PROGRESS_BARS": "0"})

    assert ran.code == 0
    assert "others inside: False" in ran.screen
    assert "others outside: True" in ran.screen
    assert "items: [1, 2, 3]" in ran.screen
    assert ran.screen.rstrip().endswith("\x1b[2K")  # the last bar is wiped away
    if columns == 80:
        assert all(text in ran.screen for text in ("[bold]waiting[/] for it", "going through", "second [red]"))


def test_commands_show_their_own_bars_and_none_of_transformers_within(tiny_qwen: Tiny, tmp_path: Path):
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
