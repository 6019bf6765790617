"""A scheduler before a model that doubles numbers."""

from collections.abc import Iterator

import pytest

from onelogit.engine.scheduler import Scheduler
from support.scheduling import Model, scheduler_of


@pytest.fixture
def model() -> Model:
    return Model()


@pytest.fixture
def scheduler(model: Model) -> Iterator[Scheduler[int]]:
    scheduler = scheduler_of(model)
    yield scheduler
    scheduler.close()
