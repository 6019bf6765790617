"""Percentiles, ratios and noise from durations of calls. No test here reads a clock."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onelogit.benchmarking.latency import Ratio, is_noisy, percentile, summarize


@given(seconds=st.lists(st.floats(0.001, 1000), min_size=100, max_size=300))
def test_a_percentile_has_as_many_calls_below_it(seconds: list[float]):
    for percent in (50, 95, 99):
        value = percentile(seconds, percent)

        assert value is not None
        assert sum(each <= value * 1.000001 for each in seconds) >= len(seconds) * percent / 100 - 1
        assert sum(each >= value * 0.999999 for each in seconds) >= len(seconds) * (100 - percent) / 100 - 1


def test_percentiles_of_known_times():
    seconds = [float(each) for each in range(101)]

    assert [percentile(seconds, percent) for percent in (50, 95, 99)] == [50.0, 95.0, 99.0]


@pytest.mark.parametrize(("percent", "fewest"), [(50, 2), (95, 20), (99, 100)])
def test_a_percentile_needs_calls_beyond_it(percent: int, fewest: int):
    assert percentile([1.0] * (fewest - 1), percent) is None
    assert percentile([1.0] * fewest, percent) == 1.0


def test_a_ratio_is_the_median_call_by_call_of_how_many_times_as_fast_the_first_target_is():
    first, other = (1.0, 2.0, 4.0), (3.0, 4.0, 20.0)

    summary = summarize("other", other, 10, [100, 100, 100], first)

    assert summary.times_as_fast == Ratio(3.0, 2.0, 5.0)
    assert summary.p50_s == 4.0
    assert summary.pairs_per_s == 2.5
    assert summary.tokens_per_s == pytest.approx(25.0)
    assert summarize("onelogit", first, 10, [100] * 3).times_as_fast is None


def test_unknown_tokens_are_not_guessed():
    assert summarize("a server", (1.0, 2.0), 10, [None, 100]).tokens_per_s is None


def test_times_that_grow_with_the_texts_are_not_noise():
    seconds = (1.0, 2.0, 4.0)

    assert summarize("onelogit", seconds, 1, [100, 200, 400]).is_noisy is False
    assert summarize("onelogit", seconds, 1, [100, 100, 100]).is_noisy is True


def test_a_peer_is_noisy_if_its_ratio_to_the_first_target_varies():
    first = (1.0, 2.0, 4.0)

    assert summarize("steady", (1.0, 1.0, 1.0), 1, [100] * 3, first).is_noisy is True
    assert summarize("proportional", (2.0, 4.0, 8.0), 1, [100] * 3, first).is_noisy is False


def test_one_slow_call_in_many_is_not_noise_but_half_of_them_are():
    assert is_noisy([1.0] * 20 + [9.0]) is False
    assert is_noisy([1.0, 2.0] * 10) is True
    assert is_noisy([1.0, 1.0, 9.0]) is True
    assert is_noisy([1.0]) is None
