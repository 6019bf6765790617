"""Metrics equal values computed by hand; intervals are paired and seeded; comparisons follow the papers."""

import math
import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onelogit import InputError
from onelogit.evaluation.bootstrap import ConfidenceInterval, estimate_means
from onelogit.evaluation.data.dataset import LabelledQuery
from onelogit.evaluation.metrics import compute_metrics, metrics_at, shuffled, sort_by_logit
from onelogit.evaluation.pairwise import compare_rankings, p_mrr


def labelled(labels: dict[str, int], found: str = "abcdef", changed: dict[str, int] | None = None) -> LabelledQuery:
    return LabelledQuery(id="q", text="?", labels=labels, changed_labels=changed, candidates=tuple(found))


def confidence_intervals(columns: list[list[float]], seed: int) -> list[ConfidenceInterval | None]:
    return [estimate.interval for estimate in estimate_means(columns, seed)]


def metrics_of(order: str, labels: dict[str, int], *cutoffs: int) -> dict[str, float]:
    found = compute_metrics([labelled(labels)], [order], metrics_at(cutoffs))
    return {name: value for name, (value,) in found.items()}


def test_metrics_equal_values_computed_by_hand():
    found = metrics_of("xaybz", {"a": 1, "b": 1, "c": 1}, 3)

    ideal = 1 + 1 / math.log2(3) + 1 / math.log2(4)
    assert found == pytest.approx(
        {
            "nDCG@3": 1 / math.log2(3) / ideal,
            "MRR@3": 1 / 2,
            "recall@3": 1 / 3,
            "MAP": (1 / 2 + 2 / 4) / 3,
        },
        abs=1e-4,
    )


def test_only_documents_up_to_the_cutoff_count():
    labels = {"a": 1}

    assert metrics_of("xxa".replace("xx", "xy"), labels, 2)["MRR@2"] == 0
    assert metrics_of("xya", labels, 3)["MRR@3"] == pytest.approx(1 / 3)
    assert metrics_of("xya", labels, 2)["recall@2"] == metrics_of("xya", labels, 2)["nDCG@2"] == 0
    assert metrics_of("xya", labels, 3)["recall@3"] == 1


def test_graded_labels_count_for_ndcg_and_labels_below_one_do_not_count():
    labels = {"a": 1, "b": 3, "c": 0, "d": -1}

    assert metrics_of("ba", labels, 10)["nDCG@10"] == 1
    assert metrics_of("ab", labels, 10)["nDCG@10"] == pytest.approx(
        (1 + 3 / math.log2(3)) / (3 + 1 / math.log2(3)), abs=1e-4
    )
    assert metrics_of("dcba", labels, 10)["MRR@10"] == pytest.approx(1 / 3)


def test_huge_cutoffs_and_empty_rankings_are_accepted():
    assert metrics_of("xa", {"a": 1}, 10**12)[f"recall@{10**12}"] == 1
    assert metrics_of("", {"a": 1}, 1, 5) == dict.fromkeys(
        ["nDCG@1", "MRR@1", "recall@1", "nDCG@5", "MRR@5", "recall@5", "MAP"], 0
    )


def test_a_long_ranking_is_cut_at_the_cutoff():
    ids = [f"d{n}" for n in range(2000)]
    query = LabelledQuery(id="q", text="?", labels={"d1500": 1})

    assert compute_metrics([query], [ids], metrics_at([1501]))["recall@1501"] == [1]
    assert compute_metrics([query], [ids], metrics_at([1500]))["recall@1500"] == [0]


def test_values_of_many_queries_keep_their_order():
    queries = [labelled({"a": 1} if place % 3 else {"b": 1}) for place in range(2500)]

    found = compute_metrics(queries, ["ab"] * 2500, metrics_at([1]))

    assert found["MRR@1"] == [1.0 if place % 3 else 0.0 for place in range(2500)]


@pytest.mark.parametrize("cutoffs", [(0,), (), (-1,), (3, 3), (True,)])
def test_cutoffs_must_be_different_positive_integers(cutoffs: tuple[int, ...]):
    with pytest.raises(InputError):
        metrics_at(cutoffs)


def test_equal_logits_keep_the_first_stages_order_also_in_the_metrics():
    query = labelled({"b": 1}, "zab")

    order = sort_by_logit(query, [0.5, 0.5, 0.5])

    assert order == ["z", "a", "b"]
    assert compute_metrics([query], [order], metrics_at([10]))["MRR@10"] == [pytest.approx(1 / 3)]
    assert sort_by_logit(query, [0.1, 0.3, 0.2]) == ["a", "b", "z"]


def test_random_order_depends_on_the_seed_alone():
    queries = [LabelledQuery(id=str(n), text="?", labels={}, candidates=tuple("abcdef")) for n in range(9)]

    assert [*shuffled(queries, 1, 0)] == [*shuffled(queries, 1, 0)]
    assert [*shuffled(queries[3:], 1, 0)] == [*shuffled(queries, 1, 0)][3:]
    assert len({str([*shuffled(queries, *seeds)]) for seeds in [(1, 0), (2, 0), (1, 1)]}) == 3
    assert all(sorted(order) == [*"abcdef"] for order in shuffled(queries, 1, 0))


