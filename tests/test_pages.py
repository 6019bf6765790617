"""Every code block of the READMEs and of docs/ runs, page by page, or says why not; all links lead somewhere."""

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from llama_index.core import Document as LlamaIndexDocument
from llama_index.core import Settings, SummaryIndex
from llama_index.core.llms import MockLLM

from onelogit import DEMO_MODEL, Reranker
from onelogit.serving import app
from support.page_files import write_files
from support.page_runner import KOREAN_TEXTS, TEXTS, AllDocuments, PageRunner, check_not_run
from support.pages import LISTINGS, PAGES, READMES, ROOT, blocks_of, page_name
from support.served import served

SERVED_NAMES = ["Qwen/Qwen3-Reranker-0.6B", "qwen3-reranker-classifier", DEMO_MODEL]
WITH_CODE = [page for page in [*PAGES, *LISTINGS] if any(block.reason is None for block in blocks_of(page))]
_FOLDERS = (ROOT, ROOT / "benchmarks", ROOT / "examples")
OTHER_PAGES = sorted({page for folder in _FOLDERS for page in folder.glob("*.md")} - {*PAGES})
NOT_RUN = [block for page in PAGES for block in blocks_of(page) if block.reason is not None]


@pytest.fixture(scope="module")
def server_url() -> Iterator[Callable[[], str]]:
    """The address of a server of the demo model, which starts when it is first asked for."""
    with ExitStack() as stack:
        urls: list[str] = []

        def url() -> str:
            if not urls:
                reranker = stack.enter_context(Reranker.load(DEMO_MODEL))
                urls.append(stack.enter_context(served(app(reranker, served_names=SERVED_NAMES))))
            return urls[0]

        yield url


@pytest.mark.parametrize("page", WITH_CODE, ids=page_name)
def test_the_blocks_of_the_page_run(
    page: Path,
    server_url: Callable[[], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Settings, "_llm", MockLLM())
    write_files(tmp_path)
    texts = KOREAN_TEXTS if page.parent.name == "ko" else TEXTS
    index = SummaryIndex.from_documents([LlamaIndexDocument(text=text) for text in texts])
    names = {"__name__": "page", "retriever": AllDocuments(texts=texts), "index": index}
    runner = PageRunner(names, lambda: "".join(capsys.readouterr()), server_url)

    for block in blocks_of(page):
        if block.reason is None:
            runner.run(block)


@pytest.mark.parametrize("block", NOT_RUN, ids=lambda block: f"{block.place}: {block.reason}")
def test_a_block_that_is_not_run_is_valid(block):
    check_not_run(block)


def test_every_readme_has_python_code():
    assert all(any(block.language == "python" for block in blocks_of(readme)) for readme in READMES)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as code hosts write them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [*PAGES, *OTHER_PAGES], ids=page_name)
def test_the_links_of_the_page_lead_somewhere(page: Path):
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for link in re.findall(r"\]\((?![a-z]+:)([^)\s]+)\)", text):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_has_its_place_on_the_site():
    listed = {*re.findall(r"^ +- .*?: (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)}

    assert {page.relative_to(ROOT / "docs").as_posix() for page in PAGES if page not in READMES} <= listed
