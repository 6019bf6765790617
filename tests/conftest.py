"""What every test stands on: no network, no progress bars, checkpoints made once."""

import os
import secrets

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "true"
os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "false"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_AUTH_MODE"] = "token"  # Ray reads it when it is imported
os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from transformers.utils import logging as transformers_logging

from onelogit import Reranker
from onelogit.recipes import FAMILIES
from tiny import Tiny, causal_checkpoint

transformers_logging.disable_progress_bar()
torch.set_num_threads(1)  # tiny models gain nothing from more, and several test runs share a machine
settings.register_profile("shared machine", deadline=None)  # a stall of the machine is no failure
settings.load_profile("shared machine")


@pytest.fixture(scope="session")
def tiny_qwen(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """A tiny Qwen3-Reranker, known by the name of its folder."""
    return causal_checkpoint(tmp_path_factory.mktemp("models") / "Qwen3-Reranker-tiny")


@pytest.fixture
def reranker(tiny_qwen: Tiny) -> Iterator[Reranker]:
    with Reranker.load(tiny_qwen.folder) as reranker:
        yield reranker


@pytest.fixture
def checkpoint(tmp_path: Path) -> Callable[..., Tiny]:
    """Makes a tiny checkpoint in a folder of the given name, with further files."""

    def make(name: str = "model", *args: object, **options: object) -> Tiny:
        return causal_checkpoint(tmp_path / name, *args, **options)  # type: ignore[arg-type]

    return make


@pytest.fixture(params=FAMILIES, ids=lambda recipe: recipe.family)
def family(request: pytest.FixtureRequest) -> object:
    return request.param


@pytest.fixture(scope="session")
def template() -> str:
    """A chat template of nobody in particular."""
    return (
        '{% for message in messages %}{% if message.role != "system" %}'
        "<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
        "{% endif %}{% endfor %}<|im_start|>assistant\n\n"
    )
