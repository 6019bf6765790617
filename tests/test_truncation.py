"""Documents that do not fit are counted: in the log for callers, in the report of an evaluation."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from onelogit import RemoteReranker, Reranker
from onelogit.cli.main import main
from support.servers import FakeServer, serving
from support.tiny import Tiny

QUERY = "What is the capital of China?"
DOCUMENTS = ["short", "long " * 999, "longer " * 999]
MAX_TOKENS = 300


@contextmanager
def opened(kind: str, tiny: Tiny) -> Iterator[Reranker | RemoteReranker]:
    local = Reranker.load(tiny.folder, max_tokens=MAX_TOKENS)
    if kind == "local":
        yield local
        return
    options = {"protocol": kind, "template": "client", "max_tokens": MAX_TOKENS}
    with serving(FakeServer(reranker=local, has_template=False)) as server:
        with RemoteReranker(server.url, str(tiny.folder), **options) as remote:  # type: ignore[arg-type]
            yield remote


@pytest.mark.parametrize("kind", ["local", "vllm-tokens", "rerank"])
def test_truncated_documents_are_counted_with_the_logits(kind: str, tiny_qwen: Tiny, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING), opened(kind, tiny_qwen) as reranker:
        logits, truncated_count = reranker.logits_and_truncation(QUERY, DOCUMENTS)

        assert truncated_count == 2
        assert not caplog.messages
        assert reranker.logits(QUERY, DOCUMENTS) == pytest.approx(logits, abs=1e-5)
        reranker.logits(QUERY, DOCUMENTS[1:2])
        assert caplog.messages == [
            "2 of 3 documents were truncated to fit max_tokens=300",
            "1 of 1 document was truncated to fit max_tokens=300",
        ]


@pytest.mark.parametrize("kind", ["vllm-tokens", "rerank"])
def test_a_server_gets_the_beginning_that_the_local_model_reads(kind: str, tiny_qwen: Tiny):
    documents = ["FIRST second third " * 60, "한국어 문장입니다. " * 60, "\n\nThe capital. " * 90]
    with opened("local", tiny_qwen) as local, opened(kind, tiny_qwen) as remote:
        expected = local.logits(QUERY, documents)
        if kind == "rerank":  # a text cannot end inside a character, of which a local row may contain a part
            documents, expected = documents[::2], expected[::2]

        assert remote.logits(QUERY, documents) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("kind", ["local", "vllm-tokens"])
async def test_asynchronous_calls_warn_of_truncated_documents_too(
    kind: str, tiny_qwen: Tiny, caplog: pytest.LogCaptureFixture
):
    with caplog.at_level(logging.WARNING), opened(kind, tiny_qwen) as reranker:
        await reranker.arank(QUERY, DOCUMENTS)

    assert caplog.messages == ["2 of 3 documents were truncated to fit max_tokens=300"]


def test_documents_read_in_chunks_are_not_truncated(tiny_qwen: Tiny):
    with Reranker.load(tiny_qwen.folder, max_tokens=MAX_TOKENS, long_documents="chunk_max") as reranker:
        assert reranker.logits_and_truncation(QUERY, DOCUMENTS).truncated_count == 0


@pytest.mark.parametrize("is_remote", [False, True])
def test_an_evaluation_counts_truncated_documents(
    is_remote: bool, tiny_qwen: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    data = {"query": QUERY, "documents": DOCUMENTS, "labels": [1, 0, 0]}
    Path("data.jsonl").write_text(json.dumps(data), "utf-8")
    arguments = ["evaluate", str(tiny_qwen.folder), "--data", "data.jsonl", "--max-tokens", str(MAX_TOKENS)]

    with serving(FakeServer(reranker=Reranker.load(tiny_qwen.folder))) as server:
        assert main([*arguments, "--url", server.url] if is_remote else arguments) == 0

    entries = json.loads(Path("evaluation/figures.json").read_text("utf-8"))["entries"]
    assert [entry["documents_cut"] for entry in entries if "documents_cut" in entry] == [2]
