"""A reranker in small portions, and a record of what it does."""

import pytest

from onelogit import Reranker
from support.portions import Watch, in_small_portions


@pytest.fixture
def portioned(reranker: Reranker) -> Reranker:
    return in_small_portions(reranker)


@pytest.fixture
def watch(portioned: Reranker) -> Watch:
    return Watch(portioned)
