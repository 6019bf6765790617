"""A scheduler before a model that doubles numbers."""

from collections.abc import Iterator

import pytest

from support.scheduling import DirectScheduler, Model, scheduler_of


@pytest.fixture
def model() -> Model:
    return Model()


@pytest.fixture
def scheduler(model: Model) -> Iterator[DirectScheduler]:
    scheduler = scheduler_of(model)
    yield scheduler
    scheduler.close()
