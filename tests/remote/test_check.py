"""`RemoteReranker.check`: what it accepts, and the faults of a server that it finds and names."""

from pathlib import Path
from typing import Any

import pytest
from transformers import GemmaConfig

from onelogit import InputError, RemoteReranker, Reranker, ServerError
from support.servers import PROTOCOL_OPTIONS, FakeServer, serving
from support.tiny import causal_checkpoint

SERVER_PROMPTS: dict[str, Any] = {"protocol": "rerank", "template": "server"}


def test_a_check_passes_if_the_server_is_right(local: Reranker, exported: str):
    for options in PROTOCOL_OPTIONS:
        with serving(FakeServer(reranker=local, protocol=options["protocol"])) as server:
            for max_tokens in (300, 500):  # with two of its prompts, and with all three
                with RemoteReranker(server.url, exported, max_tokens=max_tokens, **options) as remote:
                    assert remote.check() < 1e-4


def test_a_check_allows_for_an_activation_that_cannot_be_turned_off(local: Reranker, exported: str):
    options: dict[str, Any] = {**SERVER_PROMPTS, "raw_logits": False, "max_tokens": 300}
    with serving(FakeServer(reranker=local, is_activated=True)) as server:
        with RemoteReranker(server.url, exported, **options) as remote:
            assert remote.check() < 1e-5
    with serving(FakeServer(reranker=local, is_activated=True, change=lambda logit: -logit)) as server:
        with RemoteReranker(server.url, exported, **options) as remote, pytest.raises(ServerError, match="are wrong"):
            remote.check()


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ({"is_activated": True}, "they are sigmoids, so its activation is on"),
        ({"change": lambda logit: logit * 1e22}, "its head is not initialised"),
        ({"change": lambda logit: 0.5}, "its head is not initialised"),
        ({"change": lambda logit: logit / 10}, "cosines of embeddings"),
        ({"change": lambda logit: logit + 3}, "another model"),
    ],
)
def test_a_check_names_the_likely_reason(local: Reranker, exported: str, fault: dict[str, Any], reason: str):
    with serving(FakeServer(reranker=local, **fault)) as server, RemoteReranker(server.url, exported) as remote:
        with pytest.raises(ServerError, match=reason):
            remote.check()


@pytest.mark.parametrize("protocol", ["rerank", "tei"])
def test_a_check_finds_a_missing_prompt(local: Reranker, exported: str, protocol: Any):
    with serving(FakeServer(reranker=local, has_template=False)) as server:
        with RemoteReranker(server.url, exported, protocol=protocol, template="server") as remote:
            with pytest.raises(ServerError, match="writes no prompt around query and document"):
                remote.check()


@pytest.mark.parametrize("options", PROTOCOL_OPTIONS[:3])
def test_a_check_finds_a_server_that_truncates(local: Reranker, exported: str, options: dict[str, Any]):
    with serving(FakeServer(reranker=local, max_tokens=400)) as server:
        with RemoteReranker(server.url, exported, max_tokens=400, **options) as remote:
            remote.check()
        with RemoteReranker(server.url, exported, max_tokens=500, **options) as remote:
            with pytest.raises(ServerError, match="truncates prompts of max_tokens=500"):
                remote.check()


def test_a_check_finds_a_second_bos_token(tmp_path: Path):
    folder = causal_checkpoint(tmp_path / "bge-reranker-v2-gemma", GemmaConfig).folder
    with Reranker.load(folder) as reranker:
        reranker.save(tmp_path / "export")
        bos = reranker._scorer.tokenizer.bos_token_id
        with serving(FakeServer(reranker=reranker, extra_ids=[bos])) as server:
            with RemoteReranker(server.url, str(tmp_path / "export"), **SERVER_PROMPTS) as remote:
                with pytest.raises(ServerError, match="second BOS token"):
                    remote.check()


def test_a_check_needs_a_prompt_that_is_not_truncated(exported: str):
    with RemoteReranker("http://127.0.0.1:9", exported, max_tokens=100) as remote:
        with pytest.raises(InputError, match="max_tokens=100 truncates all prompts of .*; the shortest has [0-9]+"):
            remote.check()


def test_a_check_needs_an_exported_model(model: str):
    with RemoteReranker("http://127.0.0.1:9", model) as remote, pytest.raises(InputError, match="onelogit convert"):
        remote.check()
    with RemoteReranker("http://127.0.0.1:9", **SERVER_PROMPTS) as remote:
        with pytest.raises(InputError, match="check needs an exported model"):
            remote.check()
