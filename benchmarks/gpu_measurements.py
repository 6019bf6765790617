"""The measurements of a run on a GPU: first whether the results are right, then the most important times."""

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import count, pairwise
from typing import Any, NamedTuple

import torch
from ceiling import QUICK_AMOUNTS, measure_device
from gpu_benchmark import DOCUMENT_FIRST, LARGE, QUERY_TOKENS, SMALL, GpuBenchmark
from gpu_profile import profile
from gpu_targets import attention_of, padded_logits
from targets import CACHED, CARD, COMPILED, HEAD_ALONE, ONELOGIT, SENTENCE_TRANSFORMERS, UNPADDED, reference_logits
from texts import RandomTexts
from timing import largest_difference, ratios, spread, take_turns
from workload import counted_tokens

TOP = 10
CALLERS = 16
FASTEST = (ONELOGIT, COMPILED, SENTENCE_TRANSFORMERS)
ALL = (*FASTEST, HEAD_ALONE, UNPADDED, CARD)


def ways(bench: GpuBenchmark) -> dict[str, Any]:
    """How onelogit computes on this device, and how far its logits are from padded rows in the same dtype."""
    query, documents = _random_inputs(bench, 1, bench.sizes.short)[1]
    shared, targets = bench.model(SMALL), bench.targets(SMALL, (ONELOGIT, COMPILED))
    if ONELOGIT not in targets:
        raise RuntimeError(bench.without[f"{SMALL}: {ONELOGIT}"])
    padded = padded_logits(targets[ONELOGIT].model, shared.rows(query, documents))
    logits = {name: target.tokenize(query, documents)() for name, target in targets.items()}
    return {
        "spread": statistics.pstdev(padded),
        "from_padded": {name: largest_difference([each], [padded]) for name, each in logits.items()},
        "attention": {name: attention_of(shared, target) for name, target in targets.items()},
    }


def ceiling(bench: GpuBenchmark) -> dict[str, Any]:
    """The speed of the machine itself."""
    configs = {shape: bench.model(shape).config for shape in (SMALL, LARGE)}
    return measure_device(bench.device, configs, **(QUICK_AMOUNTS if bench.is_quick else {}))


def compare(bench: GpuBenchmark, *, length: str, shape: str = SMALL, names: Sequence[str] = ALL) -> dict[str, Any]:
    """Random documents that were not scored before; `length` is the name of a field of `GpuSizes`."""
    tokens = getattr(bench.sizes, length)
    inputs = _random_inputs(bench, bench.sizes.rounds, tokens)
    return {"document_tokens": tokens, **bench.compare(shape, names, inputs, max_s=45)}


def share_large(bench: GpuBenchmark) -> dict[str, Any]:
    """Long documents in the large model, whose memory is then freed."""
    try:
        return compare(bench, length="long", shape=LARGE, names=FASTEST)
    finally:
        bench.release(LARGE)


def _random_inputs(bench: GpuBenchmark, rounds: int, tokens: int) -> list[tuple[str, list[str]]]:
    """Queries with documents for one call more than there are rounds, without repetitions."""
    texts = RandomTexts(bench.tokenizer, seed=tokens)
    return [(texts.text(QUERY_TOKENS), texts.texts(bench.sizes.documents, tokens)) for _ in range(rounds + 1)]


def end_to_end(bench: GpuBenchmark) -> dict[str, Any]:
    """One query with its documents, from strings to logits, by the wall clock."""
    inputs = _random_inputs(bench, bench.sizes.string_rounds, bench.sizes.medium)
    calls = {
        name: [lambda target=target, call=call: target.score(*call) for call in inputs]
        for name, target in bench.targets(SMALL, FASTEST).items()
    }
    timed = take_turns(bench.device, bench.limit, calls, max_s=30)
    return {
        "documents": bench.sizes.documents,
        "document_tokens": bench.sizes.medium,
        "rounds": len(timed[ONELOGIT]),
        "entrants": {name: {"wall_s": spread([call.wall_s for call in each])} for name, each in timed.items()},
    }


