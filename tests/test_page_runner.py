"""What runs the pages' blocks finds a block that is wrong: code, output, arguments, extras, sessions, languages."""

from pathlib import Path
from textwrap import dedent

import pytest

from support import pages
from support.page_runner import PageRunner, check_not_run
from support.pages import blocks_of, commands_of

WRONG = {
    "code": "```python\nassert 1 == 2\n```",
    "code after a word about it": "```python\nnumber = 1\n```\nThen:\n```python\nassert number == 2\n```",
    "the printed text": "```python\nprint('one 1.5')\n```\n\n```text\ntwo 1.5\n```",
    "the order of what is printed": "```python\nprint('a'), print('b')\n```\n\n```text\nb\na\n```",
    "a swap": "```diff\n- right = 1\n+ assert False\n```",
    "an option": "```console\n$ onelogit recipes --no-such-option\n```",
    "an exit code": "```console\n$ onelogit recipes no-such-family-or-folder\n```",
    "the output of a command": "```console\n$ onelogit recipes\nno such line\n```",
    "an extra": '```console\n$ pip install "onelogit[no-such-extra]"\n```',
    "a folder": "```console\n$ pip install -c constraints.txt ./packages/no-such-package\n```",
    "an extra of a folder": '```console\n$ pip install "./shared[no-such-extra]"\n```',
    "a file of constraints": "```console\n$ pip install -c no-such-file.txt ./shared\n```",
    "a session": "```console\n$ nox -s no_such_session\n```",
    "a script": "```console\n$ python benchmarks/no_such_script.py\n```",
    "a program": "```console\n$ no-such-program\n```",
    "data": '```json\n{"a": }\n```',
    "rows": '```jsonl\n{"a": 1}\n[1]\n```',
    "a language": "```rust\nfn main() {}\n```",
}
RIGHT = {
    "numbers that differ": "```python\nprint('one', 1.25)\n```\n\n```text\none 2.5\n...\n```",
    "a file with a title": '```jsonl title="rows.jsonl"\n{"a": 1}\n```\n```python\nopen("rows.jsonl").close()\n```',
    "await": "```python\nimport asyncio\nawait asyncio.sleep(0)\n```",
    "a command in two lines": "```console\n$ onelogit recipes \\\n    --json\n```",
    "a swap": "```diff\n- wrong = 1 +\n+ right = 1\n```\n```python\nassert right == 1\n```",
    "an extra": '```console\n$ python -m pip install "onelogit[evaluate,plot]" "torch>=2" --index-url https://example.org\n```',
    "an illustration": "```text\nquery -> logit\n```",
}


def run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pages, "ROOT", tmp_path)
    (tmp_path / "page.md").write_text(f"{page}\n", encoding="utf-8")
    runner = PageRunner({}, lambda: "".join(capsys.readouterr()), lambda: "")
    for block in blocks_of(tmp_path / "page.md"):
        assert block.reason is None
        runner.run(block)


@pytest.mark.parametrize("page", WRONG.values(), ids=WRONG)
def test_a_wrong_block_is_found(page: str, tmp_path: Path, monkeypatch, capsys):
    with pytest.raises(Exception) as caught:
        run(page, tmp_path, monkeypatch, capsys)

    assert caught.value.__notes__[0].startswith("in the block at page.md:")


@pytest.mark.parametrize("page", RIGHT.values(), ids=RIGHT)
def test_a_right_block_runs(page: str, tmp_path: Path, monkeypatch, capsys):
    run(page, tmp_path, monkeypatch, capsys)


@pytest.mark.parametrize("code", ["python\nlambda:", "console\n$ onelogit rank --no-such-option"])
def test_a_block_that_is_not_run_is_checked(code: str, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(pages, "ROOT", tmp_path)
    (tmp_path / "page.md").write_text(f"<!-- not run: it is\nslow -->\n\n```{code}\n```\n", encoding="utf-8")

    (block,) = blocks_of(tmp_path / "page.md")

    assert block.reason == "it is slow"
    with pytest.raises((SyntaxError, ValueError)):
        check_not_run(block)


def test_a_reason_is_of_the_next_block_only(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(pages, "ROOT", tmp_path)
    text = """\
        <!-- not run: no GPU -->
        ```console
        $ first
        $ second
        its output
        ```

        - A list:

          ```text
          indented
          ```
    """
    (tmp_path / "page.md").write_text(dedent(text), encoding="utf-8")

    first, second = blocks_of(tmp_path / "page.md")

    assert (first.reason, second.reason) == ("no GPU", None)
    assert [(command.line, command.shown) for command in commands_of(first.code)] == [
        ("first", []),
        ("second", ["its output"]),
    ]
    assert (second.code, second.place) == ("indented\n", "page.md:10")
