"""Figures of orders: worked out by hand; intervals that are paired and seeded; moves as the papers define them."""

import math
import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onelogit import InputError
from onelogit.evaluation.bootstrap import intervals
from onelogit.evaluation.data.dataset import JudgedQuery
from onelogit.evaluation.metrics import by_logit, figures, measures, shuffled
from onelogit.evaluation.pairwise import move, p_mrr


def judged(labels: dict[str, int], found: str = "abcdef", changed: dict[str, int] | None = None) -> JudgedQuery:
    return JudgedQuery(id="q", text="?", labels=labels, changed_labels=changed, found=tuple(found))


def of(order: str, labels: dict[str, int], *cutoffs: int) -> dict[str, float]:
    found = figures([judged(labels)], [order], measures(cutoffs))
    return {name: value for name, (value,) in found.items()}


def test_figures_are_what_one_works_out_by_hand():
    found = of("xaybz", {"a": 1, "b": 1, "c": 1}, 3)

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


def test_a_cutoff_counts_the_documents_in_front_of_it_and_no_more():
    labels = {"a": 1}

    assert of("xxa".replace("xx", "xy"), labels, 2)["MRR@2"] == 0
    assert of("xya", labels, 3)["MRR@3"] == pytest.approx(1 / 3)
    assert of("xya", labels, 2)["recall@2"] == of("xya", labels, 2)["nDCG@2"] == 0
    assert of("xya", labels, 3)["recall@3"] == 1


def test_graded_labels_count_for_ndcg_and_labels_below_one_for_nothing():
    labels = {"a": 1, "b": 3, "c": 0, "d": -1}

    assert of("ba", labels, 10)["nDCG@10"] == 1
    assert of("ab", labels, 10)["nDCG@10"] == pytest.approx((1 + 3 / math.log2(3)) / (3 + 1 / math.log2(3)), abs=1e-4)
    assert of("dcba", labels, 10)["MRR@10"] == pytest.approx(1 / 3)


def test_huge_cutoffs_and_empty_orders_are_fine():
    assert of("xa", {"a": 1}, 10**12)[f"recall@{10**12}"] == 1
    assert of("", {"a": 1}, 1, 5) == dict.fromkeys(
        ["nDCG@1", "MRR@1", "recall@1", "nDCG@5", "MRR@5", "recall@5", "MAP"], 0
    )


def test_a_long_order_is_cut_where_it_is_said():
    ids = [f"d{n}" for n in range(2000)]
    (found,) = figures([JudgedQuery(id="q", text="?", labels={"d1500": 1})], [ids], measures([1501]))["recall@1501"]

    assert found == 1
    (found,) = figures([JudgedQuery(id="q", text="?", labels={"d1500": 1})], [ids], measures([1500]))["recall@1500"]
    assert found == 0


def test_many_queries_keep_their_places():
    queries = [judged({"a": 1} if place % 3 else {"b": 1}) for place in range(2500)]

    found = figures(queries, ["ab"] * 2500, measures([1]))

    assert found["MRR@1"] == [1.0 if place % 3 else 0.0 for place in range(2500)]


@pytest.mark.parametrize("cutoffs", [(0,), (), (-1,), (3, 3), (True,)])
def test_cutoffs_are_different_counts(cutoffs: tuple[int, ...]):
    with pytest.raises(InputError):
        measures(cutoffs)


def test_equal_logits_keep_the_first_stages_order_also_in_the_figures():
    query = judged({"b": 1}, "zab")

    order = by_logit(query, [0.5, 0.5, 0.5])

    assert order == ["z", "a", "b"]
    assert figures([query], [order], measures([10]))["MRR@10"] == [pytest.approx(1 / 3)]
    assert by_logit(query, [0.1, 0.3, 0.2]) == ["a", "b", "z"]


def test_random_order_is_the_same_for_the_same_seed_and_no_other():
    queries = [JudgedQuery(id=str(n), text="?", labels={}, found=tuple("abcdef")) for n in range(9)]

    assert [*shuffled(queries, 1, 0)] == [*shuffled(queries, 1, 0)]
    assert [*shuffled(queries[3:], 1, 0)] == [*shuffled(queries, 1, 0)][3:]
    assert len({str([*shuffled(queries, *seeds)]) for seeds in [(1, 0), (2, 0), (1, 1)]}) == 3
    assert all(sorted(order) == [*"abcdef"] for order in shuffled(queries, 1, 0))


