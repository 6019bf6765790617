"""Files of a checkpoint by strangers: changed, and refused at once when the checkpoint is loaded."""

import json
import resource
import time
from pathlib import Path

import pytest

from onelogit import CheckpointError, Reranker

MAX_S = 1.0
MAX_BYTES = 500 * 2**20


def change(file: Path, **fields: object) -> None:
    """Set fields of a JSON file, which need not exist."""
    content = json.loads(file.read_text()) if file.is_file() else {}
    file.write_text(json.dumps({**content, **fields}))


def refused_at_once(folder: Path, match: str, error: type[Exception] = CheckpointError) -> None:
    """Check that a folder is refused, within a second of processor time and half a gibibyte."""
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.thread_time()
    with pytest.raises(error, match=match):
        Reranker.load(folder)
    assert time.thread_time() - started < MAX_S
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < MAX_BYTES