def equality(bench: GpuBenchmark) -> dict[str, Any]:
    """All logits, and onelogit's in float32, compared with the causal model's in float32, one prompt at a time."""
    shared, sizes = bench.model(SMALL), bench.sizes
    exact = replace(shared, dtype=torch.float32)
    reference, in_float32 = exact.copy(), exact.reranker()
    targets = bench.targets(SMALL, ALL)
    logits: dict[str, list[list[float]]] = {name: [] for name in [*targets, "onelogit, float32"]}
    truths, start_s = [], bench.limit.spent_s
    inputs = _equality_inputs(bench)
    while len(truths) < sizes.queries and bench.limit.left_s > 0 and bench.limit.spent_s < start_s + 120:
        query, documents = next(inputs)
        truths.append(reference_logits(reference, exact.rows(query, documents), exact.recipe.read_out))
        logits["onelogit, float32"].append(in_float32.logits(query, documents))
        for name, target in targets.items():
            logits[name].append(target.tokenize(query, documents)())
    if not truths:
        raise RuntimeError("there was no time for a single query")
    in_float32.close()
    gaps = [one - next for truth in truths for one, next in pairwise(sorted(truth, reverse=True)[: TOP + 1])]
    return {
        "queries": len(truths),
        "documents": sizes.query_documents,
        "texts": bench.corpora[0].name if bench.corpora else "random words",
        "weights": "random" if shared.weights is None else shared.weights.name,
        "spread_of_reference": statistics.median(map(statistics.pstdev, truths)),
        "median_gap_in_top": statistics.median(gaps),
        "entrants": {name: _errors(each, truths) for name, each in logits.items()},
    }


def _equality_inputs(bench: GpuBenchmark) -> Iterator[tuple[str, list[str]]]:
    """Queries with documents: real ones if there are any, because similar documents have similar logits."""
    documents, random_texts = bench.sizes.query_documents, RandomTexts(bench.tokenizer, seed=1)
    for number in count():
        if bench.corpora:
            corpus = bench.corpora[0]
            yield corpus.query(number), corpus.documents(number * documents, documents)
        else:
            query = random_texts.text(QUERY_TOKENS)
            yield query, random_texts.texts(documents, bench.sizes.query_document_tokens)


def _errors(logits: Sequence[Sequence[float]], truths: Sequence[Sequence[float]]) -> dict[str, float]:
    pairs = [pair for given, truth in zip(logits, truths, strict=True) for pair in zip(given, truth, strict=True)]
    return {
        "max_error": largest_difference(logits, truths),
        "rms_error": math.sqrt(statistics.fmean((logit - true) ** 2 for logit, true in pairs)),
        "top_kept": sum(_top(given) == _top(truth) for given, truth in zip(logits, truths, strict=True)),
    }


def _top(logits: Sequence[float]) -> list[int]:
    return sorted(range(len(logits)), key=lambda index: -logits[index])[:TOP]


def cached(bench: GpuBenchmark) -> dict[str, Any]:
    """The same documents with a new query in each call, document first, from strings: with and without a cache."""
    shared, sizes = bench.model(DOCUMENT_FIRST), bench.sizes
    texts = RandomTexts(bench.tokenizer, seed=2)
    documents = texts.texts(sizes.documents, sizes.medium)
    queries = [texts.text(QUERY_TOKENS) for _ in range(sizes.rounds + 1)]
    config = shared.config
    key_values = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim
    token_bytes = key_values * shared.dtype.itemsize
    cache_bytes = token_bytes * sum(map(len, shared.rows(queries[0], documents)))
    rerankers = {ONELOGIT: shared.reranker(), CACHED: shared.reranker(document_cache_bytes=cache_bytes)}
    calls = {
        name: [lambda each=each, query=query: each.logits(query, documents) for query in queries]
        for name, each in rerankers.items()
    }
    timed = take_turns(bench.device, bench.limit, calls, max_s=30)
    tokens = {}
    for name, reranker in rerankers.items():
        with counted_tokens(reranker.classifier.get_input_embeddings()) as counts:
            calls[name][-1]()
        tokens[name] = sum(counts)
        reranker.close()
    bench.release(DOCUMENT_FIRST)
    wall_s = {name: [call.wall_s for call in each] for name, each in timed.items()}
    return {
        "documents": sizes.documents,
        "document_tokens": sizes.medium,
        "rounds": len(timed[CACHED]),
        "token_bytes": token_bytes,
        "entrants": {name: {"wall_s": spread(wall_s[name]), "tokens": tokens[name]} for name in timed},
        "times_as_fast": ratios(wall_s[ONELOGIT], wall_s[CACHED]),
        "max_difference": largest_difference(*([call.logits for call in timed[name]] for name in (ONELOGIT, CACHED))),
    }


