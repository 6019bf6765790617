"""The results of a run -> onelogit's performance goals and their measured values. A missed goal fails no run."""

from collections.abc import Callable, Iterator
from typing import Any

from targets import (
    CACHED,
    CARD,
    COMPILED,
    HEAD_ALONE,
    INT8,
    LLAMA,
    LLAMA_Q8,
    ONELOGIT,
    SENTENCE_TRANSFORMERS,
    UNPADDED,
    VLLM,
)

Run = dict[str, Any]
GPU_PEERS = (SENTENCE_TRANSFORMERS, HEAD_ALONE, UNPADDED, CARD)
EXACT = (ONELOGIT, COMPILED)
# Onelogit's targets, a peer, and how many times as fast they are to be, by the mean length of prompts.
_COLD = (
    (EXACT, SENTENCE_TRANSFORMERS, "at least 5"),
    (EXACT, VLLM, "at least 1.4 (150 tokens), 1.2 (300)"),
    (EXACT, LLAMA, "at least 4 (28 layers)"),
    ((INT8,), VLLM, "at least 2.0 (150 tokens), 1.7 (300)"),
    ((INT8,), LLAMA_Q8, "at least 6 (28 layers)"),
)


def cpu_goals(run: Run) -> list[dict[str, str]]:
    """The goals for which the run has results."""
    parts = (_cold, _warm, _callers, _growth, _memory, _long, _encoders)
    return _as_dicts([line for part in parts for line in part(run)])


def gpu_goals(run: Run) -> list[dict[str, str]]:
    """All goals; goals that were not measured have a reason instead of a value."""
    prefix = "tiny shapes and few documents instead of: " if run["options"]["quick"] else ""
    return _as_dicts(
        [(f"{prefix}{what}", goal, _gpu_measured(run, part, format_result)) for what, goal, part, format_result in _GPU]
    )


def _as_dicts(lines: list[tuple[str, str, str]]) -> list[dict[str, str]]:
    return [dict(zip(("what", "bar", "measured"), line, strict=True)) for line in lines]


def add_ceiling_shares(run: Run) -> None:
    """Add each target's share of the ceiling to a CPU's results: needed operations per second over possible ones."""
    if "ceiling" not in run:
        return
    measured = run["ceiling"].values()
    for kind in ("best", "weighted"):
        ceiling = sum(each[kind] for each in measured) / len(measured)
        for name in ("cold", "warm", "flag", "growth", "lengths"):
            found = run["parts"].get(name, [])
            for part in found if isinstance(found, list) else [found]:
                for summary in part.get("contestants", {}).values():
                    summary[f"share_of_{kind}_ceiling"] = summary["needed_flop_per_s"] / ceiling


def _cold(run: Run) -> Iterator[tuple[str, str, str]]:
    for part in run["parts"].get("cold", []):
        measured = part["contestants"]
        mean = part["prompt_tokens"] / part["calls"] / part["documents"]
        what = f"cold, {part['texts']}, {part['documents']} prompts of {mean:.0f} tokens"
        for names, peer, goal in _COLD:
            for name in names:
                if peer in measured and name in measured:
                    yield f"{what}: {name}, times as fast as {peer}", goal, _spread(measured[peer]["time_over"][name])
        yield f"{what}: tokens computed / distinct", "1.00", f"{measured[ONELOGIT]['computed_over_distinct']:.3f}"
        for name in EXACT:
            if "share_of_best_ceiling" in measured.get(name, {}):
                best, mean_share = (measured[name][f"share_of_{kind}_ceiling"] for kind in ("best", "weighted"))
                shares = f"{best:.2f} of the best, {mean_share:.2f} of the mean"
                yield f"{what}: {name}, share of the matrix-multiply ceiling", "at least 0.8 (AMX: 0.55)", shares
        yield f"{what}: tokenisation's share of a call", "at most 0.10", f"{part['encoding']['share_of_call']:.3f}"
        yield f"{what}: greatest error of a logit", "the peers'", _agreement(measured)


def _warm(run: Run) -> Iterator[tuple[str, str, str]]:
    measured = run["parts"].get("warm", {}).get("contestants", {})
    if CACHED in measured:
        for name in (each for each in (SENTENCE_TRANSFORMERS, ONELOGIT) if each in measured):
            ratio = _spread(measured[name]["time_over_first"])
            yield f"warm, document first: times as fast as {name}", "at least 12", ratio
        yield "warm, document first: greatest error of a logit", "the peers'", _agreement(measured)


def _callers(run: Run) -> Iterator[tuple[str, str, str]]:
    if part := run["parts"].get("callers"):
        measured = part["contestants"][ONELOGIT]
        what = f"{part['callers']} callers of {part['documents']} documents"
        yield f"{what}: times as fast at once", "at least 1.3", _spread(measured["gain"])
        yield f"{what}: greatest difference of a logit", "rounding", f"{measured['max_difference']:.3f}"


def _growth(run: Run) -> Iterator[tuple[str, str, str]]:
    if parts := run["parts"].get("growth"):
        costs = {each["documents"]: 1 / each["contestants"][ONELOGIT]["distinct_tokens_per_s"] for each in parts}
        each = ", ".join(f"{cost * 1e6:.0f} ({count})" for count, cost in costs.items())
        change = max(costs.values()) / min(costs.values()) - 1
        yield "growth: microseconds per distinct token (documents)", "within 10 %", f"{each}: within {change:.0%}"


