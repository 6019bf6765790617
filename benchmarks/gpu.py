"""Onelogit, its peers and the machine's own limits on one NVIDIA GPU, within eight minutes.

Weights are random, in real models' shapes, created on the device; documents are random words of exact lengths, and real
texts if folders are named. gpu-notes.md in this folder explains the results.

    python benchmarks/gpu.py --out gpu.json
    python benchmarks/gpu.py --tokenizer DIR --data DIR DIR --out gpu.json
    python benchmarks/gpu.py --device cpu --quick                        # only checks that it runs
"""

import argparse
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from command_line import LIBRARIES, check_known, new_parser, print_goals, write_json
from goals import gpu_goals
from gpu_benchmark import DOCUMENT_FIRST, LARGE, QUICK, SMALL, GpuBenchmark, GpuSizes
from gpu_measurements import MEASUREMENTS, NotMeasured
from shapes import SHAPES
from texts import read_corpus
from timing import OutOfTime, TimeLimit
from transformers import AutoTokenizer

from onelogit import DEMO_MODEL
from onelogit.benchmarking.machine import processor_name
from onelogit.benchmarking.worker_process import silence_libraries
from onelogit.errors import first_line
from onelogit.io.outputs import versions

Keep = Callable[[dict[str, Any]], None]


def machine(device: torch.device) -> dict[str, Any]:
    """The facts about the machine that the results depend on."""
    host = {"processor": processor_name(), "cores": os.cpu_count(), "system": platform.system()}
    if device.type != "cuda":
        return {"card": None, **host}
    properties = torch.cuda.get_device_properties(device)
    return {
        "card": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "memory_bytes": properties.total_memory,
        "processors": properties.multi_processor_count,
        "cuda": torch.version.cuda,
        "driver": _driver_version(),
        **host,
    }


def _driver_version() -> str | None:
    nvidia_smi = shutil.which("nvidia-smi")
    if nvidia_smi is None:
        return None
    command = [nvidia_smi, "--query-gpu=driver_version", "--format=csv,noheader"]
    lines = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30).stdout.splitlines()
    return lines[0].strip() if lines else None


def heading(about: dict[str, Any]) -> str:
    """One line about the machine."""
    if about["card"] is None:
        return "NO GPU IS MEASURED: --device cpu only checks that the code runs, and its times are the host's"
    note = "" if "H200" in about["card"] else "; the goals are for an H200, which this is not"
    return f"{about['card']}, driver {about['driver']}, CUDA {about['cuda']}, torch {torch.__version__}{note}"


def run(bench: GpuBenchmark, names: list[str], keep: Keep = lambda _: None) -> dict[str, Any]:
    """The measurements in order, and the skipped measurements with the reasons.

    `keep` gets what is known after each measurement, so that a run that is cut short leaves its results.
    """
    parts: dict[str, Any] = {}

    def state() -> dict[str, Any]:
        skipped = [{"part": name, "reason": reason} for name, reason in reasons.items()]
        return {"parts": parts, "not_measured": skipped}

    reasons = dict.fromkeys(names, "the time was over before it started")
    name = ""
    try:
        with bench.limit.enforced():
            for name in names:
                measured, reasons[name] = _measure(bench, name)
                if measured is not None:
                    parts[name] = measured
                    del reasons[name]
                keep(state())
    except OutOfTime:
        reasons[name] = "the time was over before it finished"
    return state()


def _measure(bench: GpuBenchmark, name: str) -> tuple[Any, str]:
    """The result, or None and the reason for it."""
    measurement, left = MEASUREMENTS[name], bench.limit.left_s
    if left <= (0 if bench.is_quick else measurement.least_s):
        return None, f"{max(left, 0):.0f} s are left, and it needs {measurement.least_s:.0f} s"
    print(f"{name} ({left:.0f} s left)", flush=True)
    try:
        return measurement.measure(bench), ""
    except NotMeasured as reason:
        return None, str(reason)
    except Exception as error:  # whatever the device raises; the other measurements continue
        print(f"  failed: {error!r}", file=sys.stderr, flush=True)
        return None, f"failed: {type(error).__name__}: {first_line(error)}"


