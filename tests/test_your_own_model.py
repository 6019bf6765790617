"""docs/your-own-model.md: all of its code and commands run, in their order, with a tiny model as `my-model`."""

import re
import shlex
from pathlib import Path

import pytest

from onelogit import Reranker
from onelogit.cli.main import main
from support.tiny import causal_checkpoint

PAGE = Path(__file__).parents[1] / "docs" / "your-own-model.md"


def test_the_page_runs_from_top_to_bottom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    causal_checkpoint(tmp_path / "my-model")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    printed, commands = [], 0

    for language, text in re.findall(r"```(python|console)\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL):
        if language == "python":
            exec(compile(text, PAGE.name, "exec"), names)
        for line in text.splitlines() if language == "console" else ():
            assert main(shlex.split(line.removeprefix("$ "))[1:]) == 0, line
            commands += 1
        printed.append(capsys.readouterr().out)

    assert commands == text_count("$ onelogit")
    assert "['yes', 'no']" in "".join(printed)
    assert "<|im_start|>assistant↵" in "".join(printed)
    with Reranker.load(tmp_path / "my-reranker") as saved, Reranker.load("my-model", recipe=names["recipe"]) as own:
        texts = ["Bananas are yellow.", "Paris is in France."]
        assert saved.logits("Which?", texts) == pytest.approx(own.logits("Which?", texts), abs=1e-4)
        assert saved.activation == own.activation == "sigmoid"


def test_the_readme_links_to_the_page():
    assert "(docs/your-own-model.md)" in (PAGE.parents[1] / "README.md").read_text(encoding="utf-8")


def text_count(text: str) -> int:
    return PAGE.read_text(encoding="utf-8").count(text)
