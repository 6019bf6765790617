"""Long documents: what onelogit computes of them in chunks, and the memory that whole ones take."""

from typing import Any

from cpu_benchmark import CpuBenchmark
from targets import CHUNK_OPTIONS, CHUNKS, ONELOGIT
from transformers import AutoConfig
from workload import count_work

from onelogit.prompts.encoder import Encoder


def long(bench: CpuBenchmark) -> dict[str, Any]:
    """More and more documents of the greatest length, in chunks and whole."""
    return {"chunks": chunks(bench), "whole": whole(bench)}


def chunks(bench: CpuBenchmark) -> list[dict[str, Any]]:
    """Documents in chunks: whether each token that the rows do not share is computed once, and what it costs."""
    checkpoint, tokenizer, sizes = bench.checkpoint, bench.tokenizer(bench.checkpoint), bench.sizes
    encoder = Encoder(checkpoint.recipe, tokenizer, CHUNK_OPTIONS)
    config, instruction = AutoConfig.from_pretrained(checkpoint.folder), checkpoint.recipe.default_instruction
    (target,) = bench.targets(checkpoint, [CHUNKS])
    results = []
    for number, count in enumerate(sizes.long_documents):
        documents = bench.largest.of_length(number * sizes.long_tokens, count, sizes.long_tokens, tokenizer)
        query = bench.largest.query(number)
        rows = encoder.rows([(query, document) for document in documents], instruction)
        work = count_work([row.ids for row in rows], config)
        timed = target.time(query, documents)
        results.append(
            {
                "documents": count,
                "document_tokens": sizes.long_tokens,
                "chunks": len(rows),
                "distinct_tokens": work.distinct_tokens,
                "computed_over_distinct": timed.tokens / work.distinct_tokens,
                "prompt_over_distinct": work.prompt_tokens / work.distinct_tokens,
                "seconds_per_distinct_token": timed.seconds / work.distinct_tokens,
            }
        )
        print(f"long: {count} documents in {len(rows)} chunks: {timed.tokens} tokens computed, ", end="")
        print(f"{work.distinct_tokens} distinct, {timed.seconds / work.distinct_tokens * 1e6:.0f} us for each")
    return results


def whole(bench: CpuBenchmark) -> list[dict[str, Any]]:
    """The peak memory of whole documents, each call in a new process."""
    results = []
    tokenizer, tokens = bench.tokenizer(bench.checkpoint), bench.sizes.long_tokens
    for count in bench.sizes.long_documents:
        documents = bench.largest.of_length(0, count, tokens, tokenizer)
        used = bench.memory_of_call(ONELOGIT, bench.checkpoint, documents)
        gigabytes = f"{used['loaded'] / 1e9:.2f} GB + {used['beyond_loaded'] / 1e9:.2f} GB"
        print(f"long: {count} whole documents of {tokens} tokens: {gigabytes}")
        results.append({"documents": count, "document_tokens": tokens, **used})
    return results
