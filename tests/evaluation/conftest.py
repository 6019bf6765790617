"""An empty working folder, and a small dataset in BEIR format."""

from pathlib import Path

import pytest

from support.evaluation_data import write_beir


@pytest.fixture
def in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    fields = {"q1": {"language": "en", "ask": "Find China."}, "q2": {"language": "de", "ask": "Find fruit."}}
    return write_beir(tmp_path / "data", fields={**fields, "q3": {"language": "en", "ask": "Find Italy."}})
