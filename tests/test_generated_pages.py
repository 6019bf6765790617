"""Pages and drawings of docs/ that tools/ writes are what it would write now."""

import runpy
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


def test_the_page_of_commands_is_what_the_parser_says():
    render = runpy.run_path(str(ROOT / "tools" / "command_line_page.py"))["render"]

    assert (DOCS / "command-line.md").read_text(encoding="utf-8") == render(), "run python tools/command_line_page.py"


def test_the_drawings_are_what_the_script_draws():
    drawn = runpy.run_path(str(ROOT / "tools" / "drawings.py"))["render"]()

    kept = {name: (DOCS / "images" / name).read_text(encoding="utf-8") for name in drawn}
    assert kept == drawn, "run python tools/drawings.py"
