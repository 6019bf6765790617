"""Logits -> a ranking."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onelogit import InputError, LogitError
from onelogit.ranking import best_logits, rank_logits, to_score
from onelogit.validation import check_score_threshold, check_top_n

LOGITS = st.lists(st.floats(-1e4, 1e4, width=32))


@given(logits=LOGITS)
def test_a_ranking_contains_every_document_once_best_first(logits: list[float]):
    ranking = rank_logits(logits, "sigmoid")

    assert sorted(ranked.index for ranked in ranking) == list(range(len(logits)))
    assert [ranked.logit for ranked in ranking] == sorted(logits, reverse=True)
    assert all(0 <= ranked.score <= 1 for ranked in ranking)


def test_equal_logits_keep_their_order():
    assert [ranked.index for ranked in rank_logits([1.0, 2.0, 1.0, 2.0, 1.0], "identity")] == [1, 3, 0, 2, 4]


def test_a_saturated_sigmoid_does_not_cause_ties():
    assert [ranked.index for ranked in rank_logits([50.0, 51.0, 800.0], "sigmoid")] == [2, 1, 0]


@pytest.mark.parametrize(("logit", "score"), [(0.0, 0.5), (math.log(3), 0.75), (-1000.0, 0.0), (1000.0, 1.0)])
def test_the_score_is_the_sigmoid(logit: float, score: float):
    assert to_score(logit, "sigmoid") == pytest.approx(score)


def test_the_threshold_applies_to_the_score_and_before_top_n():
    logits = [0.0, 3.0, -3.0, 1.0]

    assert [ranked.index for ranked in rank_logits(logits, "sigmoid", score_threshold=0.5)] == [1, 3, 0]
    assert [ranked.index for ranked in rank_logits(logits, "sigmoid", 2, 0.5)] == [1, 3]
    assert [ranked.index for ranked in rank_logits(logits, "identity", score_threshold=0.0)] == [1, 3, 0]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_logit_that_is_not_finite_is_an_error_that_names_the_document(bad: float):
    with pytest.raises(LogitError, match="document 2"):
        rank_logits([1.0, 2.0, bad], "identity")


@pytest.mark.parametrize("top_n", [0, -1, 1.5, True, "3"])
def test_a_top_n_that_is_not_a_positive_integer_is_refused(top_n: object):
    with pytest.raises(InputError, match="top_k must be a whole number from 1 up"):
        check_top_n(top_n, "top_k")


@pytest.mark.parametrize("threshold", [math.nan, "0.5", True])
def test_a_threshold_that_is_not_a_number_is_refused(threshold: object):
    with pytest.raises(InputError, match="score_threshold must be a number"):
        check_score_threshold(threshold)


@given(chunks=st.lists(st.lists(st.floats(-50, 50), min_size=1, max_size=4), max_size=5))
def test_the_logit_of_a_document_is_the_highest_of_its_rows(chunks: list[list[float]]):
    owners = [owner for owner, logits in enumerate(chunks) for _ in logits]

    assert best_logits([logit for logits in chunks for logit in logits], owners) == [max(logits) for logits in chunks]


@pytest.mark.parametrize("order", [1, -1])
def test_a_row_that_is_not_finite_is_an_error_that_names_the_document(order: int):
    with pytest.raises(LogitError, match="document 1 is nan"):
        best_logits([0.0, *[math.nan, 1.0][::order]], [0, 1, 1])