def test_an_interval_agrees_with_the_normal_approximation():
    chance = random.Random(3)
    values = [chance.gauss(0.2, 0.5) for _ in range(400)]

    (interval,) = confidence_intervals([values], seed=0)

    error = 1.96 * statistics.stdev(values) / math.sqrt(400)
    assert interval is not None
    assert interval.low == pytest.approx(statistics.mean(values) - error, abs=0.01)
    assert interval.high == pytest.approx(statistics.mean(values) + error, abs=0.01)


def test_intervals_of_differences_are_paired():
    """If two systems differ by the same amount for every query, the interval of the difference has no width."""
    chance = random.Random(3)
    before = [chance.random() for _ in range(50)]
    after = [value + 0.125 for value in before]

    differences = [b - a for a, b in zip(before, after, strict=True)]

    of_before, of_after, of_difference = confidence_intervals([before, after, differences], seed=1)

    assert of_before is not None
    assert of_after is not None
    assert of_difference == pytest.approx((0.125, 0.125))
    assert of_after.low - of_before.low == pytest.approx(0.125)
    assert of_before.high - of_before.low > 0.1


def test_intervals_depend_on_the_seed_and_one_query_has_none():
    values = [math.sin(n) for n in range(40)]

    assert confidence_intervals([values], 1) == confidence_intervals([values], 1) != confidence_intervals([values], 2)
    assert confidence_intervals([[0.5], [0.1]], 1) == [None, None]
    assert confidence_intervals([], 1) == []


def test_many_queries_need_little_memory():
    (interval,) = confidence_intervals([[float(n % 2) for n in range(20_000)]], 0)

    assert interval == pytest.approx((0.493, 0.507), abs=0.002)


def test_flipped_pairs_are_counted():
    query = labelled({"a": 1}, "abc")

    same = compare_rankings(query, [3.0, 2.0, 1.0], [9.0, 5.0, 1.0])
    one = compare_rankings(query, [3.0, 2.0, 1.0], [2.0, 3.0, 1.0])
    reverse = compare_rankings(query, [3.0, 2.0, 1.0], [1.0, 2.0, 3.0])
    tied = compare_rankings(query, [3.0, 2.0, 1.0], [1.0, 1.0, 1.0])

    assert (same, reverse) == ((0, pytest.approx(1), None), (1, pytest.approx(-1), None))
    assert one == (pytest.approx(1 / 3), pytest.approx(1 / 3), None)
    assert tied == (0, None, None)
    assert compare_rankings(labelled({"a": 1}, "a"), [1.0], [2.0]) is None


# From the paper's definition: the rank of the document before and after, and its p-MRR.
@pytest.mark.parametrize(
    ("before", "after", "value"), [(1, 4, 0.75), (2, 3, 1 / 3), (3, 3, 0), (4, 1, -0.75), (3, 2, -1 / 3)]
)
def test_p_mrr_is_positive_if_a_document_that_became_irrelevant_falls(before: int, after: int, value: float):
    orders = ["xyz"[: rank - 1] + "a" + "xyz"[rank - 1 :] for rank in (before, after)]
    query = labelled({"a": 1, "x": 1}, changed={"a": 0, "x": 1})

    assert p_mrr(query, *orders) == pytest.approx(value)
    assert -1 < value < 1


def test_p_mrr_is_a_mean_over_documents_that_became_irrelevant():
    labels, changed = {"a": 1, "b": 1, "c": 1, "d": 0}, {"a": 0, "b": 0, "d": 1}
    query = labelled(labels, changed=changed)

    assert p_mrr(query, "abcd", "cdba") == pytest.approx(((1 - 1 / 4) + (1 - 2 / 3)) / 2)
    assert p_mrr(labelled(labels), "abcd", "cdba") is None
    assert p_mrr(labelled(labels, changed=labels), "abcd", "cdba") is None
    assert p_mrr(labelled({"gone": 1}, changed={"gone": 0}), "abcd", "dcba") == 0


@given(st.lists(st.tuples(st.floats(-9, 9), st.floats(-9, 9)), min_size=2, max_size=9))
def test_flipped_pairs_and_kendall_tau_are_symmetric(logits: list[tuple[float, float]]):
    before, after = ([pair[side] for pair in logits] for side in (0, 1))
    query = labelled({"a": 1}, "abcdefghi"[: len(logits)])

    forward, backward = compare_rankings(query, before, after), compare_rankings(query, after, before)

    assert forward is not None
    assert backward is not None
    assert 0 <= forward.flipped <= 1
    assert forward.flipped == backward.flipped
    assert forward.kendall_tau == pytest.approx(backward.kendall_tau)