def report(result: dict[str, Any]) -> None:
    """Print the ceilings, the goals, and what was not measured."""
    print(f"\n{result['heading']}")
    for name in ("ceiling", "ceiling-after"):
        if name in result["parts"]:
            reached = result["parts"][name]
            print(
                f"{name}: matrix products {reached['matmul_flop_per_s'] / 1e12:.1f} TFLOP/s, "
                f"copies {reached['copy_bytes_per_s'] / 1e9:.0f} GB/s, "
                f"from the host {reached['host_to_device_bytes_per_s'] / 1e9:.1f} GB/s"
            )
    print_goals(result["bars"], "goal (H200)")
    for each in result["not_measured"]:
        print(f"not measured: {each['part']}: {each['reason']}")
    for target, reason in result["without"].items():
        print(f"without {target}: {reason}")
    for target, attention in result["ways"].items():
        print(f"{target}: {attention}")


def open_bench(options: argparse.Namespace, limit: TimeLimit) -> GpuBenchmark:
    """The benchmark that the options describe."""
    is_cuda = options.device.type == "cuda"
    return GpuBenchmark(
        device=options.device,
        dtype=getattr(torch, options.dtype),
        limit=limit,
        sizes=QUICK if options.quick else GpuSizes(),
        tokenizer=AutoTokenizer.from_pretrained(options.tokenizer or options.weights or DEMO_MODEL),
        corpora=[read_corpus(folder) for folder in options.data],
        is_quick=options.quick,
        is_compiling=is_cuda if options.compile is None else options.compile,
        peer_batch=options.peer_batch,
        weights=options.weights,
    )


def _device(name: str) -> torch.device:
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise argparse.ArgumentTypeError(first_line(error)) from error


def parse() -> argparse.Namespace:
    parser = new_parser(__doc__, MEASUREMENTS)
    parser.add_argument("--device", type=_device, default="cuda", help="cuda, cuda:1, or cpu to check that it runs")
    parser.add_argument("--minutes", type=float, default=8, help="for the run, without imports (default: %(default)s)")
    parser.add_argument(
        "--compile", action=argparse.BooleanOptionalAction, help="also measure compiled layers (default: on CUDA)"
    )
    parser.add_argument(
        "--peer-batch", type=int, default=32, help="batch size of Sentence Transformers (default: its own, %(default)s)"
    )
    parser.add_argument(
        "--weights", type=Path, help="folder with a real Qwen3-Reranker-0.6B, instead of random weights"
    )
    options = parser.parse_args()
    if options.device.type not in ("cuda", "cpu"):
        parser.error(f"--device {options.device}: only CUDA is measured; cpu checks that the code runs")
    if options.device.type == "cuda" and not torch.cuda.is_available():
        parser.exit(2, "PyTorch finds no CUDA device; --device cpu --quick checks that the code runs, without a GPU\n")
    check_known(parser, "--only", options.only or (), [*MEASUREMENTS])
    return options


def main() -> None:
    limit = TimeLimit(60 * (options := parse()).minutes)
    silence_libraries()
    if options.device.type == "cuda":
        torch.cuda.set_device(options.device)
    about = machine(options.device)
    print(heading(about), flush=True)
    bench = open_bench(options, limit)
    names = [name for name in MEASUREMENTS if options.only is None or name in options.only]
    facts = {
        "heading": heading(about),
        "is_gpu": about["card"] is not None,
        "machine": about,
        "versions": versions(LIBRARIES),
        "options": {name: getattr(options, name) for name in ("dtype", "minutes", "quick", "peer_batch", "compile")},
        "tokenizer": bench.tokenizer.name_or_path,
        "sources": {name: SHAPES[name].source for name in (SMALL, LARGE, DOCUMENT_FIRST)},
    }

    def complete(measured: dict[str, Any]) -> dict[str, Any]:
        result = {
            **facts,
            **measured,
            "without": bench.without,
            "ways": bench.attention,
            "entered_s": bench.loading_s,
            "took_s": limit.spent_s,
        }
        return {**result, "bars": gpu_goals(result)}

    result = complete(run(bench, names, lambda measured: write_json(complete(measured), options.out)))
    report(result)
    write_json(result, options.out)
    sys.stdout.flush()
    # Without waiting for other threads, in which an interrupted measurement may still be computing.
    os._exit(any(each["reason"].startswith("failed") for each in result["not_measured"]))


if __name__ == "__main__":
    main()
