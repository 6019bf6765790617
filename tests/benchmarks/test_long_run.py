"""The long run notices wrong and lost answers, and what grows."""

from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def long_run(scripts: None) -> ModuleType:
    import long_run

    return long_run


def test_a_wrong_and_a_short_answer_are_counted(long_run: ModuleType):
    outcomes, case = long_run.Outcomes(), long_run.Case("query", ["a", "b"], None, [1.0, -2.0])

    outcomes.check(case, [1.00001, -2.0], "plain, threads")
    outcomes.check(case, [1.0, -2.1], "plain, threads")
    outcomes.check(case, [1.0], "plain, coroutines")

    assert outcomes.counts == {"plain, threads": 2, "plain, coroutines": 1, "documents": 5, "wrong": 2}
    assert outcomes.worst == pytest.approx(0.1)
    assert outcomes.faults[-1] == "plain, coroutines: 1 of 2 logits, off by up to 0"


def test_what_grows_after_the_first_minute_is_found(long_run: ModuleType):
    names = ("resident_bytes", "threads", "system_threads", "files", "sockets")
    samples = [{"seconds": 5.0 * n, **dict.fromkeys(names, 100 if n > 12 else 50 * n)} for n in range(1, 100)]
    held = long_run.growth(samples)
    assert {held[name]["growth"] for name in names} == {0}

    leaking = [{**each, "sockets": index} for index, each in enumerate(samples)]
    assert long_run.growth(leaking)["sockets"]["growth"] > 50


def test_calls_are_mixed_and_computed_alone(long_run: ModuleType):
    from onelogit import DEMO_MODEL, Reranker

    with Reranker.load(DEMO_MODEL) as reranker:
        cases = long_run.make_cases(reranker, 6, seed=3)

    assert len({len(case.documents) for case in cases}) > 1
    assert len({case.instruction for case in cases}) > 1
    assert all(len(case.logits) == len(case.documents) for case in cases)
