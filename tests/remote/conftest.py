"""The model that the servers serve, as a folder, loaded locally, and exported."""

from collections.abc import Iterator

import pytest

from onelogit import Reranker
from support.tiny import Tiny


@pytest.fixture(scope="module")
def model(tiny_qwen: Tiny) -> str:
    return str(tiny_qwen.folder)


@pytest.fixture(scope="module")
def local(model: str) -> Iterator[Reranker]:
    with Reranker.load(model) as reranker:
        yield reranker


@pytest.fixture(scope="module")
def exported(local: Reranker, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("exports") / "qwen3-reranker-tiny"
    local.save(folder)
    return str(folder)
