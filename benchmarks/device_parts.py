"""The parts of a run on a device, each a function of the bench, in the order of their importance."""

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import count, pairwise
from typing import Any, NamedTuple

import torch
from contestants import CARD, COMPILED, KEPT, ONELOGIT, SENTENCE_TRANSFORMERS
from counting import counted
from device_bench import DOCUMENT_FIRST, LARGE, QUERY_TOKENS, SMALL, DeviceBench
from device_ceiling import QUICK, Amounts, measure_device
from device_clock import Call, Taken, take_turns
from device_profile import profile
from entrants import HEAD_ALONE, UNPADDED
from lineup import Entrant, Lineup
from measure import spread

from onelogit import Reranker

TOP = 10
EVERYONE = (ONELOGIT, COMPILED, SENTENCE_TRANSFORMERS, HEAD_ALONE, UNPADDED, CARD)


def ceiling(bench: DeviceBench) -> dict[str, Any]:
    """What the machine itself reaches."""
    configs = {name: bench.lineup(name).config for name in (SMALL, LARGE)}
    return measure_device(bench.device, configs, QUICK if bench.is_quick else Amounts())


def cold(bench: DeviceBench) -> dict[str, Any]:
    """Documents that nobody has seen, of medium length."""
    return _race(bench, SMALL, EVERYONE, bench.sizes.medium)


def cold_short(bench: DeviceBench) -> dict[str, Any]:
    """The same with short ones, where launching weighs most."""
    return _race(bench, SMALL, EVERYONE, bench.sizes.short)


def share_small(bench: DeviceBench) -> dict[str, Any]:
    """Long documents in the small model: what share of the ceiling is reached."""
    return _race(bench, SMALL, EVERYONE, bench.sizes.long)


def share_large(bench: DeviceBench) -> dict[str, Any]:
    """Long documents in the large model."""
    try:
        return _race(bench, LARGE, (ONELOGIT, COMPILED, SENTENCE_TRANSFORMERS), bench.sizes.long)
    finally:
        bench.let_go(LARGE)


def _race(bench: DeviceBench, name: str, entrants: Sequence[str], tokens: int, most_s: float = 45) -> dict[str, Any]:
    asked = _asked(bench, bench.sizes.rounds, tokens)
    return {"document_tokens": tokens, **bench.race(name, entrants, asked, most_s)}


def _asked(bench: DeviceBench, rounds: int, tokens: int) -> list[tuple[str, list[str]]]:
    """Queries with documents, one more than there are rounds; nothing twice."""
    texts = bench.random_texts(seed=tokens)
    return [(texts.text(QUERY_TOKENS), texts.texts(bench.sizes.documents, tokens)) for _ in range(rounds + 1)]


def end_to_end(bench: DeviceBench) -> dict[str, Any]:
    """One query and its documents, from strings to logits, by the clock on the wall."""
    asked = _asked(bench, bench.sizes.answers, bench.sizes.medium)
    entrants = bench.entrants(SMALL, (ONELOGIT, COMPILED, SENTENCE_TRANSFORMERS))
    calls = {name: _from_strings(entrant, asked) for name, entrant in entrants.items()}
    taken = take_turns(bench.device, bench.budget, calls, most_s=30)
    return {
        "documents": bench.sizes.documents,
        "document_tokens": bench.sizes.medium,
        "rounds": len(taken[ONELOGIT]),
        "entrants": {name: {"wall_s": spread([call.wall_s for call in each])} for name, each in taken.items()},
    }


def _from_strings(entrant: Entrant, asked: Sequence[tuple[str, list[str]]]) -> list[Call]:
    return [lambda query=query, documents=documents: entrant.score(query, documents) for query, documents in asked]


def equality(bench: DeviceBench) -> dict[str, Any]:
    """Everyone's logits, and onelogit's in float32, against the causal model in float32, one prompt at a time."""
    lineup = bench.lineup(SMALL)
    exact = replace(lineup, dtype=torch.float32)
    reference, in_float32 = exact.twin(), exact.reranker()
    entrants = bench.entrants(SMALL, EVERYONE)
    given: dict[str, list[list[float]]] = {name: [] for name in [*entrants, "onelogit, float32"]}
    truths, begun_s = [], bench.budget.spent_s
    sizes = bench.sizes
    asked = _compared(bench)
    while len(truths) < sizes.queries and bench.budget.left_s > 0 and bench.budget.spent_s < begun_s + 120:
        query, documents = next(asked)
        truths.append(_reference_logits(exact, reference, query, documents))
        given["onelogit, float32"].append(in_float32.logits(query, documents))
        for name, entrant in entrants.items():
            given[name].append(entrant.tokenised(query, documents)())
    if not truths:
        raise RuntimeError("there was no time for a single query")
    in_float32.close()
    gaps = [one - next for truth in truths for one, next in pairwise(sorted(truth, reverse=True)[: TOP + 1])]
    return {
        "queries": len(truths),
        "documents": sizes.query_documents,
        "texts": bench.texts[0].name if bench.texts else "random words",
        "weights": "random" if lineup.weights is None else lineup.weights.name,
        "spread_of_reference": statistics.median(map(statistics.pstdev, truths)),
        "median_gap_in_top": statistics.median(gaps),
        "entrants": {name: _errors(logits, truths) for name, logits in given.items()},
    }


