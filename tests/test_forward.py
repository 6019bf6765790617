"""Batches: every row once, within the budget, and each logit as if its row were alone."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onelogit import Reranker
from onelogit.forward import compute_logits, plan_batches


@given(lengths=st.lists(st.integers(1, 50)), batch_tokens=st.integers(1, 120))
def test_every_row_stands_in_one_batch_that_fits(lengths: list[int], batch_tokens: int):
    batches = plan_batches(lengths, batch_tokens)

    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    assert all(len(batch) == 1 or len(batch) * max(lengths[row] for row in batch) <= batch_tokens for batch in batches)


@given(lengths=st.lists(st.integers(1, 50), min_size=1))
def test_rows_of_like_length_stand_together(lengths: list[int]):
    order = [lengths[row] for batch in plan_batches(lengths, 60) for row in batch]

    assert order == sorted(lengths, reverse=True)


@pytest.mark.parametrize("batch_tokens", [1, 50, 10_000])
def test_a_rows_logit_does_not_depend_on_its_batch(reranker: Reranker, batch_tokens: int):
    chance = random.Random(1)
    rows = [[chance.randrange(300) for _ in range(chance.randint(1, 60))] for _ in range(30)]
    alone = [compute_logits(reranker.classifier, [row])[0] for row in rows]

    together = compute_logits(reranker.classifier, rows, batch_tokens)

    assert together == pytest.approx(alone, abs=1e-5)


def test_identical_rows_are_computed_once(reranker: Reranker):
    rows = [[1, 2, 3], [4, 5], [1, 2, 3], [1, 2, 3]]
    seen = []
    hook = reranker.classifier.base_model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["input_ids"].numel()), with_kwargs=True
    )

    logits = compute_logits(reranker.classifier, rows, batch_tokens=1)

    hook.remove()
    assert sorted(seen) == [2, 3]
    assert logits[0] == logits[2] == logits[3] != logits[1]


def test_progress_counts_every_row(reranker: Reranker):
    done = []

    compute_logits(reranker.classifier, [[1], [2, 3], [1]], batch_tokens=2, on_progress=done.append)

    assert sum(done) == 3
