"""The measurements of a run on a CPU: cold, warm, callers, growth, lengths, memory, flag, encoders; `long` is apart."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from cpu_benchmark import CpuBenchmark, agreement, encoding_time, summarize_calls
from cpu_targets import BenchmarkCall
from encoders import DTYPES, ENCODERS, encoder_calls, encoder_reference, open_encoder
from long_documents import long
from targets import CACHED, COMPILED, FLAG, ONELOGIT, SENTENCE_TRANSFORMERS, VLLM, reference_logits
from timing import largest_difference, ratios, spread
from transformers import AutoModelForCausalLM
from workload import prompt_rows

from checkpoints import RandomCheckpoint, sibling
from onelogit.benchmarking.runner import time_round
from onelogit.benchmarking.targets import TargetProcess

MAX_REPEATED_DOCUMENTS = 100  # larger calls vary so little that one call is enough


def cold(bench: CpuBenchmark) -> list[dict[str, Any]]:
    """Texts that were not scored before, from each corpus; also compares all logits with the causal model's."""
    results = []
    for corpus in bench.corpora:
        print(f"cold: {bench.sizes.documents} documents of {corpus.name}")
        calls = bench.calls(bench.checkpoint, corpus, bench.sizes.documents, bench.sizes.rounds)
        result = _checked(bench, bench.checkpoint, bench.all_targets(), calls)
        call_s = result["contestants"][ONELOGIT]["seconds"]["median"]
        result["encoding"] = encoding_time(bench.checkpoint, calls, call_s)
        results.append({"texts": corpus.name, **result})
    return results


def warm(bench: CpuBenchmark) -> dict[str, Any]:
    """The same documents with a new query in each call, in a family whose prompts begin with the document."""
    corpus = bench.largest
    print(f"warm: {bench.sizes.documents} documents of {corpus.name}, the same in each call, document first")
    checkpoint = sibling(bench.checkpoint, "ctxl-rerank-v2")
    documents = corpus.documents(0, bench.sizes.documents)
    calls = [bench.call(checkpoint, corpus.query(number), documents) for number in range(bench.sizes.rounds)]
    targets = bench.targets(checkpoint, [CACHED, ONELOGIT, SENTENCE_TRANSFORMERS])
    for target in targets:
        target.time(corpus.query(bench.sizes.rounds), documents)
    return {"texts": corpus.name, **_checked(bench, checkpoint, targets, calls)}


def flag(bench: CpuBenchmark) -> dict[str, Any]:
    """FlagEmbedding, with the prompt of bge-reranker-v2-gemma, which it writes itself."""
    corpus = bench.corpora[0]
    print(f"flag: {bench.sizes.documents} documents of {corpus.name}, in bge-reranker-v2-gemma's prompt")
    checkpoint = sibling(bench.checkpoint, "bge-reranker-v2-gemma")
    targets = bench.targets(checkpoint, [ONELOGIT, FLAG])
    if len(targets) == 1:
        return {"skipped": f"{FLAG} cannot be imported"}
    calls = bench.calls(checkpoint, corpus, bench.sizes.documents, bench.sizes.rounds)
    return {"texts": corpus.name, **_checked(bench, checkpoint, targets, calls)}


def callers(bench: CpuBenchmark) -> dict[str, Any]:
    """Several callers with few documents each: all at once on one reranker, and one after the other."""
    count, documents = bench.sizes.callers, bench.sizes.documents_per_caller
    print(f"callers: {count} with {documents} documents each")
    calls = bench.calls(bench.checkpoint, bench.corpora[0], documents, count)
    peers = [name for name in (COMPILED, SENTENCE_TRANSFORMERS) if name in bench.peers]
    results = {}
    for target in bench.targets(bench.checkpoint, [ONELOGIT, *peers]):
        seconds: dict[str, list[float]] = {"time_at_once": [], "time_one_by_one": []}
        differences = []
        for number in range(bench.sizes.rounds):
            logits = []
            for method in list(seconds)[:: -1 if number % 2 else 1]:
                taken, each = target.call(method, calls)
                seconds[method].append(taken)
                logits.append(each)
            differences.append(largest_difference(*logits))
        gain = ratios(seconds["time_one_by_one"], seconds["time_at_once"])
        results[target.name] = {
            "one_after_the_other_s": spread(seconds["time_one_by_one"]),
            "all_at_once_s": spread(seconds["time_at_once"]),
            "gain": gain,
            "max_difference": max(differences),
        }
        print(f"  {target.name:34}{gain['median']:6.2f} times as fast at once")
    return {"callers": count, "documents": documents, "contestants": results}


def growth(bench: CpuBenchmark) -> list[dict[str, Any]]:
    """More and more documents in a call; peers only up to a number that is not too slow for them."""
    results = []
    for count in bench.sizes.growth:
        print(f"growth: {count} documents of {bench.largest.name}")
        names = [ONELOGIT, *(bench.peers if count <= bench.sizes.peer_documents else ())]
        rounds = min(3, bench.sizes.rounds) if count <= MAX_REPEATED_DOCUMENTS else 1
        calls = bench.calls(bench.checkpoint, bench.largest, count, rounds)
        results.append(_measured(bench.targets(bench.checkpoint, names), calls)[0])
    return results


