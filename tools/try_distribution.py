"""An installed distribution -> imported, and used with the demo model.

    python -I tools/try_distribution.py NAME

Fails if it is not installed in this environment, lacks py.typed, or does not rank. `-I` ignores PYTHONPATH and the
working directory, so that nothing but the installed files is used.
"""

# ruff: noqa: PLC0415 -- each environment has only one of the frameworks

import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

QUERY = "What is the capital of China?"
TEXTS = ["Bananas are yellow.", "Beijing is the capital of China."]


def rank_with_the_core() -> str:
    from onelogit import DEMO_MODEL, open_reranker

    command = [sys.executable, "-I", "-m", "onelogit", "rank", QUERY, *TEXTS, "--top-n", "1"]
    printed = subprocess.run(command, capture_output=True, check=True, text=True, timeout=300).stdout
    assert TEXTS[1] in printed, printed
    with open_reranker(DEMO_MODEL) as reranker:
        return TEXTS[reranker.rank(QUERY, TEXTS, top_n=1)[0].index]


def rank_with_langchain() -> str:
    from langchain_core.documents import Document

    from langchain_onelogit import OnelogitRerank
    from onelogit import DEMO_MODEL

    documents = [Document(page_content=text) for text in TEXTS]
    return OnelogitRerank(model=DEMO_MODEL, top_n=1).compress_documents(documents, QUERY)[0].page_content


def rank_with_llama_index() -> str:
    from llama_index.core.schema import NodeWithScore, TextNode

    from llama_index.postprocessor.onelogit_rerank import OnelogitRerank
    from onelogit import DEMO_MODEL

    nodes = [NodeWithScore(node=TextNode(text=text)) for text in TEXTS]
    return OnelogitRerank(model=DEMO_MODEL, top_n=1).postprocess_nodes(nodes, query_str=QUERY)[0].text


def rank_with_haystack() -> str:
    from haystack import Document

    from haystack_integrations.components.rankers.onelogit import OnelogitRanker
    from onelogit import DEMO_MODEL

    documents = [Document(content=text) for text in TEXTS]
    return str(OnelogitRanker(model=DEMO_MODEL, top_k=1).run(query=QUERY, documents=documents)["documents"][0].content)


USES: dict[str, tuple[str, Callable[[], str]]] = {
    "onelogit": ("onelogit", rank_with_the_core),
    "langchain-onelogit": ("langchain_onelogit", rank_with_langchain),
    "llama-index-postprocessor-onelogit-rerank": ("llama_index.postprocessor.onelogit_rerank", rank_with_llama_index),
    "onelogit-haystack": ("haystack_integrations.components.rankers.onelogit", rank_with_haystack),
}


def main(name: str) -> None:
    module, rank = USES[name]
    folder = Path(str(import_module(module).__file__)).parent
    assert folder.is_relative_to(sys.prefix), f"{folder} is not in {sys.prefix}"
    assert (folder / "py.typed").exists(), f"{folder} has no py.typed"
    assert version(name) == version("onelogit"), f"{name} {version(name)} with onelogit {version('onelogit')}"
    best = rank()
    assert best == TEXTS[1], best
    print(f"{name} {version(name)}: installed, imported, and ranked")


if __name__ == "__main__":
    main(sys.argv[1])
