"""Contestants and calls -> times, taken in turn: medians with extremes, and ratios call by call."""

import statistics
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from contestants import Ready
from counting import Work, counted
from processes import Contestant

from onelogit.ranking import kendall_tau

NOISY_SPREAD = 0.3  # of a ratio, (max - min) / median
WAKING = "Good morning."


class Call(NamedTuple):
    """One query with its documents, and what that asks for."""

    query: str
    documents: Sequence[str]
    work: Work


class Times(NamedTuple):
    """What was measured of one contestant.

    Attributes:
        seconds: of each call, in order.
        tokens: through the model's embeddings in each call; None where they could not be seen.
        logits: of each call.
    """

    seconds: list[float]
    tokens: list[int | None]
    logits: list[list[float]]


def take_turns(contestants: Sequence[Contestant], calls: Sequence[Call]) -> dict[str, Times]:
    """Each call by every contestant, one after the other, another one first each time.

    Before the clock starts, each is woken by a call of its own: while the others compute, a system may take back the
    memory of who stands idle.
    """
    times = {each.name: Times([], [], []) for each in contestants}
    for turn, call in enumerate(calls):
        first = turn % len(contestants)
        for contestant in [*contestants[first:], *contestants[:first]]:
            contestant.score(WAKING, [f"{WAKING} {turn}"])
            for noted, measured in zip(times[contestant.name], contestant.run(_timed, call), strict=True):
                noted.append(measured)
    return times


def _timed(contestant: Ready, call: Call) -> tuple[float, int | None, list[float]]:
    with counted(contestant.embeddings) as count:
        start = time.perf_counter()
        logits = contestant.score(call.query, call.documents)
        seconds = time.perf_counter() - start
    return seconds, None if contestant.embeddings is None else count.tokens, logits


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least and greatest."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def summarise(times: dict[str, Times], calls: Sequence[Call]) -> dict[str, Any]:
    """Figures of each contestant, its time over the first one's and over each other's with them."""
    first = next(iter(times.values()))
    work = [call.work for call in calls]
    figures = {}
    for name, noted in times.items():
        distinct = sum(each.distinct_tokens for each in work)
        computed = None if None in noted.tokens else sum(noted.tokens)
        figures[name] = {
            "seconds": spread(noted.seconds),
            "time_over_first": _ratio(noted, first),
            "time_over": {other: _ratio(noted, theirs) for other, theirs in times.items()},
            "pairs_per_s": _per_second([each.documents for each in work], noted),
            "distinct_tokens_per_s": _per_second([each.distinct_tokens for each in work], noted),
            "needed_flop_per_s": _per_second([each.flop for each in work], noted),
            "tokens_computed": computed,
            "computed_over_distinct": None if computed is None else computed / distinct,
        }
    return {
        "calls": len(calls),
        "documents": work[0].documents,
        "prompt_tokens": sum(each.prompt_tokens for each in work),
        "distinct_tokens": sum(each.distinct_tokens for each in work),
        "is_noisy": any(_is_noisy(each["time_over_first"]) for each in figures.values()),
        "contestants": figures,
    }


def agreement(logits: Sequence[float], truth: Sequence[float]) -> dict[str, float | None]:
    """How far logits are from the truth, and whether they put documents into the same order.

    Returns:
        The greatest error; Kendall's tau; and the standard deviation of the truth, to compare the error with.
    """
    errors = [abs(mine - true) for mine, true in zip(logits, truth, strict=True)]
    return {
        "max_error": max(errors),
        "kendall_tau": kendall_tau(logits, truth) if len(truth) > 1 else 1.0,
        "spread_of_truth": statistics.pstdev(truth),
    }


def _ratio(mine: Times, theirs: Times) -> dict[str, float]:
    return spread([one / other for one, other in zip(mine.seconds, theirs.seconds, strict=True)])


def _per_second(amounts: Sequence[int], noted: Times) -> float:
    return statistics.median(amount / taken for amount, taken in zip(amounts, noted.seconds, strict=True))


def _is_noisy(ratio: dict[str, float]) -> bool:
    return ratio["max"] - ratio["min"] > NOISY_SPREAD * ratio["median"]
