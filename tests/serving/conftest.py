"""A server with a tiny model, and a client of it."""

from collections.abc import Iterator

import httpx2
import pytest

from onelogit import Reranker
from onelogit.serving import app
from support.served import served
from support.tiny import Tiny


@pytest.fixture(scope="module")
def tiny_reranker(tiny_qwen: Tiny) -> Iterator[Reranker]:
    with Reranker.load(tiny_qwen.folder) as reranker:
        yield reranker


@pytest.fixture(scope="module")
def url(tiny_reranker: Reranker) -> Iterator[str]:
    with served(app(tiny_reranker, served_names=["tiny", "other-name"])) as url:
        yield url


@pytest.fixture
def client(url: str) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=url, timeout=30, trust_env=False) as client:
        yield client
