"""A target that keeps its own time, and a result made with it, for tests of `onelogit.benchmarking`."""

from collections.abc import Sequence
from dataclasses import replace

from onelogit.benchmarking.machine import MemoryUse
from onelogit.benchmarking.result import Result
from onelogit.benchmarking.runner import WAKE_UP_TEXT, Budget, Case, PromptCount, Runner
from onelogit.benchmarking.targets import TargetFacts, TimedCall
from onelogit.benchmarking.text_supply import TextSupply
from onelogit.io.text_files import TextCollection

TEXTS = TextCollection(
    ["a", "서울", "one two three four five six", "北京是中国的首都", "x" * 30], ["what?", "why is that so at all?"]
)
FACTS = TargetFacts("cpu", "a processor", "float32", 64, "cc-by-nc-4.0", 2, {"python": "3"})


class FakeTarget:
    """A target that reports so many seconds per document, and remembers its calls."""

    def __init__(self, name: str, *seconds_per_document: float, logit: float = 0.0) -> None:
        self.name = name
        self.calls: list[tuple[str, tuple[str, ...]]] = []
        self.all_calls: list[tuple[str, tuple[str, ...]]] = []  # those that only wake it, too
        self._seconds = seconds_per_document
        self._logit = logit

    def time(self, query: str, documents: Sequence[str]) -> TimedCall:
        self.all_calls.append((query, tuple(documents)))
        if query == WAKE_UP_TEXT:
            return TimedCall(1e9, [0.0] * len(documents))
        self.calls.append((query, tuple(documents)))
        seconds = self._seconds[len(self.calls) % len(self._seconds)]
        return TimedCall(seconds * len(documents), [self._logit] * len(documents))


def ten_tokens(query: str, documents: Sequence[str]) -> PromptCount:
    return PromptCount(10 * len(documents), 0)


def runner(*targets: FakeTarget, seconds: float = 3600, repeats: int = 3, is_warm: bool = False) -> Runner:
    return Runner(
        targets=targets,
        supply=TextSupply(TEXTS, None),
        count_tokens=ten_tokens,
        budget=Budget(seconds, repeats),
        is_warm=is_warm,
    )


def result(**given: object) -> Result:
    targets = FakeTarget("onelogit", 1.0), FakeTarget("Sentence Transformers", 3.0, logit=0.25)
    measured = Result(
        model="[bold]mine[/]",
        server=None,
        facts=FACTS,
        memory={"onelogit": MemoryUse(5 * 10**8, 10**9)},
        load_s={"onelogit": 2.5, "Sentence Transformers": 0.75},
        texts="texts",
        documents_as_given=5,
        documents_made_up=30,
        is_warm=False,
        seconds=3600,
        load_before=0.0,
        cases=tuple(runner(*targets, repeats=4).measure([Case(2), Case(5)])),
    )
    return replace(measured, **given)  # type: ignore[arg-type]
