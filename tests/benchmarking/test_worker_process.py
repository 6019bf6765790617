"""Errors and ends of worker processes."""

import pytest

from onelogit import OnelogitError
from onelogit.benchmarking.worker_process import WorkerProcess, _outcome
from onelogit.errors import InputError
from support.failing_target import FailingTarget


def test_a_process_that_fails_or_ends_raises_an_onelogit_error():
    process = WorkerProcess("a worker", FailingTarget)

    with pytest.raises(OnelogitError, match="RuntimeError: it broke"):
        process.call("fail")
    with pytest.raises(
        OnelogitError, match=r"the process of a worker ended with code -9; the system may have killed it"
    ):
        process.call("time", "query", [])
    with pytest.raises(OnelogitError, match="ended"):
        process.call("time", "query", [])
    process.close()


def test_onelogit_errors_keep_their_type_and_others_become_one_line():
    def refuse() -> None:
        raise InputError("it must be a string")

    assert type(_outcome(refuse)[1]) is InputError
    assert str(_outcome(FailingTarget().fail)[1]) == "RuntimeError: it broke"
    assert _outcome(lambda: 5) == (5, None)
