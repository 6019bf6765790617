"""The parts of a run, each a function of the bench: cold, warm, callers, growth, lengths, memory, flag."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from bench import Bench, encoding
from contestants import COMPILED, FLAG, KEPT, ONELOGIT, SENTENCE_TRANSFORMERS, Ready, reference_logits
from measure import Call, agreement, spread, summarise, take_turns
from peak_memory import measure_memory
from processes import Contestant

from checkpoints import Checkpoint, sibling

REPEATED_UP_TO = 100  # documents; a longer call is steady enough to be made once


def cold(bench: Bench) -> list[dict[str, Any]]:
    """Texts that nobody has seen, for each folder of texts; and whether everyone's logits are the causal model's."""
    results = []
    for texts in bench.texts:
        print(f"cold: {bench.sizes.documents} documents of {texts.name}")
        calls = bench.calls(bench.checkpoint, texts, bench.sizes.documents, bench.sizes.rounds)
        result = _measured(bench, bench.checkpoint, bench.contestants(bench.checkpoint), calls)
        result["encoding"] = encoding(bench.checkpoint, calls, _seconds(result, ONELOGIT))
        results.append({"texts": texts.name, **result})
    return results


def warm(bench: Bench) -> dict[str, Any]:
    """The same documents with a new query each time, in a family whose prompts begin with the document."""
    print(f"warm: {bench.sizes.documents} documents of {bench.largest.name}, again and again, document first")
    checkpoint = sibling(bench.checkpoint, "ctxl-rerank-v2")
    documents = bench.largest.documents(0, bench.sizes.documents)
    calls = [bench.call(checkpoint, bench.largest.query(turn), documents) for turn in range(bench.sizes.rounds)]
    contestants = bench.ready(checkpoint, [KEPT, ONELOGIT, SENTENCE_TRANSFORMERS])
    for contestant in contestants:
        contestant.score(bench.largest.query(bench.sizes.rounds), documents)
    return {"texts": bench.largest.name, **_measured(bench, checkpoint, contestants, calls)}


def flag(bench: Bench) -> dict[str, Any]:
    """FlagEmbedding, with the prompt that it writes itself, the one of bge-reranker-v2-gemma."""
    print(f"flag: {bench.sizes.documents} documents of {bench.texts[0].name}, in bge-reranker-v2-gemma's prompt")
    checkpoint = sibling(bench.checkpoint, "bge-reranker-v2-gemma")
    contestants = bench.ready(checkpoint, [ONELOGIT, FLAG])
    if len(contestants) == 1:
        return {"skipped": f"{FLAG} cannot be imported"}
    calls = bench.calls(checkpoint, bench.texts[0], bench.sizes.documents, bench.sizes.rounds)
    return {"texts": bench.texts[0].name, **_measured(bench, checkpoint, contestants, calls)}


def callers(bench: Bench) -> dict[str, Any]:
    """Several callers with few documents each: all at once on one reranker, and one after the other."""
    count, each = bench.sizes.callers, bench.sizes.documents_a_caller
    print(f"callers: {count} with {each} documents each")
    calls = bench.calls(bench.checkpoint, bench.texts[0], each, count)
    results = {}
    for contestant in bench.ready(bench.checkpoint, [ONELOGIT, *_compiled(bench), SENTENCE_TRANSFORMERS]):
        apart, together, errors = [], [], []
        for turn in range(bench.sizes.rounds):
            ways = [(apart, _one_after_the_other), (together, _all_at_once)][:: 1 if turn % 2 else -1]
            answers = []
            for noted, way in ways:
                seconds, logits = contestant.run(_timed, way, calls)
                noted.append(seconds)
                answers.append(logits)
            errors += [_largest_error(mine, theirs) for mine, theirs in zip(*answers, strict=True)]
        gains = [slow / fast for slow, fast in zip(apart, together, strict=True)]
        results[contestant.name] = {
            "one_after_the_other_s": spread(apart),
            "all_at_once_s": spread(together),
            "gain": spread(gains),
            "max_difference": max(errors),
        }
        print(f"  {contestant.name:34}{results[contestant.name]['gain']['median']:6.2f} times as fast together")
    return {"callers": count, "documents": each, "contestants": results}


def growth(bench: Bench) -> list[dict[str, Any]]:
    """More and more documents in a call; the peers up to a number that does not take all day."""
    results = []
    for count in bench.sizes.growth:
        print(f"growth: {count} documents of {bench.largest.name}")
        is_shared = count <= bench.sizes.peer_documents
        names = [ONELOGIT, *(bench.peers if is_shared else ())]
        rounds = min(3, bench.sizes.rounds) if count <= REPEATED_UP_TO else 1
        calls = bench.calls(bench.checkpoint, bench.largest, count, rounds)
        results.append(_summary(bench.ready(bench.checkpoint, names), calls))
    return results


def lengths(bench: Bench) -> list[dict[str, Any]]:
    """Longer and longer documents."""
    results = []
    tokenizer = bench.tokenizer(bench.checkpoint)
    for tokens in bench.sizes.lengths:
        print(f"lengths: {bench.sizes.length_documents} documents of {tokens} tokens")
        calls = []
        for turn in range(min(3, bench.sizes.rounds)):
            start = turn * tokens * bench.sizes.length_documents
            documents = bench.largest.of_length(start, bench.sizes.length_documents, tokens, tokenizer)
            calls.append(bench.call(bench.checkpoint, bench.largest.query(turn), documents))
        results.append({"document_tokens": tokens, **_summary(bench.contestants(bench.checkpoint), calls)})
    return results


def memory(bench: Bench) -> list[dict[str, Any]]:
    """Peak memory of each contestant, each in a process of its own; onelogit's with many documents as well."""
    results = []
    names = bench.present(bench.checkpoint, [ONELOGIT, *(name for name in bench.peers if name != "vLLM")])
    most = max(bench.sizes.growth)
    for count in sorted({min(bench.sizes.growth), bench.sizes.documents, most}):
        documents = bench.largest.documents(0, count)
        for name in names if count == bench.sizes.documents else [ONELOGIT]:
            measured = measure_memory(name, bench.checkpoint, bench.settings, bench.largest.query(0), documents)
            beyond = measured.peak - measured.loaded
            print(f"memory: {name:34}{count:5} documents: {measured.loaded / 1e9:.2f} GB + {beyond / 1e9:.2f} GB")
            results.append({"contestant": name, "documents": count, **measured._asdict(), "beyond_loaded": beyond})
    return results


