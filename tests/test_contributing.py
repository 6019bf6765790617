"""CONTRIBUTING.md shows the layers that import-linter checks, and names files that exist."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
CORE = ROOT / "shared" / "src" / "onelogit"


def test_contributing_shows_the_layers_that_import_linter_checks():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    lines = text.partition("## The packages")[2].split("```")[1].strip().splitlines()

    shown = [re.split(r"\s{2,}", line.strip())[0] for line in lines]

    layers = settings["tool"]["importlinter"]["contracts"][0]["layers"]
    assert shown == [layer.replace("onelogit.", "") for layer in layers]


def test_contributing_names_existing_files():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = [name for name in re.findall(r"`([a-z_/]+/[a-z_]+\.py)`", text) if "NAME" not in name]

    assert len(named) > 10
    assert [name for name in named if not (CORE / name).exists() and not (ROOT / name).exists()] == []
