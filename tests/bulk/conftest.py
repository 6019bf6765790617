"""The input and the model of bulk runs."""

from pathlib import Path

import pytest

from support.bulk_rows import ROWS, write_jsonl
from support.tiny import Tiny


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_jsonl(tmp_path / "in.jsonl", ROWS)


@pytest.fixture
def model(tiny_qwen: Tiny) -> str:
    return str(tiny_qwen.folder)
