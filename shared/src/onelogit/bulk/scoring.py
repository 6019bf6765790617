"""Pairs -> their logits and scores, through one reranker. A pair that cannot be scored takes no other with it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, cast

from onelogit.bulk.input_rows import ScoringPair
from onelogit.errors import InputError, LogitError
from onelogit.ranking import to_score
from onelogit.recipes.recipe import Activation

if TYPE_CHECKING:
    from onelogit.registry import AnyReranker

_PAIRS_TOGETHER = 1024  # so many of a query that has more are in memory as token ids at once


class Scored(NamedTuple):
    """What became of a pair: a logit and a score, or an error."""

    logit: float | None = None
    score: float | None = None
    error: str | None = None


def score_pairs(reranker: "AnyReranker", pairs: Sequence[ScoringPair]) -> list[Scored]:
    """What becomes of each pair, in the given order.

    Args:
        reranker: of this process, or a server.
        pairs: those with an error keep it.

    Raises:
        Exception: whatever the reranker raises that it raises for any other pair, too.
    """
    fit = [(pair.query, pair.document) for pair in pairs if pair.error is None]
    starts = range(0, len(fit), _PAIRS_TOGETHER)
    outcomes = iter([outcome for start in starts for outcome in _outcomes(reranker, fit[start:][:_PAIRS_TOGETHER])])
    return [scored(next(outcomes) if pair.error is None else pair.error, reranker.activation) for pair in pairs]


def scored(outcome: float | str, activation: Activation) -> Scored:
    """A logit with its score, or an error as one line that any file can hold."""
    if isinstance(outcome, str):
        return Scored(error=" ".join(outcome.encode("utf-8", "backslashreplace").decode().split()))
    return Scored(outcome, to_score(outcome, activation))


def _outcomes(reranker: "AnyReranker", pairs: list[tuple[str, str]]) -> list[float | str]:
    """The logit of each pair, or its error: a list that fails is halved until the pair to blame stands alone."""
    try:
        return cast("list[float | str]", reranker.pair_logits(pairs))
    except Exception as error:
        if not isinstance(error, InputError | LogitError):
            _check_others(reranker)
        if len(pairs) == 1:
            return [str(error) or type(error).__name__]
    half = len(pairs) // 2
    return [*_outcomes(reranker, pairs[:half]), *_outcomes(reranker, pairs[half:])]


def _check_others(reranker: "AnyReranker") -> None:
    """Raise where it is not the pairs' fault: where the reranker, its device or its server does not score any."""
    reranker.pair_logits([("warm up", "warm up")])
