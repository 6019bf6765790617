"""What works on Windows and macOS, tried on Linux without what they lack; and errors while onelogit is imported."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from onelogit import DEMO_MODEL, Reranker
from support.everything_once import DOCUMENTS, QUERY

SUPPORT = Path(__file__).parent / "support"


def run(*arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.parametrize(("system", "has_peak"), [("win32", "False"), ("darwin", "True")])
def test_everything_works_on_another_system(system: str, has_peak: str, tmp_path: Path):
    ran = run(SUPPORT / "other_systems.py", system, SUPPORT / "everything_once.py", tmp_path)

    assert ran.returncode == 0, ran.stderr
    result, end = json.JSONDecoder().raw_decode(ran.stdout.partition("RESULT ")[2])
    expected = Reranker.load(DEMO_MODEL).logits(QUERY, DOCUMENTS)
    assert result["logits"] == pytest.approx(expected, abs=1e-5)
    assert result["exported"] == pytest.approx(expected, abs=1e-5)
    assert result["codes"] == [0] * 5
    assert has_peak in ran.stdout[end:]
    Reranker.load(DEMO_MODEL).save(tmp_path / "here")
    for file in ("chat_template.jinja", "modules.json", "reranker_probe.json"):
        assert (tmp_path / "exported" / file).read_bytes() == (tmp_path / "here" / file).read_bytes()


BROKEN = {
    "an AttributeError": ("import asyncio, tenacity; del asyncio.AbstractEventLoop", "has no attribute 'Abstract"),
    "an ImportError": ("import sys; sys.modules['tenacity'] = None", "import of tenacity halted"),
    "a missing name": ("import tenacity; del tenacity.stop_after_attempt", "cannot import name 'stop_after_attempt'"),
    "a SystemError": ("import sys, types, tenacity; tenacity.__class__ = type('Broken', (types.ModuleType,), {"
                      "'__getattribute__': lambda self, name: exec('raise SystemError(\"of mine\")')})", "of mine"),
}  # fmt: skip


@pytest.mark.parametrize("broken", BROKEN)
@pytest.mark.parametrize("use", ["from onelogit import RemoteReranker", "import onelogit; onelogit.RemoteReranker"])
def test_an_error_while_a_name_is_imported_is_not_hidden(broken: str, use: str):
    preparation, message = BROKEN[broken]

    ran = run("-c", f"{preparation}\n{use}")

    assert message in ran.stderr.strip().splitlines()[-1]


def test_an_unknown_name_is_an_attribute_error():
    assert "AttributeError: module 'onelogit' has no attribute 'No'" in run("-c", "import onelogit; onelogit.No").stderr
    assert "cannot import name 'No' from 'onelogit'" in run("-c", "from onelogit import No").stderr