def _measured(
    bench: Bench, checkpoint: Checkpoint, contestants: Sequence[Contestant], calls: Sequence[Call]
) -> dict[str, Any]:
    """Times of the calls, and the logits of the first one held against the causal model's in float32."""
    result = _summary(contestants, calls, keep_logits=True)
    logits = result.pop("logits")
    checked = calls[0].documents[: bench.sizes.checked]
    truth = reference_logits(checkpoint, calls[0].query, checked)
    for name, given in logits.items():
        result["contestants"][name]["agreement"] = agreement(given[: len(checked)], truth)
    return result


def _summary(contestants: Sequence[Contestant], calls: Sequence[Call], *, keep_logits: bool = False) -> dict[str, Any]:
    times = take_turns(contestants, calls)
    result = summarise(times, calls)
    for name, figures in result["contestants"].items():
        ratio = figures["time_over_first"]
        print(
            f"  {name:34}{figures['pairs_per_s']:8.2f} pairs/s   {ratio['median']:5.2f} times the first's time "
            f"({ratio['min']:.2f} to {ratio['max']:.2f})"
        )
    if result["is_noisy"]:
        print("  the ratios differ so much between calls that this machine was busy with something else: run it again")
    return {**result, "logits": {name: each.logits[0] for name, each in times.items()}} if keep_logits else result


def _compiled(bench: Bench) -> list[str]:
    return [COMPILED] if COMPILED in bench.peers else []


def _seconds(result: dict[str, Any], name: str) -> float:
    return float(result["contestants"][name]["seconds"]["median"])


def _one_after_the_other(contestant: Ready, calls: Sequence[Call]) -> list[list[float]]:
    return [contestant.score(call.query, call.documents) for call in calls]


def _all_at_once(contestant: Ready, calls: Sequence[Call]) -> list[list[float]]:
    answers: list[list[float]] = [[] for _ in calls]

    def ask(place: int) -> None:
        answers[place] = contestant.score(calls[place].query, calls[place].documents)

    threads = [threading.Thread(target=ask, args=(place,)) for place in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def _timed(
    contestant: Ready, way: Callable[[Ready, Sequence[Call]], list[list[float]]], calls: Sequence[Call]
) -> tuple[float, list[list[float]]]:
    start = time.perf_counter()
    answers = way(contestant, calls)
    return time.perf_counter() - start, answers


def _largest_error(mine: Sequence[float], theirs: Sequence[float]) -> float:
    return max(abs(a - b) for a, b in zip(mine, theirs, strict=True))


PARTS: dict[str, Callable[[Bench], Any]] = {
    "cold": cold,
    "warm": warm,
    "callers": callers,
    "growth": growth,
    "lengths": lengths,
    "memory": memory,
    "flag": flag,
}
