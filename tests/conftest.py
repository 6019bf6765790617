"""What every test stands on: no network, no progress bars, checkpoints made once; the whole suite on all cores.

Run whole, the suite is shared out among as many processes as there are cores, file by file. The process that shares
it out runs this file, too, so nothing that takes seconds is imported at its top.
"""

import gc
import os
import secrets

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "true"
os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "false"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_AUTH_MODE"] = "token"  # Ray reads it when it is imported
os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
os.environ["RAY_DATA_PARQUET_FOOTER_NUM_ACTORS"] = "1"  # else 32 processes look at a file that holds a few rows

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from onelogit.recipes.families import FAMILIES

if TYPE_CHECKING:
    from onelogit import Reranker
    from support.tiny import Tiny

# Longest first: what is begun last is what the other cores wait for.
LONGEST = ("test_ray.py", "test_compile.py", "test_benchmarks.py", "test_bench.py", "test_export.py")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """None for files that were named: this process begins sooner, and can be looked into. Each takes 1.5 GB."""
    is_whole = not all(Path(argument.partition("::")[0]).is_file() for argument in config.args)
    cores = os.cpu_count() or 1
    return min(cores, 4) if is_whole and cores > 1 else 0


def pytest_configure(config: pytest.Config) -> None:
    is_sharing_out = config.getoption("numprocesses", None) and not hasattr(config, "workerinput")
    if not is_sharing_out:
        prepare()


def prepare() -> None:
    """For tests that run in this process."""
    import torch
    from hypothesis import settings
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    torch.set_num_threads(1)  # tiny models gain nothing from more, and several test runs share a machine
    settings.register_profile("shared machine", deadline=None)  # a stall of the machine is no failure
    settings.load_profile("shared machine")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(LONGEST)))


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()  # else each collection looks again at the half million objects of all imported modules


@pytest.fixture(scope="session")
def tiny_qwen(tmp_path_factory: pytest.TempPathFactory) -> "Tiny":
    """A tiny Qwen3-Reranker, known by the name of its folder."""
    from support.tiny import causal_checkpoint

    return causal_checkpoint(tmp_path_factory.mktemp("models") / "Qwen3-Reranker-tiny")


@pytest.fixture
def reranker(tiny_qwen: "Tiny") -> Iterator["Reranker"]:
    from onelogit import Reranker

    with Reranker.load(tiny_qwen.folder) as reranker:
        yield reranker


@pytest.fixture
def checkpoint(tmp_path: Path) -> Callable[..., "Tiny"]:
    """Makes a tiny checkpoint in a folder of the given name, with further files."""
    from support.tiny import causal_checkpoint

    def make(name: str = "model", *args: object, **options: object) -> "Tiny":
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
