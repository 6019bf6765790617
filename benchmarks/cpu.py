"""Onelogit and its peers on a CPU, with alternating calls: speed, tokens, memory, and agreement of logits.

Weights are random, in a real model's shape; texts come from folders in BEIR format, or from the examples' small sample.
README.md in this folder describes what is measured and how, and has results.

    python benchmarks/cpu.py --shape qwen3-0.6b --layers 8 --data DIR --out run.json --plot run.png
    python benchmarks/cpu.py --quick
"""

import argparse
import os
import platform
import signal
import sys
import tempfile
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from ceiling import measure_cpu
from command_line import LIBRARIES, check_known, names_in, new_parser, print_goals, write_json
from cpu_benchmark import QUICK, CpuBenchmark, CpuSizes
from cpu_measurements import MEASUREMENTS
from encoders import ENCODERS
from goals import add_ceiling_shares, cpu_goals
from shapes import SHAPES
from targets import CARD, COMPILED, CONVERTED, INT8, LLAMA, LLAMA_Q8, SENTENCE_TRANSFORMERS, VLLM
from texts import read_corpus
from transformers import AutoConfig

from checkpoints import open_checkpoint, write_checkpoint
from onelogit import OnelogitError
from onelogit.benchmarking.machine import processor_name
from onelogit.benchmarking.report import format_log_axes
from onelogit.benchmarking.worker_process import silence_libraries
from onelogit.io.outputs import PLOT_COLOURS, figure_in, versions

PEERS = {
    "compiled": COMPILED,
    "int8": INT8,
    "sentence-transformers": SENTENCE_TRANSFORMERS,
    "converted": CONVERTED,
    "card": CARD,
    "vllm": VLLM,
    "llama.cpp": LLAMA,
    "llama.cpp-q8": LLAMA_Q8,
}
ALL = [*MEASUREMENTS, "ceiling"]
PANELS = {"growth": ("documents", "documents per call"), "lengths": ("document_tokens", "tokens per document")}
BUSY_LOAD = 0.5  # the mean number of running programs over a minute


def machine() -> dict[str, Any]:
    """The facts about the machine that the results depend on."""
    cpu_info = Path("/proc/cpuinfo")
    return {
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "amx_bfloat16": cpu_info.exists() and "amx_bf16" in cpu_info.read_text(encoding="utf-8"),
        "system": platform.system(),
        "load_before": os.getloadavg()[0],
    }


def run(bench: CpuBenchmark, names: list[str]) -> dict[str, Any]:
    """The measurements in order, with the ceiling before and after them."""
    if "ceiling" not in names:
        return {"parts": {name: measure(bench) for name, measure in MEASUREMENTS.items() if name in names}}
    config = AutoConfig.from_pretrained(bench.checkpoint.folder)
    before = measure_cpu(config, bench.checkpoint.dtype)
    results = run(bench, [name for name in names if name != "ceiling"])
    return {**results, "ceiling": {"before": before, "after": measure_cpu(config, bench.checkpoint.dtype)}}


def report(result: dict[str, Any]) -> None:
    """Print what was measured with, the ceiling and the goals."""
    machine = result["machine"]
    print(f"\n{result['date']}, {machine['processor']}, {machine['cores']} cores, {machine['capability']}")
    print(", ".join(f"{name} {version}" for name, version in result["versions"].items()))
    for name, allowed in result["allowed"].items():
        print(f"{name}: {', '.join(f'{each} {value}' for each, value in allowed.items())}")
    if (load := machine["load_before"]) > BUSY_LOAD:
        print(f"{load:.1f} programs were running before the benchmark, so times are not reliable")
    for when, each in result.get("ceiling", {}).items():
        print(f"ceiling {when}: {each['best'] / 1e12:.3f} TFLOP/s at best, {each['weighted'] / 1e12:.3f} of all layers")
    print_goals(result["bars"])


def draw(run: dict[str, Any], path: Path) -> None:
    """Plot what a document costs by the number of documents and by their length, as far as they were measured."""
    panels = {name: run["parts"][name] for name in PANELS if run["parts"].get(name)}
    if not panels:
        raise SystemExit("--plot needs the measurement growth or lengths; neither was run")
    names = list(dict.fromkeys(name for calls in panels.values() for call in calls for name in call["contestants"]))
    options = run["options"]
    title = f"{options['shape']}, {options['layers']} layers, {options['dtype']}, {run['machine']['cores']} cores"
    with figure_in(path, 5.6 * len(panels), 4.4) as figure:
        axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for axis, (panel, calls) in zip(axes, panels.items(), strict=True):
            field, label = PANELS[panel]
            for colour, name in zip(PLOT_COLOURS, names, strict=False):
                measured = [call for call in calls if name in call["contestants"]]
                costs = [1000 / call["contestants"][name]["pairs_per_s"] for call in measured]
                positions = [call[field] for call in measured]
                axis.plot(positions, costs, marker="o", markersize=4, linewidth=1.8, color=colour, label=name)
            format_log_axes(axis, [call[field] for call in calls])
            axis.set_xlabel(label)
        axes[0].set_ylabel("milliseconds per document")
        axes[0].legend(frameon=False, fontsize=9)
        figure.suptitle(f"Cost of a document ({title})", fontsize=11)


