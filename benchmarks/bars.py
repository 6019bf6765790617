"""A run -> what it says about each bar that onelogit has set itself. Nothing fails here: a machine may be busy."""

from collections.abc import Iterator
from typing import Any

from contestants import COMPILED, KEPT, ONELOGIT, SENTENCE_TRANSFORMERS, VLLM


def bars(run: dict[str, Any]) -> list[dict[str, str]]:
    """One line a bar that the run has figures for: what, the bar, what was measured."""
    found = [*_cold(run), *_warm(run), *_callers(run), *_growth(run), *_memory(run)]
    return [dict(zip(("what", "bar", "measured"), line, strict=True)) for line in found]


def add_shares(run: dict[str, Any]) -> None:
    """Each contestant's share of the ceiling, beside its figures: needed operations a second over possible ones."""
    if "ceiling" not in run:
        return
    measured = run["ceiling"].values()
    for kind in ("best", "weighted"):
        ceiling = sum(each[kind] for each in measured) / len(measured)
        for part in _parts(run):
            for figures in part["contestants"].values():
                figures[f"share_of_{kind}_ceiling"] = figures["needed_flop_per_s"] / ceiling


def _parts(run: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for name in ("cold", "warm", "flag", "growth", "lengths"):
        found = run["parts"].get(name, [])
        yield from (part for part in (found if isinstance(found, list) else [found]) if "contestants" in part)


def _cold(run: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    for part in run["parts"].get("cold", []):
        figures = part["contestants"]
        mean = part["prompt_tokens"] / part["calls"] / part["documents"]
        where = f"cold, {part['texts']}, {part['documents']} prompts of {mean:.0f} tokens"
        for peer, bar in ((SENTENCE_TRANSFORMERS, "at least 2.8 (150 tokens), 2.6 (300)"), (VLLM, "at least 1.5")):
            for mine in _both(figures):
                if peer in figures:
                    yield f"{where}: {mine}, times as fast as {peer}", bar, _spread(figures[peer]["time_over"][mine])
        yield f"{where}: tokens computed / distinct", "1.00", f"{figures[ONELOGIT]['computed_over_distinct']:.3f}"
        for mine in _both(figures):
            if "share_of_best_ceiling" in figures[mine]:
                yield f"{where}: {mine}, share of the matrix-multiply ceiling", "at least 0.7", _shares(figures[mine])
        yield f"{where}: tokenisation's share of a call", "at most 0.10", f"{part['encoding']['share_of_call']:.3f}"
        yield f"{where}: greatest error of a logit", "as the peers'", _errors(figures)


def _warm(run: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    figures = run["parts"].get("warm", {}).get("contestants", {})
    if KEPT in figures:
        for name in (SENTENCE_TRANSFORMERS, ONELOGIT):
            yield (
                f"warm, document first: times as fast as {name}",
                "at least 12",
                _spread(figures[name]["time_over_first"]),
            )
        yield "warm, document first: greatest error of a logit", "as the peers'", _errors(figures)


def _callers(run: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    part = run["parts"].get("callers")
    if part:
        mine = part["contestants"][ONELOGIT]
        where = f"{part['callers']} callers of {part['documents']} documents"
        yield f"{where}: times as fast together", "at least 1.3", _spread(mine["gain"])
        yield f"{where}: greatest difference of a logit", "rounding", f"{mine['max_difference']:.3f}"


def _growth(run: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    parts = run["parts"].get("growth")
    if parts:
        costs = {each["documents"]: 1 / each["contestants"][ONELOGIT]["distinct_tokens_per_s"] for each in parts}
        each = ", ".join(f"{cost * 1e6:.0f} ({count})" for count, cost in costs.items())
        change = max(costs.values()) / min(costs.values()) - 1
        yield "growth: microseconds a distinct token (documents)", "within 10 %", f"{each}: within {change:.0%}"


def _memory(run: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    parts = run["parts"].get("memory")
    if parts:
        mine = {each["documents"]: each["beyond_loaded"] / 1e9 for each in parts if each["contestant"] == ONELOGIT}
        each = ", ".join(f"{amount:.2f} ({count})" for count, amount in mine.items())
        yield "memory while scoring, GB (documents)", "bounded", each


def _both(figures: dict[str, Any]) -> list[str]:
    return [name for name in (ONELOGIT, COMPILED) if name in figures]


def _shares(mine: dict[str, Any]) -> str:
    return f"{mine['share_of_best_ceiling']:.2f} of the best, {mine['share_of_weighted_ceiling']:.2f} of the mean"


def _spread(values: dict[str, float]) -> str:
    return f"{values['median']:.2f} ({values['min']:.2f} to {values['max']:.2f})"


def _errors(figures: dict[str, Any]) -> str:
    errors = {name: each["agreement"]["max_error"] for name, each in figures.items()}
    return ", ".join(f"{error:.3f} {name}" for name, error in errors.items())