def lengths(bench: CpuBenchmark) -> list[dict[str, Any]]:
    """Longer and longer documents."""
    results = []
    tokenizer, count = bench.tokenizer(bench.checkpoint), bench.sizes.length_documents
    for tokens in bench.sizes.lengths:
        print(f"lengths: {count} documents of {tokens} tokens")
        calls = []
        for number in range(min(3, bench.sizes.rounds)):
            documents = bench.largest.of_length(number * tokens * count, count, tokens, tokenizer)
            calls.append(bench.call(bench.checkpoint, bench.largest.query(number), documents))
        results.append({"document_tokens": tokens, **_measured(bench.all_targets(), calls)[0]})
    return results


def memory(bench: CpuBenchmark) -> list[dict[str, Any]]:
    """The peak memory of each target, each in a new process; for onelogit, also with more and fewer documents."""
    results = []
    names = bench.available(bench.checkpoint, [ONELOGIT, *(name for name in bench.peers if name != VLLM)])
    for count in sorted({min(bench.sizes.growth), bench.sizes.documents, max(bench.sizes.growth)}):
        documents = bench.largest.documents(0, count)
        for name in names if count == bench.sizes.documents else [ONELOGIT]:
            used = bench.memory_of_call(name, bench.checkpoint, documents)
            gigabytes = f"{used['loaded'] / 1e9:.2f} GB + {used['beyond_loaded'] / 1e9:.2f} GB"
            print(f"memory: {name:34}{count:5} documents: {gigabytes}")
            results.append({"contestant": name, "documents": count, **used})
    return results


def encoders(bench: CpuBenchmark) -> list[dict[str, Any]]:
    """Encoders of each shape, in bfloat16 and float32, with texts of each corpus; compared with transformers."""
    results = []
    for name in bench.encoders:
        layers = bench.encoder_layers or ENCODERS[name].config.num_hidden_layers
        folder = bench.checkpoint.folder.with_name(f"encoder-{name}-{layers}")
        for dtype in DTYPES:
            checkpoint = replace(open_encoder(folder, name, layers, bench.tokenizer_folder), dtype=dtype)
            for corpus in bench.corpora:
                calls = encoder_calls(checkpoint, corpus, bench.sizes.rounds, bench.sizes.encoder_documents)
                print(f"encoders: {name}, {dtype}, {len(calls[0].documents)} documents of {corpus.name}")
                result, logits = _measured(bench.targets(checkpoint, [ONELOGIT, SENTENCE_TRANSFORMERS]), calls)
                checked = calls[0].documents[: bench.sizes.checked]
                truth = encoder_reference(checkpoint, calls[0].query, checked)
                for target, given in logits.items():
                    result["contestants"][target]["agreement"] = agreement(given[: len(checked)], truth)
                results.append({"shape": name, "layers": layers, "dtype": dtype, "texts": corpus.name, **result})
            bench.close()
    return results


def _checked(
    bench: CpuBenchmark, checkpoint: RandomCheckpoint, targets: Sequence[TargetProcess], calls: Sequence[BenchmarkCall]
) -> dict[str, Any]:
    """The calls' times, and the agreement of the first call's logits with the causal model's in float32."""
    result, logits = _measured(targets, calls)
    query, checked = calls[0].query, calls[0].documents[: bench.sizes.checked]
    model = AutoModelForCausalLM.from_pretrained(checkpoint.folder, dtype=torch.float32)
    rows = prompt_rows(bench.tokenizer(checkpoint), checkpoint.recipe, query, checked)
    truth = reference_logits(model, rows, checkpoint.recipe.read_out)
    for name, given in logits.items():
        result["contestants"][name]["agreement"] = agreement(given[: len(checked)], truth)
    return result


def _measured(
    targets: Sequence[TargetProcess], calls: Sequence[BenchmarkCall]
) -> tuple[dict[str, Any], dict[str, list[float]]]:
    """The summary of all targets' alternate calls, which is also printed, and their logits of the first call."""
    rounds = [time_round(targets, call.query, call.documents, number) for number, call in enumerate(calls)]
    timed = {target.name: [each[index] for each in rounds] for index, target in enumerate(targets)}
    result = summarize_calls(timed, calls)
    for name, summary in result["contestants"].items():
        ratio = summary["time_over_first"]
        print(
            f"  {name:34}{summary['pairs_per_s']:8.2f} pairs/s   {ratio['median']:5.2f} times the first one's time "
            f"({ratio['min']:.2f} to {ratio['max']:.2f})"
        )
    if result["is_noisy"]:
        print("  the ratios vary so much between calls that the machine was busy with something else: run it again")
    return result, {name: each[0].logits for name, each in timed.items()}


MEASUREMENTS: dict[str, Callable[[CpuBenchmark], Any]] = {
    "cold": cold,
    "warm": warm,
    "callers": callers,
    "growth": growth,
    "lengths": lengths,
    "memory": memory,
    "long": long,
    "flag": flag,
    "encoders": encoders,
}