def open_bench(options: argparse.Namespace, folder: Path) -> CpuBenchmark:
    """The benchmark that the options describe; its checkpoint is written unless the folder has it already."""
    shape = SHAPES[options.shape]
    target = folder / f"{options.shape}-{options.layers}"
    if target.exists():
        checkpoint = open_checkpoint(target, shape.family)
    else:
        checkpoint = write_checkpoint(target, shape, layers=options.layers, tokenizer=options.tokenizer)
    sizes = {name: getattr(options, name) for name in ("documents", "rounds", "peer_documents")}
    sizes |= {"growth": options.growth and tuple(options.growth)}
    return CpuBenchmark(
        checkpoint=replace(checkpoint, dtype=options.dtype),
        corpora=[read_corpus(each) for each in options.data or [None]],
        sizes=replace(
            QUICK if options.quick else CpuSizes(),
            **{name: value for name, value in sizes.items() if value is not None},
        ),
        peers=[PEERS[name] for name in options.peers],
        vllm_url=options.vllm_url,
        vllm_python=options.vllm_python,
        encoders=options.encoders,
        encoder_layers=options.encoder_layers,
        tokenizer_folder=options.tokenizer,
    )


def parse() -> argparse.Namespace:
    parser = new_parser(__doc__, ALL)
    parser.add_argument("--shape", choices=SHAPES, default="qwen3-0.6b", help="of the model (default: %(default)s)")
    parser.add_argument("--layers", type=int, help="fewer than the shape has, for a shorter run")
    parser.add_argument("--peers", type=names_in, default=list(PEERS), help=f"some of {','.join(PEERS)} (default: all)")
    served = parser.add_mutually_exclusive_group()
    served.add_argument("--vllm-python", type=Path, help="of the environment of install_vllm.py, to start a server")
    served.add_argument("--vllm-url", help="of a server that you started")
    parser.add_argument("--folder", type=Path, help="keep checkpoints here for the next run and for vLLM")
    parser.add_argument("--documents", type=int, help="per call")
    parser.add_argument("--rounds", type=int, help="calls of each kind")
    parser.add_argument("--growth", type=int, nargs="+", help="documents in the calls of growth")
    parser.add_argument("--peer-documents", type=int, help="most documents in a call of growth with peers")
    parser.add_argument("--encoders", type=names_in, help=f"some of {','.join(ENCODERS)} (default: all real ones)")
    parser.add_argument("--encoder-layers", type=int, help="fewer than the encoders have, for a shorter run")
    parser.add_argument("--plot", type=Path, help="image of the cost by number and length of documents")
    options = parser.parse_args()
    options.only = ALL if options.only is None else options.only
    if options.layers is None:
        options.layers = 2 if options.quick else SHAPES[options.shape].config.num_hidden_layers
    check_known(parser, "--only", options.only, ALL)
    if options.encoders is None:
        options.encoders = ["tiny"] if options.quick else [name for name in ENCODERS if name != "tiny"]
    check_known(parser, "--peers", options.peers, [*PEERS])
    check_known(parser, "--encoders", options.encoders, [*ENCODERS])
    return options


def main() -> None:
    options = parse()
    silence_libraries()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that servers end, too
    before = machine()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) if options.folder is None else options.folder.absolute()
        folder.mkdir(parents=True, exist_ok=True)
        bench = open_bench(options, folder)
        start = time.perf_counter()
        try:
            measured = run(bench, options.only)
        except OnelogitError as error:
            raise SystemExit(str(error)) from error
        finally:
            bench.close()
        result = {
            "date": f"{datetime.now(UTC):%Y-%m-%d}",
            "machine": before,
            "versions": versions(LIBRARIES),
            "allowed": bench.allowed,
            "without": bench.without,
            "options": {name: getattr(options, name) for name in ("shape", "layers", "dtype", "quick")},
            "source": SHAPES[options.shape].source,
            **measured,
            "took_s": time.perf_counter() - start,
            "load_after": os.getloadavg()[0],
        }
    add_ceiling_shares(result)
    result["bars"] = cpu_goals(result)
    report(result)
    write_json(result, options.out)
    if options.plot is not None:
        draw(result, options.plot)


if __name__ == "__main__":
    main()
