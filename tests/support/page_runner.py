"""The code blocks of a page -> run in order, in one folder and one namespace, with the demo model for every hub id.

The folder has what a page may take for granted: `my-model` (a decoder), `passages.jsonl`, `questions.jsonl`,
`queries.jsonl`, `queries.parquet`, `pairs.jsonl` and `examples`. The namespace has a LangChain `retriever` and a
LlamaIndex `index`. A server answers at http://127.0.0.1:8000. A block with a title, and a command, may add files.
"""

import ast
import asyncio
import inspect
import json
import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml
from haystack import Document as HaystackDocument
from haystack import Pipeline
from haystack.core.serialization import import_class_by_name
from haystack.document_stores.in_memory import InMemoryDocumentStore
from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from packaging.requirements import Requirement

from onelogit import DEMO_MODEL
from onelogit.cli.main import _parse_arguments, main
from onelogit.recipes.families import FAMILIES
from support.pages import ROOT, Block, Command, commands_of

ADDRESS = "http://127.0.0.1:8000"
TEXTS = ["Bananas are yellow.", "Paris is the capital of France.", "Beijing is the capital of China."]
KOREAN_TEXTS = [
    "사내 카페는 오전 8시에 문을 연다.",
    "연차 휴가는 사용일 3일 전까지 인사 시스템에서 신청한다.",
    "VPN client를 설치하려면 IT help desk에 요청한다.",
]
BEST = {TEXTS[2], KOREAN_TEXTS[1]}  # of the queries that the pages send to `retriever`, `index` and a pipeline
ILLUSTRATIONS = {"", "text"}  # neither code nor data
ELSEWHERE = {  # commands that the pages name, and why they are not run here; those of onelogit are parsed
    ".": "the tests run in an environment of their own",
    "cd": "the tests run in a folder of their own",
    "export": "the tests set their own environment",
    "git": "the tests run in a clone",
    "onelogit bench": "it measures for a minute: tests/cli/test_bench.py runs it",
    "onelogit serve": "it runs until it is stopped: tests/serving starts it",
    "ray": "tests/bulk/test_ray.py starts clusters",
    "vllm": "`nox -s vllm` starts it",
}
_OTHER_MODELS = {"Qwen/Qwen3-0.6B", "Qwen/Qwen2.5-0.5B-Instruct"}
_MODELS = re.compile("|".join(sorted({*(id for each in FAMILIES for id in each.models), *_OTHER_MODELS}, reverse=True)))


class AllDocuments(BaseRetriever):
    """A retriever that finds all of its texts, in the order that a reranker has to change."""

    texts: list[str]

    def _get_relevant_documents(self, query: str, *, run_manager: CallbackManagerForRetrieverRun) -> list[Document]:
        return [Document(page_content=text) for text in self.texts]


