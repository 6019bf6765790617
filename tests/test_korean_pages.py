"""docs/ko: the code of the Korean pages runs with the demo model; commands, data and links are valid."""

import re
import shlex
from pathlib import Path

import pytest
from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from llama_index.core import Document as LlamaIndexDocument
from llama_index.core import Settings, SummaryIndex
from llama_index.core.llms import MockLLM

from onelogit import DEMO_MODEL
from onelogit.cli.main import _parse_arguments
from onelogit.evaluation.data.query_rows import read_query_rows
from onelogit.io.bad_lines import BadLines
from onelogit.verification.sample_pairs import read_pairs

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "docs" / "ko" / f"{name}.md" for name in ("quickstart", "how-it-works", "adoption-checklist")]
MODEL = "Qwen/Qwen3-Reranker-0.6B"
LEAVE = "연차 휴가는 사용일 3일 전까지 인사 시스템에서 신청한다."
TEXTS = ["사내 카페는 오전 8시에 문을 연다.", LEAVE, "VPN client를 설치하려면 IT help desk에 요청한다."]


class Retriever(BaseRetriever):
    def _get_relevant_documents(self, query: str, *, run_manager: CallbackManagerForRetrieverRun) -> list[Document]:
        return [Document(page_content=text) for text in TEXTS]


def blocks(language: str) -> list[object]:
    return [
        pytest.param(code, id=f"{page.stem}-{number}")
        for page in PAGES
        for number, code in enumerate(
            re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
        )
    ]


@pytest.mark.parametrize("code", blocks("python"))
def test_the_code_runs_with_the_demo_model(
    code: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(Settings, "_llm", MockLLM())
    index = SummaryIndex.from_documents([LlamaIndexDocument(text=text) for text in TEXTS])
    names: dict[str, object] = {"retriever": Retriever(), "index": index}

    exec(compile(code.replace(MODEL, DEMO_MODEL), "docs/ko", "exec"), names)

    if "found" in names:
        assert names["found"][0].page_content == LEAVE  # type: ignore[index]
    if "response" in names:
        assert names["response"].source_nodes[0].text == LEAVE  # type: ignore[attr-defined]
    if "answer" in names:
        assert names["answer"]["ranker"]["documents"][0].content == LEAVE  # type: ignore[index]
    if "print(" in code:
        first = capsys.readouterr().out.splitlines()[0]
        assert first.endswith(LEAVE) or re.search(r"토큰.*\d$|^라이선스: cc-by-sa-4.0$", first)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_commands_have_valid_arguments(page: Path):
    lines = page.read_text(encoding="utf-8").splitlines()
    commands = [line.removeprefix("$ ") for line in lines if line.startswith("$ onelogit ")]

    assert commands
    assert all(_parse_arguments(shlex.split(command)[1:]).command for command in commands)


def test_the_data_of_the_checklist_are_read(tmp_path: Path):
    pairs, questions = (str(block.values[0]) for block in blocks("jsonl"))  # type: ignore[attr-defined]
    (tmp_path / "pairs.jsonl").write_text(pairs, encoding="utf-8")
    (tmp_path / "questions.jsonl").write_text(questions, encoding="utf-8")

    data = read_query_rows(tmp_path / "questions.jsonl", BadLines())

    assert read_pairs(tmp_path / "pairs.jsonl")[0].document == LEAVE
    assert [len(query.relevant) for query in data.queries] == [2, 1]


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub writes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_links_lead_somewhere(page: Path):
    for link in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.is_file(), link
        assert not anchor or anchor in anchors(target), link


def test_the_readme_links_to_the_pages():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert all(f"(docs/ko/{page.name})" in readme for page in PAGES)