def callers(bench: GpuBenchmark) -> dict[str, Any]:
    """Sixteen callers with a few documents each: at once, as threads on one model, and one after the other."""
    per_caller = max(2, bench.sizes.documents // 20)
    texts = RandomTexts(bench.tokenizer, seed=3)
    reranker, rounds = bench.model(SMALL).reranker(), bench.sizes.rounds
    inputs = [
        [(texts.text(QUERY_TOKENS), texts.texts(per_caller, bench.sizes.medium)) for _ in range(CALLERS)]
        for _ in range(rounds + 1)
    ]
    with ThreadPoolExecutor(CALLERS) as threads:

        def at_once(calls: list[tuple[str, list[str]]]) -> list[float]:
            return [logit for each in threads.map(lambda call: reranker.logits(*call), calls) for logit in each]

        def in_turn(calls: list[tuple[str, list[str]]]) -> list[float]:
            return [logit for call in calls for logit in reranker.logits(*call)]

        ways = {"at once": at_once, "one after the other": in_turn}
        timed = take_turns(
            bench.device,
            bench.limit,
            {name: [partial(way, calls) for calls in inputs] for name, way in ways.items()},
            max_s=30,
        )
    reranker.close()
    wall_s = {name: [call.wall_s for call in each] for name, each in timed.items()}
    return {
        "callers": CALLERS,
        "documents": per_caller,
        "document_tokens": bench.sizes.medium,
        "entrants": {name: {"wall_s": spread(each)} for name, each in wall_s.items()},
        "gain": ratios(wall_s["one after the other"], wall_s["at once"]),
        "max_difference": largest_difference(*([call.logits for call in each] for each in timed.values())),
    }


def texts(bench: GpuBenchmark) -> list[dict[str, Any]]:
    """Real texts with their own lengths."""
    if not bench.corpora:
        raise NotMeasured("no --data")
    results, rounds, documents = [], min(3, bench.sizes.rounds), bench.sizes.documents
    for corpus in bench.corpora:
        inputs = [
            (corpus.query(number), corpus.documents(number * documents, documents)) for number in range(rounds + 1)
        ]
        results.append({"texts": corpus.name, **bench.compare(SMALL, ALL, inputs, max_s=30)})
    return results


def profiles(bench: GpuBenchmark) -> dict[str, Any]:
    """The launches and waits of one call."""
    query, documents = _random_inputs(bench, 1, bench.sizes.medium)[1]
    targets = bench.targets(SMALL, FASTEST)
    return {name: profile(bench.device, each.tokenize(query, documents)) for name, each in targets.items()}


class NotMeasured(Exception):  # noqa: N818  not an error, because nothing was requested
    """A measurement does not apply; the message says why."""


class Measurement(NamedTuple):
    """A measurement, which is not started with less than `least_s` seconds left."""

    measure: Callable[[GpuBenchmark], Any]
    least_s: float


MEASUREMENTS = {
    "ways": Measurement(ways, 30),
    "equality": Measurement(equality, 40),
    "ceiling": Measurement(ceiling, 20),
    "cold": Measurement(partial(compare, length="medium"), 30),
    "cold-short": Measurement(partial(compare, length="short"), 20),  # kernel launches matter most
    "end-to-end": Measurement(end_to_end, 20),
    "share-small": Measurement(partial(compare, length="long"), 30),
    "cached": Measurement(cached, 20),
    "share-large": Measurement(share_large, 40),
    "callers": Measurement(callers, 20),
    "texts": Measurement(texts, 20),
    "profile": Measurement(profiles, 20),
    "ceiling-after": Measurement(ceiling, 20),
}
