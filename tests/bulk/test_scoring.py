"""Pairs -> results: an error stays with the pair that causes it."""

from collections.abc import Sequence
from typing import Any

import pytest

from onelogit import LogitError, OnelogitError, Reranker
from onelogit.bulk.input_rows import ScoringPair
from onelogit.bulk.scoring import score_pairs
from support.tiny import Tiny


class RecordingReranker:
    """A reranker that records the sizes of its calls, and fails for certain documents."""

    def __init__(self, reranker: Reranker) -> None:
        self.activation = reranker.activation
        self.call_sizes: list[int] = []
        self._reranker = reranker

    def pair_logits(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        self.call_sizes.append(len(pairs))
        for _, document in pairs:
            if document == "NaN":
                raise LogitError("the logit of document 0 is nan")
            if document == "poison":
                raise RuntimeError("a poisoned\nrow")
        return self._reranker.pair_logits(pairs)


def test_a_failing_pair_does_not_affect_the_others(reranker: Reranker):
    pairs = [
        ScoringPair("q", str(index), "q", text) for index, text in enumerate(["a", "NaN", "b", "poison", "c", "d"])
    ]

    scored = score_pairs(RecordingReranker(reranker), pairs)  # type: ignore[arg-type]

    assert [each.error for each in scored] == [
        None, "the logit of document 0 is nan", None, "a poisoned row", None, None,
    ]  # fmt: skip
    fine = [each.logit for each in scored if each.error is None]
    assert fine == pytest.approx(reranker.logits("q", ["a", "b", "c", "d"]), abs=1e-5)


def test_a_query_that_is_too_long_is_an_error_of_its_own_pairs(tiny_qwen: Tiny):
    reranker = Reranker.load(tiny_qwen.folder, max_tokens=300)

    scored = score_pairs(reranker, [ScoringPair("1", "0", "short", "a"), ScoringPair("2", "0", "long " * 500, "a")])

    assert scored[0].error is None
    assert "leaves no room for a document in max_tokens=300" in str(scored[1].error)


def test_an_error_of_the_reranker_itself_is_raised(tiny_qwen: Tiny):
    reranker = Reranker.load(tiny_qwen.folder)
    reranker.close()

    with pytest.raises(OnelogitError, match="closed"):
        score_pairs(reranker, [ScoringPair("1", "0", "q", "a")])


def test_a_query_with_ten_thousand_documents_is_scored_in_several_calls(reranker: Reranker):
    recording = RecordingReranker(reranker)
    recording.pair_logits = lambda pairs: (recording.call_sizes.append(len(pairs)), [0.0] * len(pairs))[1]  # type: ignore[method-assign]

    scored = score_pairs(recording, [ScoringPair("q", str(index), "q", "d") for index in range(10_000)])  # type: ignore[arg-type]

    assert len(scored) == sum(recording.call_sizes) == 10_000
    assert max(recording.call_sizes) <= 1024


@pytest.mark.parametrize("activation", ["identity", "sigmoid"])
def test_the_score_is_on_the_scale_of_the_reranker(activation: Any, tiny_qwen: Tiny):
    reranker = Reranker.load(tiny_qwen.folder, activation=activation)
    (ranked,) = reranker.rank("q", ["a"])

    assert score_pairs(reranker, [ScoringPair("q", "0", "q", "a")])[0] == (ranked.logit, ranked.score, None)
