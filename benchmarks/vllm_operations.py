"""Where the time of a call goes in vLLM's CPU build, by kind of operation, from the profiler of its worker.

As operations.py, for the same prompts: the same query and documents are scored three times, then profiled, for each
--data.

    python benchmarks/vllm_operations.py --vllm-python FOLDER/bin/python --tokenizer DIR --data DIR DIR
"""

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from command_line import write_json
from operations import add_workload, print_table, workloads
from shapes import SHAPES
from vllm_target import load_vllm, start_vllm

from checkpoints import write_checkpoint

PRODUCTS, ATTENTION, CACHE = "matrix products", "attention", "writing keys and values to the cache"
ELEMENT_WISE, OTHER = "norms, rotary embedding, MLP, residual sums (compiled together)", "other operations, Python"
KINDS = (PRODUCTS, ATTENTION, CACHE, ELEMENT_WISE, OTHER)
# The first that a name contains.
_PARTS = {
    "onednn_mm": PRODUCTS,
    "gemm": PRODUCTS,
    "aten::mm": PRODUCTS,
    "aten::addmm": PRODUCTS,
    "cpu_attention": ATTENTION,
    "cpu_attn_reshape_and_cache": CACHE,
    "CompiledFxGraph": ELEMENT_WISE,
}


def self_seconds(events: Iterable[Mapping[str, Any]]) -> Counter[str]:
    """The seconds of each name without those of what it calls, from the events of a trace with names and durations."""
    seconds, open_events = Counter[str](), dict[Any, list[tuple[str, float]]]()
    timed = [event for event in events if event.get("ph") == "X" and event.get("cat") in ("cpu_op", "user_annotation")]
    for event in sorted(timed, key=lambda each: (each["ts"], -each["dur"])):
        callers = open_events.setdefault(event["tid"], [])
        while callers and callers[-1][1] <= event["ts"]:
            callers.pop()
        if callers:
            seconds[callers[-1][0]] -= event["dur"] / 1e6
        seconds[event["name"]] += event["dur"] / 1e6
        callers.append((event["name"], event["ts"] + event["dur"]))
    return seconds


def by_kind(seconds: Mapping[str, float]) -> dict[str, float]:
    """The seconds by kind of operation."""
    kinds = dict.fromkeys(KINDS, 0.0)
    for name, each in seconds.items():
        kinds[next((kind for part, kind in _PARTS.items() if part in name), OTHER)] += each
    return kinds


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_workload(parser)
    parser.add_argument("--vllm-python", type=Path, required=True, help="of the environment of install_vllm.py")
    options = parser.parse_args(arguments)
    columns: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        traces, shape = Path(folder, "traces"), SHAPES[options.shape]
        checkpoint = write_checkpoint(Path(folder, "model"), shape, layers=options.layers, tokenizer=options.tokenizer)
        profiler = {"profiler": "torch", "torch_profiler_dir": str(traces), "torch_profiler_with_stack": False}
        profiler["torch_profiler_use_gzip"] = False
        url, server = start_vllm(options.vllm_python, checkpoint, "--profiler-config", json.dumps(profiler))
        try:
            score = load_vllm(checkpoint, url).score
            for name, query, documents in workloads(options):
                for _ in range(3):
                    score(query, documents)
                urlopen(Request(f"{url}/start_profile", data=b""), timeout=60).close()
                score(query, documents)
                urlopen(Request(f"{url}/stop_profile", data=b""), timeout=600).close()
                newest = max(traces.glob("rank0*.json"), key=lambda file: file.stat().st_mtime)
                events = json.loads(newest.read_text(encoding="utf-8"))["traceEvents"]
                columns[name] = by_kind(self_seconds(events))
        finally:
            server.close()
    print_table(columns)
    write_json(columns, options.out)


if __name__ == "__main__":
    main()