def _memory(run: Run) -> Iterator[tuple[str, str, str]]:
    if parts := run["parts"].get("memory"):
        ours = {each["documents"]: each["beyond_loaded"] / 1e9 for each in parts if each["contestant"] == ONELOGIT}
        each = ", ".join(f"{amount:.2f} ({count})" for count, amount in ours.items())
        yield "memory while scoring, GB (documents)", "bounded", each


def _long(run: Run) -> Iterator[tuple[str, str, str]]:
    for part in run["parts"].get("long", {}).get("chunks", []):
        what = f"{part['documents']} documents of {part['document_tokens']} tokens in chunks"
        yield (
            f"{what}: tokens computed / distinct",
            "1.00",
            f"{part['computed_over_distinct']:.3f} (without sharing {part['prompt_over_distinct']:.2f})",
        )
    if parts := run["parts"].get("long", {}).get("whole", []):
        each = ", ".join(f"{part['beyond_loaded'] / 1e9:.2f} ({part['documents']})" for part in parts)
        what = f"memory while scoring documents of {parts[0]['document_tokens']} tokens, GB (documents)"
        yield what, "bounded", each


def _encoders(run: Run) -> Iterator[tuple[str, str, str]]:
    for part in run["parts"].get("encoders", []):
        measured, mean = part["contestants"], part["prompt_tokens"] / part["calls"] / part["documents"]
        rows = f"{part['texts']}, {part['documents']} rows of {mean:.0f} tokens"
        what = f"{part['shape']}, {part['layers']} layers, {part['dtype']}, {rows}"
        if SENTENCE_TRANSFORMERS in measured:
            ratio = _spread(measured[SENTENCE_TRANSFORMERS]["time_over"][ONELOGIT])
            yield f"{what}: times as fast as {SENTENCE_TRANSFORMERS}", "at least 2.0 (300 tokens)", ratio
        yield f"{what}: greatest error of a logit", "the peers'", _agreement(measured)


def _agreement(measured: dict[str, Any]) -> str:
    return ", ".join(f"{each['agreement']['max_error']:.3f} {name}" for name, each in measured.items())


def _spread(values: dict[str, float]) -> str:
    return f"{values['median']:.2f} ({values['min']:.2f} to {values['max']:.2f})"


def _gpu_measured(run: Run, part: str, format_result: Callable[[Run, Any], str]) -> str:
    if part in run["parts"]:
        return format_result(run, run["parts"][part])
    reasons = {each["part"]: each["reason"] for each in run["not_measured"]}
    return f"not measured: {reasons.get(part, 'not selected')}"


def _speed(_: Run, part: Any) -> str:
    return "; ".join(
        f"{name}: " + ", ".join(f"{_spread(ratios[peer])} {peer}" for peer in GPU_PEERS if peer in ratios)
        for name, ratios in part["times_as_fast"].items()
    )


def _share(run: Run, part: Any) -> str:
    if "ceiling" not in run["parts"]:
        return "not measured: no ceiling"
    ceiling = run["parts"]["ceiling"]["matmul_flop_per_s"]
    shares = {name: each["needed_flop_per_s"]["median"] / ceiling for name, each in part["entrants"].items()}
    return ", ".join(f"{share:.2f} {name}" for name, share in shares.items())


def _cached(_: Run, part: Any) -> str:
    tokens = " instead of ".join(f"{part['entrants'][name]['tokens']:,}" for name in (CACHED, ONELOGIT))
    return f"{_spread(part['times_as_fast'])}; {tokens} tokens; logits differ by at most {part['max_difference']:.2g}"


def _latency(_: Run, part: Any) -> str:
    return ", ".join(f"{each['wall_s']['median'] * 1000:.1f} {name}" for name, each in part["entrants"].items())


def _order(_: Run, part: Any) -> str:
    kept = ", ".join(f"{each['top_kept']} {name}" for name, each in part["entrants"].items())
    return f"of {part['queries']}: {kept}; the median gap there is {part['median_gap_in_top']:.2g} in the reference"


def _error(_: Run, part: Any) -> str:
    return ", ".join(
        f"{each['max_error']:.2g} (rms {each['rms_error']:.2g}) {name}" for name, each in part["entrants"].items()
    )


# What, the goal on an H200, the measurement, and the function that formats its result.
_GPU: tuple[tuple[str, str, str, Callable[[Run, Any], str]], ...] = (
    ("0.6B, 100 documents of 256 tokens, cold: times as fast as", "2.5 Sentence Transformers", "cold", _speed),
    ("the same with 90 tokens", "3 Sentence Transformers", "cold-short", _speed),
    ("0.6B, 100 x 512: needed FLOP/s over the matmul ceiling", "0.55", "share-small", _share),
    ("4B, 100 x 512: the same", "0.7", "share-large", _share),
    ("ctxl 1b, documents kept: times as fast as cold", "10", "cached", _cached),
    ("0.6B, one query with 100 documents of 256 tokens, from strings: p50, ms", "at most 60", "end-to-end", _latency),
    ("order of the top 10 as float32's", "99 of 100", "equality", _order),
    ("greatest error of a logit", "the peer's", "equality", _error),
)