def _compared(bench: DeviceBench) -> Iterator[tuple[str, list[str]]]:
    """Queries with documents: real ones where there are any, since documents that are alike have logits alike."""
    sizes, made = bench.sizes, bench.random_texts(seed=1)
    for turn in count():
        if bench.texts:
            each, start = bench.texts[0], turn * sizes.query_documents
            yield each.query(turn), each.documents(start, sizes.query_documents)
        else:
            yield made.text(QUERY_TOKENS), made.texts(sizes.query_documents, sizes.query_document_tokens)


@torch.inference_mode()
def _reference_logits(lineup: Lineup, model: Any, query: str, documents: Sequence[str]) -> list[float]:
    true, false = lineup.recipe.read_out.true, lineup.recipe.read_out.false
    logits = []
    for row in lineup.rows(query, documents):
        last = model(input_ids=torch.tensor([row], device=lineup.device), use_cache=False).logits[0, -1]
        logits.append(last[true] if false is None else last[true] - last[false])
    return torch.stack(logits).tolist()


def _errors(logits: Sequence[Sequence[float]], truths: Sequence[Sequence[float]]) -> dict[str, float]:
    errors = [
        one - true for mine, truth in zip(logits, truths, strict=True) for one, true in zip(mine, truth, strict=True)
    ]
    kept = sum(_top(mine) == _top(truth) for mine, truth in zip(logits, truths, strict=True))
    return {
        "max_error": max(map(abs, errors)),
        "rms_error": math.sqrt(statistics.fmean(error * error for error in errors)),
        "top_kept": kept,
    }


def _top(logits: Sequence[float]) -> list[int]:
    return sorted(range(len(logits)), key=lambda place: -logits[place])[:TOP]


def cached(bench: DeviceBench) -> dict[str, Any]:
    """The same documents with a new query each time, document first, from strings: kept between calls, and not."""
    lineup, sizes = bench.lineup(DOCUMENT_FIRST), bench.sizes
    texts = bench.random_texts(seed=2)
    documents = texts.texts(sizes.documents, sizes.medium)
    queries = [texts.text(QUERY_TOKENS) for _ in range(sizes.rounds + 1)]
    tokens = sum(map(len, lineup.rows(queries[0], documents)))
    shape = lineup.shape
    token_bytes = 2 * lineup.layers * shape.key_value_heads * shape.head_dim * lineup.dtype.itemsize
    rerankers = {ONELOGIT: lineup.reranker(), KEPT: lineup.reranker(document_cache_bytes=tokens * token_bytes)}
    calls = {
        name: [lambda each=each, query=query: each.logits(query, documents) for query in queries]
        for name, each in rerankers.items()
    }
    taken = take_turns(bench.device, bench.budget, calls, most_s=30)
    tokens = {name: _tokens_of(each, calls[name][-1]) for name, each in rerankers.items()}
    for each in rerankers.values():
        each.close()
    bench.let_go(DOCUMENT_FIRST)
    return {
        "documents": sizes.documents,
        "document_tokens": sizes.medium,
        "rounds": len(taken[KEPT]),
        "token_bytes": token_bytes,
        "entrants": {
            name: {"wall_s": spread([call.wall_s for call in each]), "tokens": tokens[name]}
            for name, each in taken.items()
        },
        "times_as_fast": spread(_walls(taken[ONELOGIT], taken[KEPT])),
        "max_difference": _difference(taken[ONELOGIT], taken[KEPT]),
    }


def _tokens_of(reranker: Reranker, call: Call) -> int:
    """How many tokens a call computes."""
    with counted(reranker.classifier.get_input_embeddings()) as count:
        call()
    return count.tokens


def _walls(slow: Sequence[Taken], fast: Sequence[Taken]) -> list[float]:
    return [one.wall_s / other.wall_s for one, other in zip(slow, fast, strict=True)]


def _difference(some: Sequence[Taken], others: Sequence[Taken]) -> float:
    pairs = [
        pair for one, other in zip(some, others, strict=True) for pair in zip(one.logits, other.logits, strict=True)
    ]
    return max(abs(a - b) for a, b in pairs)


def texts(bench: DeviceBench) -> list[dict[str, Any]]:
    """Real texts, of the lengths that they have."""
    if not bench.texts:
        raise LeftOut("no --data")
    found, rounds, documents = [], min(3, bench.sizes.rounds), bench.sizes.documents
    for each in bench.texts:
        asked = [(each.query(turn), each.documents(turn * documents, documents)) for turn in range(rounds + 1)]
        found.append({"texts": each.name, **bench.race(SMALL, EVERYONE, asked, most_s=30)})
    return found


def profiles(bench: DeviceBench) -> dict[str, Any]:
    """What one call launches, and what it waits for."""
    query, documents = _asked(bench, 1, bench.sizes.medium)[1]
    entrants = bench.entrants(SMALL, (ONELOGIT, COMPILED, SENTENCE_TRANSFORMERS))
    return {name: profile(bench.device, each.tokenised(query, documents)) for name, each in entrants.items()}


class LeftOut(Exception):  # noqa: N818  it is no error
    """Nothing that was asked for is missing."""


class Part(NamedTuple):
    """One measurement.

    Attributes:
        measure: makes it.
        least_s: of the time that must be left for it to be begun.
    """

    measure: Callable[[DeviceBench], Any]
    least_s: float


PARTS = {
    "ceiling": Part(ceiling, 20),
    "cold": Part(cold, 30),
    "cold-short": Part(cold_short, 20),
    "end-to-end": Part(end_to_end, 20),
    "equality": Part(equality, 40),
    "share-small": Part(share_small, 30),
    "cached": Part(cached, 20),
    "share-large": Part(share_large, 40),
    "texts": Part(texts, 20),
    "profile": Part(profiles, 20),
    "ceiling-after": Part(ceiling, 20),
}