class PageRunner:
    """Runs the blocks of one page.

    Args:
        names: the namespace of Python code.
        printed: what was printed since its last call, on stdout and stderr.
        server_url: the address of the server; called if a block names it.
    """

    def __init__(self, names: dict[str, Any], printed: Callable[[], str], server_url: Callable[[], str]) -> None:
        self.names = {**names}
        self._given = names
        self._printed = printed
        self._server_url = server_url
        self._last_output = ""

    def run(self, block: Block) -> None:
        """Run a block, or read it if it is data; raise what fails, with the place."""
        code = _with_demo(block.code)
        if ADDRESS in code and block.language in ("python", "console"):
            code = code.replace(ADDRESS, self._server_url())
        if block.title is not None:
            Path(block.title).parent.mkdir(parents=True, exist_ok=True)
            Path(block.title).write_text(code, encoding="utf-8")
        try:
            if block.language == "text" and block.follows == "python":
                check_output(code.splitlines(), self._last_output)
            elif block.language not in ILLUSTRATIONS:
                getattr(self, f"_run_{block.language}", self._run_unknown)(code)
        except BaseException as error:
            error.add_note(f"in the block at {block.place}")
            raise

    def _run_unknown(self, code: str) -> None:
        raise AssertionError("no test runs this language: put <!-- not run: REASON --> before the block")

    def _run_python(self, code: str) -> None:
        for name, value in self._given.items():  # a loop over a ranking may have left a number there
            if isinstance(self.names[name], int):
                self.names[name] = value
        compiled = compile(code, "a page", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        self._printed()
        result = eval(compiled, self.names)
        if inspect.iscoroutine(result):
            asyncio.run(result)
        self._last_output = self._printed()
        for name, value in self.names.items():
            best = _best_text(value)
            assert best is None or best in BEST, f"{name} begins with {best!r}"

    def _run_diff(self, code: str) -> None:
        kept = "\n".join(line[1:].removeprefix(" ") for line in code.splitlines() if not line.startswith("-"))
        (self._run_yaml if re.match(r"\w+:", kept.strip()) else self._run_python)(kept)

    def _run_console(self, code: str) -> None:
        for command in commands_of(code):
            for part in command.line.split(" && "):
                self._run_command(Command(part, command.shown))

    def _run_bash(self, code: str) -> None:  # as pages of others write commands, without a prompt
        for line in filter(str.strip, code.splitlines()):
            self._run_command(Command(line, []))

    def _run_command(self, command: Command) -> None:
        words = shlex.split(command.line.partition(" | ")[0], comments=True)
        program = " ".join(words[: 2 if words[0] == "onelogit" else 1])
        if words[0] == "onelogit":
            assert _parse_arguments(words[1:]).command
        if program in ELSEWHERE:
            return
        check = {"onelogit": self._run_onelogit, "curl": _run_curl}.get(words[0])
        if check is None:
            check_command(words)
        else:
            check(words, command.shown)

    def _run_onelogit(self, words: list[str], shown: list[str]) -> None:
        self._printed()
        code = main(words[1:])
        output = self._printed()
        check_output(shown, output)
        assert shown or code == 0, f"{shlex.join(words)} ended with {code}: {output}"

    def _run_yaml(self, code: str) -> None:
        content = yaml.safe_load(code)
        if "components" in content:
            _check_pipeline(content)
        elif content.keys() == {"type", "init_parameters"}:
            assert import_class_by_name(content["type"]).from_dict(content)

    def _run_yml(self, code: str) -> None:
        assert yaml.safe_load(code)

    def _run_json(self, code: str) -> None:
        assert json.loads(code)

    def _run_jsonl(self, code: str) -> None:
        assert all(isinstance(json.loads(line), dict) for line in code.splitlines())

    def _run_toml(self, code: str) -> None:
        assert tomllib.loads(code)


def check_not_run(block: Block) -> None:
    """What can be known of a block that is not run: Python compiles, and commands of onelogit have valid arguments."""
    if block.language == "python":
        compile(block.code, block.place, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    for command in commands_of(block.code) if block.language == "console" else ():
        for words in [shlex.split(part.partition(" | ")[0], comments=True) for part in command.line.split(" && ")]:
            assert words[0] != "onelogit" or _parse_arguments(words[1:]).command


def check_output(shown: list[str], printed: str) -> None:
    """Each line that a page shows was printed, in this order; numbers and spaces may differ, and `...` is any text."""
    rest = [_without_numbers(line) for line in printed.splitlines()]
    for line in filter(str.strip, shown):
        pattern = re.escape(_without_numbers(line)).replace(re.escape("..."), ".*")
        place = next((number for number, each in enumerate(rest) if re.fullmatch(pattern, each)), None)
        assert place is not None or line.strip() == "...", f"{line!r} was not printed:\n{printed}"
        rest = rest[0 if place is None else place + 1 :]


def check_command(words: list[str]) -> None:
    """A command of another program than onelogit names what this repository has."""
    if words[0] in ("python", "python3") and words[1:2] == ["-m"]:
        words = words[2:]
    if words[0] == "pip":
        _check_install(words[2:])
    elif words[0] == "venv":
        pass  # of Python
    elif words[0] == "nox":
        sessions = re.findall(r"^def (\w+)\(session", (ROOT / "noxfile.py").read_text(encoding="utf-8"), re.MULTILINE)
        named = words[words.index("-s") + 1 :]
        assert {*named[: named.index("--") if "--" in named else None]} <= {*sessions}
    elif words[0] == "python":
        assert (ROOT / words[1]).is_file(), words[1]
    else:
        raise AssertionError(f"no test runs {words[0]}: put <!-- not run: REASON --> before the block")


def _check_install(words: list[str]) -> None:
    flags_values = [value for flag, value in pairwise(words) if flag in ("-c", "-r")]
    addresses = [value for flag, value in pairwise(words) if flag in ("--index-url", "--extra-index-url")]
    assert all((ROOT / file).is_file() for file in flags_values)
    for word in words:
        if word.startswith("-") or word in flags_values or word in addresses:
            continue
        name, extras = re.fullmatch(r"([\w./-]+)(?:\[(.*)\])?.*", word).groups()  # type: ignore[union-attr]
        if (folder := ROOT / name).is_dir():
            known = _extras_of(folder)
        elif name in _distributions():
            known = _extras_of(_distributions()[name])
        else:
            Requirement(word)
            continue
        assert {*(extras or "").split(",")} <= {"", *known}, word


@cache
def _distributions() -> dict[str, Path]:
    """The names of this repository's distributions, and their folders."""
    folders = [ROOT / "shared", *(file.parent for file in (ROOT / "packages").glob("*/pyproject.toml"))]
    return {_project(folder)["name"]: folder for folder in folders}


def _extras_of(folder: Path) -> set[str]:
    return {*_project(folder).get("optional-dependencies", ())}


def _project(folder: Path) -> dict[str, Any]:
    project: dict[str, Any] = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project


def _run_curl(words: list[str], shown: list[str]) -> None:
    if shutil.which("curl") is None:
        return
    quiet = ["--silent", "--show-error", "--fail-with-body", "--noproxy", "*"]
    done = subprocess.run([*words, *quiet], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    check_output(shown, done.stdout)


def _check_pipeline(content: dict[str, Any]) -> None:
    """A Haystack pipeline with the components `retriever` and `ranker` ranks the passages."""
    store = InMemoryDocumentStore(index="passages")
    if store.count_documents() == 0:
        store.write_documents([HaystackDocument(content=text) for text in TEXTS])
    query = "What is the capital of China?"
    answer = Pipeline.loads(yaml.safe_dump(content)).run({"retriever": {"query": query}, "ranker": {"query": query}})
    assert answer["ranker"]["documents"][0].content == TEXTS[2]


def _best_text(value: object) -> str | None:
    """The first text of a framework's answer; None if the value is not one."""
    if isinstance(value, dict) and "documents" in value.get("ranker", ()):
        return str(value["ranker"]["documents"][0].content)
    if isinstance(value, list) and value and isinstance(value[0], Document):
        return value[0].page_content
    nodes = getattr(value, "source_nodes", None)
    return str(nodes[0].text) if nodes else None


def _with_demo(code: str) -> str:
    return _MODELS.sub(lambda _: DEMO_MODEL, code)


def _without_numbers(line: str) -> str:
    return " ".join(re.sub(r"[-+]?\d[\d,]*(\.\d+)?(e[-+]?\d+)?", "0", line).split())
