"""Answer a question from the example passages: python examples/haystack_rag.py [QUESTION [MODEL]]

Needs OPENAI_API_KEY. Set OPENAI_BASE_URL to use another server with the same API. MODEL is the reranker.
"""

import json
import os
import sys
from pathlib import Path

import yaml
from haystack import Document, Pipeline
from haystack.document_stores.in_memory import InMemoryDocumentStore

FOLDER = Path(__file__).parent


def load_pipeline(model: str | None) -> Pipeline:
    """The pipeline of the YAML file, with another reranker if `model` is given."""
    definition = yaml.safe_load((FOLDER / "haystack_rag.yaml").read_text(encoding="utf-8"))
    if model is not None:
        definition["components"]["ranker"]["init_parameters"]["model"] = model
    definition["components"]["llm"]["init_parameters"]["api_base_url"] = os.environ.get("OPENAI_BASE_URL")
    return Pipeline.loads(yaml.safe_dump(definition))


def write_passages() -> None:
    """Fill the document store of the pipeline."""
    store = InMemoryDocumentStore(index="passages")
    lines = (FOLDER / "data" / "passages.jsonl").read_text(encoding="utf-8").splitlines()
    if store.count_documents() == 0:
        passages = [json.loads(line) for line in lines]
        store.write_documents([Document(id=each["id"], content=each["text"]) for each in passages])


def main(query: str = "What did Genghis Khan forbid?", model: str | None = None) -> None:
    if not os.environ.get("OPENAI_API_KEY"):
        sys.exit("Set OPENAI_API_KEY, and OPENAI_BASE_URL for another server with the same API.")
    write_passages()
    needs_query = ("retriever", "ranker", "prompt")
    answer = load_pipeline(model).run({name: {"query": query} for name in needs_query}, include_outputs_from={"ranker"})
    print(answer["llm"]["replies"][0].text)
    for place, document in enumerate(answer["ranker"]["documents"], start=1):
        print(f"[{place}] {document.score:.3f}  {document.content[:90]}")


if __name__ == "__main__":
    main(*sys.argv[1:])
