"""Settings and fixtures of all tests: no network, no progress bars, and checkpoints that are created once.

The whole suite is distributed over one process per core, file by file. The process that distributes it also runs this
file, so slow imports are inside functions.
"""

import gc
import logging
import os
import secrets

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "true"
os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "false"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_AUTH_MODE"] = "token"  # Ray reads it when it is imported
os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
os.environ["RAY_DATA_PARQUET_FOOTER_NUM_ACTORS"] = "1"  # by default, 32 processes read the footer of a small file

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from onelogit.recipes.families import FAMILIES

if TYPE_CHECKING:
    from onelogit import Reranker
    from support.tiny import Tiny

# Slowest first: the other cores would wait for a slow file that starts last.
LONGEST = ("test_ray.py", "test_pages.py", "test_compile.py", "test_benchmarks.py", "test_bench.py", "test_export.py")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """No workers if files are named, which starts sooner and allows debugging. Each worker takes 1.5 GB."""
    is_whole = not all(Path(argument.partition("::")[0]).is_file() for argument in config.args)
    cores = os.cpu_count() or 1
    return min(cores, 4) if is_whole and cores > 1 else 0


def pytest_configure(config: pytest.Config) -> None:
    is_distributing = config.getoption("numprocesses", None) and not hasattr(config, "workerinput")
    if not is_distributing:
        prepare()


def prepare() -> None:
    """Set up a process that runs tests."""
    import torch
    from hypothesis import settings
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    torch.set_num_threads(1)  # tiny models do not benefit from more, and test runs may share a machine
    settings.register_profile("shared machine", deadline=None)  # a slow machine is not a failure
    settings.load_profile("shared machine")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(LONGEST)))


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()  # exempts the half million objects of imported modules from garbage collection


@pytest.fixture(autouse=True)
def default_levels_of_loggers() -> None:
    """Each test starts with the levels that Python starts with: libraries set that of the root logger, and leave it."""
    logging.getLogger().setLevel(logging.WARNING)
    logging.getLogger("onelogit").setLevel(logging.NOTSET)


@pytest.fixture(scope="session")
def tiny_qwen(tmp_path_factory: pytest.TempPathFactory) -> "Tiny":
    """A tiny Qwen3-Reranker, recognised by its base model."""
    from support.tiny import causal_checkpoint

    card = "---\nbase_model: Qwen/Qwen3-Reranker-0.6B\n---\n"
    return causal_checkpoint(tmp_path_factory.mktemp("models") / "Qwen3-Reranker-tiny", files={"README.md": card})


@pytest.fixture
def reranker(tiny_qwen: "Tiny") -> Iterator["Reranker"]:
    from onelogit import Reranker

    with Reranker.load(tiny_qwen.folder) as reranker:
        yield reranker


@pytest.fixture
def checkpoint(tmp_path: Path) -> Callable[..., "Tiny"]:
    """A function that creates a tiny checkpoint in a folder of the given name, with more files."""
    from support.tiny import causal_checkpoint

    def make(name: str = "model", *args: object, **options: object) -> "Tiny":
        return causal_checkpoint(tmp_path / name, *args, **options)  # type: ignore[arg-type]

    return make


@pytest.fixture(params=FAMILIES, ids=lambda recipe: recipe.family)
def any_family(request: pytest.FixtureRequest) -> object:
    return request.param


@pytest.fixture(params=[each for each in FAMILIES if each.read_out is not None], ids=lambda recipe: recipe.family)
def family(request: pytest.FixtureRequest) -> object:
    """A family of causal models; the others have a head of their own."""
    return request.param


@pytest.fixture(scope="session")
def template() -> str:
    """A generic chat template."""
    return (
        '{% for message in messages %}{% if message.role != "system" %}'
        "<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
        "{% endif %}{% endfor %}<|im_start|>assistant\n\n"
    )
