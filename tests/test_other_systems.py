"""What works on Windows and macOS, tried on Linux without what they lack; and errors while onelogit is imported."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from onelogit import DEMO_MODEL, Reranker
from support.everything_once import DOCUMENTS, QUERY

ROOT = Path(__file__).parents[1]
SUPPORT = ROOT / "tests" / "support"


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
    files = [file for folder in ("shared/src", "packages") for file in (ROOT / folder).rglob("*.py")]
    assert len(result["modules"]) == len(files) - 2  # `__main__`, and the engine that needs vLLM
    best_first = [DOCUMENTS[index] for index in sorted(range(len(DOCUMENTS)), key=lambda index: -expected[index])]
    ways = ["LangChain", "LlamaIndex", "Haystack", *(["served"] if system == "darwin" else [])]
    assert result["ranked"] == dict.fromkeys(ways, best_first)
    assert has_peak in ran.stdout[end:]
    Reranker.load(DEMO_MODEL).save(tmp_path / "here")
    for file in ("chat_template.jinja", "modules.json", "reranker_probe.json"):
        assert (tmp_path / "exported" / file).read_bytes() == (tmp_path / "here" / file).read_bytes()


@pytest.mark.parametrize("folder", ["shared/src", "packages"])
def test_texts_are_read_and_written_in_a_named_encoding(folder: str):
    """Otherwise, Windows would use that of the user's language."""
    for file in (ROOT / folder).rglob("*.py"):
        for call in (node for node in ast.walk(ast.parse(file.read_text("utf-8"))) if isinstance(node, ast.Call)):
            name = getattr(call.func, "attr", getattr(call.func, "id", None))
            given = {keyword.arg: keyword.value for keyword in call.keywords}
            constants = [each.value for each in (*call.args, *given.values()) if isinstance(each, ast.Constant)]
            modes = [each for each in constants if isinstance(each, str) and set(each) <= set("rwaxbt+")]
            is_text = name in ("read_text", "write_text") or (name in ("open", "fdopen") and "b" not in "".join(modes))
            is_other = getattr(getattr(call.func, "value", None), "id", None) in ("os", "self", "gzip", "safetensors")
            assert not is_text or is_other or "encoding" in given or not modes, f"{file}, line {call.lineno}"


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
