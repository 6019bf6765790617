"""Scored pairs -> ranked pairs."""

from onelogit.bulk.ranking import rank_table
from support.bulk_rows import (
    scored_table_of,
)


def test_equal_logits_keep_the_order_of_the_input_whatever_order_they_arrive_in():
    table = scored_table_of([("q", id, 1, 0.5, 0.5, None) for id in "cab"])

    assert rank_table(table.take([2, 0, 1]), "m")["document_id"].to_pylist() == ["c", "a", "b"]


def test_contradictions_are_errors_of_the_later_row():
    table = scored_table_of(
        [
            ("q", "a", 1, 0.1, 0.1, None),
            ("q", "a", 1, 0.9, 0.9, None),
            ("q", "b", 2, 0.9, 0.9, None),
            ("q", "c", 1, 0.2, 0.2, None),
        ]
    )

    ranked = rank_table(table, "m").to_pylist()

    assert [(row["document_id"], row["rank"], row["logit"] is None) for row in ranked] == [
        ("c", 1, False), ("a", 2, False), ("a", None, True), ("b", None, True),
    ]  # fmt: skip
    assert "this document_id" in ranked[2]["error"]
    assert "this query_id" in ranked[3]["error"]
