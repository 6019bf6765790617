"""A run on a device -> each bar, an H200's, beside what was measured or why nothing was."""

from collections.abc import Callable
from typing import Any

from contestants import CARD, KEPT, ONELOGIT, SENTENCE_TRANSFORMERS
from entrants import HEAD_ALONE, UNPADDED

Run = dict[str, Any]
PEERS = (SENTENCE_TRANSFORMERS, HEAD_ALONE, UNPADDED, CARD)


def bars(run: Run) -> list[dict[str, str]]:
    """What, the bar, what was measured; a line each, none left out."""
    instead = "tiny shapes and few documents for: " if run["options"]["quick"] else ""
    lines = [(f"{instead}{what}", bar, _measured(run, part, tell)) for what, bar, part, tell in _BARS]
    return [dict(zip(("what", "bar", "measured"), line, strict=True)) for line in lines]


def _measured(run: Run, part: str, tell: Callable[[Run, Any], str]) -> str:
    if part in run["parts"]:
        return tell(run, run["parts"][part])
    reasons = {each["part"]: each["reason"] for each in run["not_measured"]}
    return f"not measured: {reasons.get(part, 'not asked for')}"


def _speed(_: Run, part: Any) -> str:
    told = []
    for mine, ratios in part["times_as_fast"].items():
        told.append(f"{mine}: " + ", ".join(f"{_spread(ratios[each])} {each}" for each in PEERS if each in ratios))
    return "; ".join(told)


def _share(run: Run, part: Any) -> str:
    if "ceiling" not in run["parts"]:
        return "not measured: no ceiling"
    ceiling = run["parts"]["ceiling"]["matmul_flop_per_s"]
    shares = {name: each["needed_flop_per_s"]["median"] / ceiling for name, each in part["entrants"].items()}
    return ", ".join(f"{share:.2f} {name}" for name, share in shares.items())


def _cached(_: Run, part: Any) -> str:
    tokens = " instead of ".join(f"{part['entrants'][name]['tokens']:,}" for name in (KEPT, ONELOGIT))
    return f"{_spread(part['times_as_fast'])}; {tokens} tokens; logits at most {part['max_difference']:.2g} apart"


def _answer(_: Run, part: Any) -> str:
    return ", ".join(f"{each['wall_s']['median'] * 1000:.1f} {name}" for name, each in part["entrants"].items())


def _order(_: Run, part: Any) -> str:
    kept = ", ".join(f"{each['top_kept']} {name}" for name, each in part["entrants"].items())
    return f"of {part['queries']}: {kept}; the reference's own gaps there are {part['median_gap_in_top']:.2g}"


def _error(_: Run, part: Any) -> str:
    return ", ".join(
        f"{each['max_error']:.2g} (rms {each['rms_error']:.2g}) {name}" for name, each in part["entrants"].items()
    )


def _spread(values: dict[str, float]) -> str:
    return f"{values['median']:.2f} ({values['min']:.2f} to {values['max']:.2f})"


_BARS: tuple[tuple[str, str, str, Callable[[Run, Any], str]], ...] = (
    ("0.6B, 100 documents of 256 tokens, cold: times as fast as", "2.5 Sentence Transformers", "cold", _speed),
    ("the same with 90 tokens", "3 Sentence Transformers", "cold-short", _speed),
    ("0.6B, 100 x 512: needed FLOP/s over the matmul ceiling", "0.55", "share-small", _share),
    ("4B, 100 x 512: the same", "0.7", "share-large", _share),
    ("ctxl 1b, documents kept: times as fast as cold", "10", "cached", _cached),
    ("0.6B, one query with 100 documents of 256 tokens, from strings: p50, ms", "at most 60", "end-to-end", _answer),
    ("order of the top 10 as float32's", "99 of 100", "equality", _order),
    ("greatest error of a logit", "the peer's", "equality", _error),
)
