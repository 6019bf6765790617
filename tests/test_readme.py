"""The code and commands of the READMEs and of docs/ run as printed, with the demo model in place of the real one."""

import asyncio
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from haystack import Document as HaystackDocument
from haystack import Pipeline
from haystack.document_stores.in_memory import InMemoryDocumentStore
from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from llama_index.core import Document as LlamaIndexDocument
from llama_index.core import Settings, SummaryIndex
from llama_index.core.llms import MockLLM

from onelogit import DEMO_MODEL, Reranker
from onelogit.cli.main import _parse_arguments
from support.servers import FakeServer, serving

ROOT = Path(__file__).parents[1]
READMES = [ROOT / "README.md", ROOT / "shared" / "README.md", *sorted((ROOT / "packages").glob("*/README.md"))]
OWN_TEST = ROOT / "docs" / "your-own-model.md"  # its code runs in test_your_own_model.py
PAGES = [*READMES, *(ROOT / "docs" / f"{name}.md" for name in ("data", "models", "scaling", "serve", "bulk"))]
TEXTS = ["Bananas are yellow.", "Paris is the capital of France.", "Beijing is the capital of China."]
MODELS = ("Qwen/Qwen3-Reranker-0.6B", "Qwen/Qwen3-0.6B")


class AllDocuments(BaseRetriever):
    def _get_relevant_documents(self, query: str, *, run_manager: CallbackManagerForRetrieverRun) -> list[Document]:
        return [Document(page_content=text) for text in TEXTS]


def blocks(language: str) -> list[object]:
    found = []
    for readme in PAGES:
        text = readme.read_text(encoding="utf-8")
        for number, match in enumerate(re.finditer(rf"```{language}\n(.*?)```", text, re.DOTALL)):
            code = match.group(1)
            for model in MODELS:
                code = code.replace(model, DEMO_MODEL)
            found.append(pytest.param(code, id=f"{readme.parent.name}-{number}"))
    return found


@pytest.fixture(scope="module")
def replacements(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Texts of the READMEs -> the address of a real server, and the folder that it serves."""
    folder = tmp_path_factory.mktemp("exports") / "qwen3-reranker-classifier"
    with Reranker.load(DEMO_MODEL) as reranker:
        reranker.save(folder)
        with serving(FakeServer(reranker=reranker)) as server:
            yield {"http://127.0.0.1:8000": server.url, '"qwen3-reranker-classifier"': repr(str(folder))}


@pytest.mark.parametrize("code", blocks("python"))
def test_the_python_code_of_the_readmes_runs(
    code: str, replacements: dict[str, str], capsys: pytest.CaptureFixture[str]
):
    for placeholder, actual in replacements.items():
        code = code.replace(placeholder, actual)
    Settings.llm = MockLLM()
    index = SummaryIndex.from_documents([LlamaIndexDocument(text=text) for text in TEXTS])
    names: dict[str, object] = {"retriever": AllDocuments(), "index": index}

    exec(compile(code, "README.md", "exec"), names)

    if "reranking_retriever" in names:
        assert names["documents"][0].page_content == TEXTS[2]  # type: ignore[index]
    if "graph" in names:
        found = asyncio.run(names["graph"].ainvoke({"question": "What is the capital of China?"}))  # type: ignore[attr-defined]
        assert found["documents"][0].page_content == TEXTS[2]
    if "engine" in names:
        assert names["response"].source_nodes[0].text == TEXTS[2]  # type: ignore[attr-defined]
    if "pipeline" in names:
        assert names["answer"]["ranker"]["documents"][0].content == TEXTS[2]  # type: ignore[index]
    if "print(" in code:
        assert capsys.readouterr().out.splitlines()[0].endswith((TEXTS[2], "document 1", TEXTS[0]))


def commands() -> list[str]:
    """The commands after a `$` prompt, up to the first pipe."""
    lines = [line for page in PAGES for line in page.read_text(encoding="utf-8").splitlines()]
    return [line.removeprefix("$ ").partition(" | ")[0] for line in lines if line.startswith("$ onelogit ")]


@pytest.mark.parametrize("command", commands())
def test_the_commands_of_the_readmes_have_valid_arguments(command: str):
    assert _parse_arguments(shlex.split(command, comments=True)[1:]).command


@pytest.mark.parametrize("code", blocks("yaml"))
def test_the_pipelines_of_the_readmes_run(code: str):
    document_store = InMemoryDocumentStore(index="passages")
    if document_store.count_documents() == 0:
        document_store.write_documents([HaystackDocument(content=text) for text in TEXTS])
    query = "What is the capital of China?"

    pipeline = Pipeline.loads(yaml.safe_dump(yaml.safe_load(code)))
    answer = pipeline.run({"retriever": {"query": query}, "ranker": {"query": query}})

    assert answer["ranker"]["documents"][0].content == TEXTS[2]


def test_every_readme_has_python_code():
    assert all("```python" in readme.read_text(encoding="utf-8") for readme in READMES)
