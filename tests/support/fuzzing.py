"""A fuzz target: generated cases and what must hold for each; how to run one, by hypothesis, at random or by atheris.

A case that fails is shrunk and raised. Keep it as a test of its own, beside the code that it was found in.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

import hypothesis
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

_CHUNK = 5_000  # cases of one seed: hypothesis remembers all cases of a run


@dataclass(frozen=True)
class FuzzTarget:
    """Cases, and a check that raises AssertionError, or any error that users must not see.

    Attributes:
        name: of the target.
        cases: of hypothesis, which shrinks a case that fails.
        check: of one case.
        random_case: a case at random, ten times as fast, and not shrunk; None if only the check takes time.
    """

    name: str
    cases: st.SearchStrategy[Any]
    check: Callable[[Any], None]
    random_case: Callable[[Random], Any] | None = None


@dataclass(frozen=True)
class FuzzResult:
    """What a run has done: the number of cases, and the seconds that they took."""

    target: str
    cases: int
    seconds: float


def fuzz(target: FuzzTarget, cases: int | None = None, *, seed: int, seconds: float | None = None) -> FuzzResult:
    """Run a target for a number of cases or of seconds; the seed decides which cases. Raises the first failure."""
    done, started, chunk = 0, time.monotonic(), 0
    while (cases is None or done < cases) and (seconds is None or time.monotonic() - started < seconds):
        left = _CHUNK if cases is None else min(_CHUNK, cases - done)
        size = left if seconds is None else min(left, 200)
        counted, run = _property(target, size)
        hypothesis.seed(seed * 1_000_003 + chunk)(run)()
        done, chunk = done + counted[0], chunk + 1
        if not counted[0]:
            break
    return FuzzResult(target.name, done, time.monotonic() - started)


def fuzz_at_random(target: FuzzTarget, cases: int, *, seed: int) -> FuzzResult:
    """Run a target for a number of random cases; the error for one that fails shows it."""
    random, started, make = Random(seed), time.monotonic(), target.random_case
    if make is None:
        raise ValueError(f"{target.name} has no random cases")
    for _ in range(cases):
        case = make(random)
        try:
            target.check(case)
        except Exception as error:
            error.add_note(f"the case is {case!r}")
            raise
    return FuzzResult(target.name, cases, time.monotonic() - started)


def random_text(random: Random) -> str:
    """A short text, of characters that readers and parsers treat specially, and of any others."""
    some = "\x00\t\n\r \"',;|:{}[]<>\\/-_.0123456789eEaNté\u0301\u2028\u3000\ufeff\ufffe漢\ud800\udfff😀"
    count = random.choice((0, 1, 1, 2, 3, 8))
    return "".join(
        random.choice(some) if random.random() < 0.8 else chr(random.randrange(0x110000)) for _ in range(count)
    )


def fuzz_one_input(target: FuzzTarget) -> Callable[[bytes], object]:
    """The target as a function of bytes, for atheris."""
    function: Callable[[bytes], object] = _property(target, 1)[1].hypothesis.fuzz_one_input
    return function


def _property(target: FuzzTarget, cases: int) -> tuple[list[int], Any]:
    counted = [0]

    @settings(
        max_examples=cases,
        database=None,
        deadline=None,
        suppress_health_check=[*HealthCheck],
        phases=(Phase.generate, Phase.shrink),
    )
    @hypothesis.given(target.cases)
    def run(case: Any) -> None:
        counted[0] += 1
        target.check(case)

    return counted, run
