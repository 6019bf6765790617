"""Rerank passages for real questions with onelogit itself, LangChain, LlamaIndex and Haystack, and compare the results.

BM25 finds the candidates, and the included demo model reranks them. The exit code is 1 if the order or the logits
differ between the four.
"""

import json
import sys
from pathlib import Path

from haystack import Document as HaystackDocument
from haystack import Pipeline
from haystack.components.retrievers.in_memory import InMemoryBM25Retriever
from haystack.document_stores.in_memory import InMemoryDocumentStore
from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_core.documents import Document as LangChainDocument
from langchain_core.retrievers import BaseRetriever
from llama_index.core import SummaryIndex
from llama_index.core.llms import MockLLM
from llama_index.core.schema import TextNode
from rich.console import Console
from rich.table import Table

from haystack_integrations.components.rankers.onelogit import OnelogitRanker
from langchain_onelogit import OnelogitRerank as LangChainRerank
from llama_index.postprocessor.onelogit_rerank import OnelogitRerank as LlamaIndexRerank
from onelogit import DEMO_MODEL, Reranker, open_reranker

DATA = Path(__file__).parent / "data"
Passages = dict[str, str]
Ranking = list[tuple[str, float, float]]  # id, logit, score; best first


def read_lines(name: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (DATA / name).read_text(encoding="utf-8").splitlines()]


def find_candidates(question: str, passages: Passages) -> Passages:
    """The first stage: all passages that share a word with the question, by BM25 score, best first."""
    store = InMemoryDocumentStore()
    store.write_documents([HaystackDocument(id=id, content=text) for id, text in passages.items()])
    found = InMemoryBM25Retriever(store, top_k=len(passages)).run(query=question)["documents"]
    return {document.id: passages[document.id] for document in found}


def with_the_core(reranker: Reranker, question: str, candidates: Passages) -> Ranking:
    ids = list(candidates)
    return [(ids[index], logit, score) for index, logit, score in reranker.rank(question, candidates.values())]


class Candidates(BaseRetriever):
    """A LangChain retriever that returns the given passages."""

    candidates: Passages

    def _get_relevant_documents(self, query: str, **_: object) -> list[LangChainDocument]:  # noqa: ARG002
        return [LangChainDocument(page_content=text, id=id) for id, text in self.candidates.items()]


def with_langchain(question: str, candidates: Passages) -> Ranking:
    retriever = ContextualCompressionRetriever(
        base_retriever=Candidates(candidates=candidates), base_compressor=LangChainRerank(model=DEMO_MODEL)
    )
    return [
        (document.id, document.metadata["relevance_logit"], document.metadata["relevance_score"])
        for document in retriever.invoke(question)
    ]


def with_llama_index(question: str, candidates: Passages) -> Ranking:
    index = SummaryIndex([TextNode(id_=id, text=text) for id, text in candidates.items()])
    engine = index.as_query_engine(llm=MockLLM(), node_postprocessors=[LlamaIndexRerank(model=DEMO_MODEL)])
    nodes = engine.query(question).source_nodes
    return [(node.node_id, node.metadata["relevance_logit"], node.score) for node in nodes]


def with_haystack(question: str, candidates: Passages) -> Ranking:
    pipeline = Pipeline()
    pipeline.add_component("ranker", OnelogitRanker(model=DEMO_MODEL))
    documents = [HaystackDocument(id=id, content=text) for id, text in candidates.items()]
    answer = pipeline.run({"ranker": {"query": question, "documents": documents}})
    return [
        (document.id, document.meta["relevance_logit"], document.score) for document in answer["ranker"]["documents"]
    ]


def table(question: str, answer: str, candidates: Passages, ranking: Ranking) -> Table:
    before = {id: place for place, id in enumerate(candidates, 1)}
    rows = Table(title=question, title_style="bold", title_justify="left", expand=True)
    for name in ("before", "after", "score", "logit"):
        rows.add_column(name, justify="right", no_wrap=True)
    rows.add_column("passage", no_wrap=True, overflow="ellipsis", ratio=1)
    for after, (id, logit, score) in enumerate(ranking, 1):
        mark, star = ("[bold green]", "* ") if id == answer else ("", "")
        text = " ".join(candidates[id].split()).replace("[", "\\[")
        rows.add_row(f"{before[id]}", f"{mark}{after}", f"{score:.3f}", f"{logit:+.2f}", f"{mark}{star}{text}")
    return rows


def main() -> int:
    console = Console()
    reranker = open_reranker(DEMO_MODEL)  # the adapters below share its weights as long as it exists
    console.print(
        "[bold green]*[/] marks the passage with the answer. Scores are for ordering; they are not probabilities.\n"
    )
    passages = {line["id"]: line["text"] for line in read_lines("passages.jsonl")}
    frameworks = {"LangChain": with_langchain, "LlamaIndex": with_llama_index, "Haystack": with_haystack}
    differing = set()
    places = []
    for line in read_lines("questions.jsonl"):
        question, answer = line["question"], line["answer"]
        candidates = find_candidates(question, passages)
        ranking = with_the_core(reranker, question, candidates)
        differing |= {name for name, rank in frameworks.items() if rank(question, candidates) != ranking}
        places.append((list(candidates).index(answer) + 1, [id for id, *_ in ranking].index(answer) + 1))
        console.print(table(question, answer, candidates, ranking), "")
    if differing:
        console.print(f"[bold red]The order or the logits differ from the core's: {', '.join(sorted(differing))}")
        return 1
    before, after = (sum(1 / pair[side] for pair in places) / len(places) for side in (0, 1))
    console.print("The core, LangChain, LlamaIndex and Haystack gave the same order with the same logits each time.")
    console.print(
        f"Mean reciprocal rank of the answer: {before:.2f} before, {after:.2f} after.\n"
        "This is the demo model, which knows next to nothing: its figures do not show how well a real model ranks."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
