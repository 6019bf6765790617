"""Long documents: their chunks share the query's tokens, and only a few are tokenised at a time."""

from typing import Any
from weakref import WeakSet

import pytest
from torch import nn

from onelogit import DEMO_MODEL, Reranker
from onelogit.prompts.chunking import DocumentTokens

QUERY = "What is the capital of China?"
DOCUMENTS = [f"Document {number}. " + f"The capital of China is Beijing, not {number}. " * 60 for number in range(20)]


@pytest.mark.parametrize("batch_tokens", [None, 256])
def test_the_chunks_of_all_documents_compute_the_query_once(batch_tokens: int | None):
    options: dict[str, Any] = {"long_documents": "chunk_max", "max_tokens": 200, "batch_tokens": batch_tokens}
    with Reranker.load(DEMO_MODEL, device="cpu", dtype="float32", **options) as reranker:
        counts: list[int] = []
        embeddings = reranker.classifier.get_input_embeddings()
        assert isinstance(embeddings, nn.Embedding)
        embeddings.register_forward_pre_hook(lambda _module, inputs: counts.append(inputs[0].numel()))
        rows = reranker.scorer.rows([(QUERY, document) for document in DOCUMENTS])
        distinct = len({row.ids[:length] for row in rows for length in range(1, len(row.ids) + 1)})

        reranker.logits(QUERY, DOCUMENTS)

    assert len(rows) > 3 * len(DOCUMENTS)
    assert max(counts) <= (batch_tokens or 2048)
    assert distinct <= sum(counts) < distinct + 32 * len(counts)
    assert distinct < 0.9 * sum(len(row.ids) for row in rows)


@pytest.mark.parametrize("long_documents", ["cut", "chunk_max"])
def test_only_a_few_long_documents_are_in_memory_with_their_positions(
    monkeypatch: pytest.MonkeyPatch, long_documents: str
):
    alive: WeakSet[DocumentTokens] = WeakSet()
    counts: list[int] = []
    create = DocumentTokens.__init__

    def counted(self: DocumentTokens, *given: Any) -> None:
        create(self, *given)
        alive.add(self)
        counts.append(len(alive))

    monkeypatch.setattr(DocumentTokens, "__init__", counted)
    options: dict[str, Any] = {"long_documents": long_documents, "max_tokens": 200}
    with Reranker.load(DEMO_MODEL, device="cpu", dtype="float32", **options) as reranker:
        rows = reranker.scorer.rows([(QUERY, document) for document in DOCUMENTS])

    assert len(counts) == len(DOCUMENTS) <= len(rows)
    assert max(counts) <= 2
