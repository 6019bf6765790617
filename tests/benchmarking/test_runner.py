"""Which calls a benchmark makes, in which order, and which it leaves out. No test here reads a clock."""

from collections.abc import Sequence

import pytest

from onelogit.benchmarking.benchmark import check_lengths
from onelogit.benchmarking.runner import WAKE_UP_TEXT, Case
from onelogit.benchmarking.targets import TimedCall
from onelogit.errors import InputError
from support.benchmark_targets import FakeTarget, result, runner


def test_all_targets_get_the_same_calls_and_no_text_twice():
    ours, theirs = FakeTarget("a", 1.0), FakeTarget("b", 2.0)

    runner(ours, theirs).measure([Case(1), Case(4)])

    documents = [document for _, called in ours.calls for document in called]
    assert ours.calls == theirs.calls
    assert len(ours.calls) == 2 * (1 + 3)  # each case is warmed up once
    assert len(set(documents)) == len(documents) == 1 + 3 * 1 + 4 + 3 * 4
    assert len({query for query, _ in ours.calls}) == 8


def test_warm_calls_have_the_same_documents_and_another_query():
    ours = FakeTarget("a", 1.0)

    runner(ours, is_warm=True).measure([Case(4)])

    assert len({documents for _, documents in ours.calls}) == 1
    assert len({query for query, _ in ours.calls}) == 4


def test_an_idle_target_is_woken_before_each_timed_call_and_that_is_not_timed():
    ours, theirs = FakeTarget("a", 1.0), FakeTarget("b", 2.0)

    (case,) = runner(ours, theirs).measure([Case(4)])

    for target in (ours, theirs):
        assert [query == WAKE_UP_TEXT for query, _ in target.all_calls] == [False, *[True, False] * 3]
        waking = [documents for query, documents in target.all_calls if query == WAKE_UP_TEXT]
        assert len(set(waking)) == 3
        assert all(len(documents) == 1 for documents in waking)
    assert [each.calls for each in case.targets] == [3, 3]
    assert max(each.greatest_s for each in case.targets) == 8.0


def test_a_single_target_is_not_woken():
    alone = FakeTarget("a", 1.0)

    runner(alone).measure([Case(4)])

    assert alone.all_calls == alone.calls


def test_each_round_starts_with_another_target():
    order: list[str] = []

    class RecordingTarget(FakeTarget):
        def time(self, query: str, documents: Sequence[str]) -> TimedCall:
            if query != WAKE_UP_TEXT:
                order.append(self.name)
            return super().time(query, documents)

    runner(RecordingTarget("a", 1.0), RecordingTarget("b", 1.0), repeats=4).measure([Case(1)])

    assert order == ["a", "b", *"abbaabba"]


def test_a_case_that_does_not_fit_into_the_budget_is_left_out_with_the_reason():
    slow = FakeTarget("a", 1.0)

    small, large = runner(slow, seconds=30, repeats=2).measure([Case(1), Case(1000)])

    assert small.targets[0].calls == 2
    assert large.targets == ()
    assert large.left_out is not None
    assert "would take about 1000 s" in large.left_out
    assert len(slow.calls) == 3


def test_a_case_is_measured_once_if_there_is_no_time_for_more():
    (case,) = runner(FakeTarget("a", 1.0), seconds=1e-9, repeats=9).measure([Case(3)])

    assert case.targets[0].calls == 1
    assert case.targets[0].p50_s is None


def test_the_largest_difference_between_logits_is_reported():
    assert [case.largest_difference for case in result().cases] == [0.25, 0.25]


def test_lengths_that_leave_no_room_or_cannot_be_counted_are_refused():
    with pytest.raises(InputError, match="documents of 64 tokens leave no room for a query"):
        check_lengths([Case(1, 8), Case(1, 64)], 64, has_tokenizer=True)
    with pytest.raises(InputError, match="needs the tokenizer of the"):
        check_lengths([Case(1, 8)], None, has_tokenizer=False)
    check_lengths([Case(1)], None, has_tokenizer=False)
