"""Pairs -> their logits and scores, by one reranker. A pair that cannot be scored does not affect the others."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, cast

from onelogit.bulk.input_rows import ScoringPair
from onelogit.errors import InputError, LogitError
from onelogit.ranking import to_score
from onelogit.recipes.recipe import Activation

if TYPE_CHECKING:
    from onelogit.registry import AnyReranker

_MAX_PAIRS_PER_CALL = 1024  # limits the token ids in memory for a query with many documents


class PairResult(NamedTuple):
    """A logit and a score, or an error."""

    logit: float | None = None
    score: float | None = None
    error: str | None = None


def score_pairs(reranker: "AnyReranker", pairs: Sequence[ScoringPair]) -> list[PairResult]:
    """The result of each pair, in the given order. A pair with an error is not scored and keeps its error.

    Raises:
        Exception: the reranker's error, if it cannot score any pair.
    """
    texts = [(pair.query, pair.document) for pair in pairs if pair.error is None]
    starts = range(0, len(texts), _MAX_PAIRS_PER_CALL)
    outcomes = iter([each for start in starts for each in _outcomes(reranker, texts[start:][:_MAX_PAIRS_PER_CALL])])
    return [pair_result(next(outcomes) if pair.error is None else pair.error, reranker.activation) for pair in pairs]


def pair_result(outcome: float | str, activation: Activation) -> PairResult:
    """The result for a logit, or for an error, written on one line of valid UTF-8."""
    if isinstance(outcome, str):
        return PairResult(error=" ".join(outcome.encode("utf-8", "backslashreplace").decode().split()))
    return PairResult(outcome, to_score(outcome, activation))


def _outcomes(reranker: "AnyReranker", pairs: list[tuple[str, str]]) -> list[float | str]:
    """The logit or the error of each pair; a list that fails is halved until only the failing pair is left."""
    try:
        return cast("list[float | str]", reranker.pair_logits(pairs))
    except Exception as error:
        if not isinstance(error, InputError | LogitError):
            reranker.pair_logits([("warm up", "warm up")])  # raises if the model, device or server fails, not the pair
        if len(pairs) == 1:
            return [str(error) or type(error).__name__]
    half = len(pairs) // 2
    return [*_outcomes(reranker, pairs[:half]), *_outcomes(reranker, pairs[half:])]
