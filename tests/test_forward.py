"""Batches: every row once, within the budget, and each logit as if its row were alone."""

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, Phi3Config

from onelogit import Reranker
from onelogit.forward import compute_logits, plan_batches
from onelogit.recipes import FAMILIES
from tiny import byte_level_tokenizer


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


def test_a_long_row_does_not_change_the_rotary_embedding_of_a_short_one(tmp_path: Path):
    """Phi-3's kind switches its factors where the longest row of a batch passes the original context."""
    tokenizer = byte_level_tokenizer()
    rope = {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "short_factor": [1.0] * 16,
        "long_factor": [3.0 + n for n in range(16)],
        "original_max_position_embeddings": 256,
    }
    config = Phi3Config(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=2048,
        original_max_position_embeddings=256,
        rope_parameters=rope,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        initializer_range=0.3,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    recipe = next(recipe for recipe in FAMILIES if recipe.family == "zerank-1")
    reranker = Reranker.load(tmp_path, recipe=recipe)
    documents = ["short", "a long document " * 60]

    together = reranker.logits("a query", documents)

    assert together == [reranker.logits("a query", [text])[0] for text in documents]