def test_an_interval_is_where_the_theory_says():
    chance = random.Random(3)
    values = [chance.gauss(0.2, 0.5) for _ in range(400)]

    (interval,) = intervals([values], seed=0)

    error = 1.96 * statistics.stdev(values) / math.sqrt(400)
    assert interval is not None
    assert interval.low == pytest.approx(statistics.mean(values) - error, abs=0.01)
    assert interval.high == pytest.approx(statistics.mean(values) + error, abs=0.01)


def test_intervals_of_differences_are_paired():
    """Two systems that differ by the same amount for every query differ by it without doubt."""
    chance = random.Random(3)
    before = [chance.random() for _ in range(50)]
    after = [value + 0.125 for value in before]

    differences = [b - a for a, b in zip(before, after, strict=True)]

    of_before, of_after, of_difference = intervals([before, after, differences], seed=1)

    assert of_before is not None
    assert of_after is not None
    assert of_difference == pytest.approx((0.125, 0.125))
    assert of_after.low - of_before.low == pytest.approx(0.125)
    assert of_before.high - of_before.low > 0.1


def test_intervals_come_of_their_seed_and_one_query_has_none():
    values = [math.sin(n) for n in range(40)]

    assert intervals([values], 1) == intervals([values], 1) != intervals([values], 2)
    assert intervals([[0.5], [0.1]], 1) == [None, None]
    assert intervals([], 1) == []


def test_many_queries_take_little_room():
    (interval,) = intervals([[float(n % 2) for n in range(20_000)]], 0)

    assert interval == pytest.approx((0.493, 0.507), abs=0.002)


def test_pairs_that_change_sides_are_counted():
    query = judged({"a": 1}, "abc")

    same = move(query, [3.0, 2.0, 1.0], [9.0, 5.0, 1.0])
    one = move(query, [3.0, 2.0, 1.0], [2.0, 3.0, 1.0])
    reverse = move(query, [3.0, 2.0, 1.0], [1.0, 2.0, 3.0])
    tied = move(query, [3.0, 2.0, 1.0], [1.0, 1.0, 1.0])

    assert (same, reverse) == ((0, pytest.approx(1), None), (1, pytest.approx(-1), None))
    assert one == (pytest.approx(1 / 3), pytest.approx(1 / 3), None)
    assert tied == (0, None, None)
    assert move(judged({"a": 1}, "a"), [1.0], [2.0]) is None


# From the paper's definition: the rank of the document before and after, and what it counts.
@pytest.mark.parametrize(
    ("before", "after", "value"), [(1, 4, 0.75), (2, 3, 1 / 3), (3, 3, 0), (4, 1, -0.75), (3, 2, -1 / 3)]
)
def test_p_mrr_rises_where_a_document_that_became_irrelevant_falls(before: int, after: int, value: float):
    orders = ["xyz"[: rank - 1] + "a" + "xyz"[rank - 1 :] for rank in (before, after)]
    query = judged({"a": 1, "x": 1}, changed={"a": 0, "x": 1})

    assert p_mrr(query, *orders) == pytest.approx(value)
    assert -1 < value < 1


def test_p_mrr_is_a_mean_over_documents_that_are_said_to_have_changed():
    labels, changed = {"a": 1, "b": 1, "c": 1, "d": 0}, {"a": 0, "b": 0, "d": 1}
    query = judged(labels, changed=changed)

    assert p_mrr(query, "abcd", "cdba") == pytest.approx(((1 - 1 / 4) + (1 - 2 / 3)) / 2)
    assert p_mrr(judged(labels), "abcd", "cdba") is None
    assert p_mrr(judged(labels, changed=labels), "abcd", "cdba") is None
    assert p_mrr(judged({"gone": 1}, changed={"gone": 0}), "abcd", "dcba") == 0


@given(st.lists(st.tuples(st.floats(-9, 9), st.floats(-9, 9)), min_size=2, max_size=9))
def test_what_moved_one_way_moves_the_other_way_as_much(logits: list[tuple[float, float]]):
    before, after = ([pair[side] for pair in logits] for side in (0, 1))
    query = judged({"a": 1}, "abcdefghi"[: len(logits)])

    there, back = move(query, before, after), move(query, after, before)

    assert there is not None
    assert back is not None
    assert 0 <= there.flipped <= 1
    assert there.flipped == back.flipped
    assert there.kendall_tau == pytest.approx(back.kendall_tau)
