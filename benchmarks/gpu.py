"""onelogit against its peers and the machine's own limits on one NVIDIA GPU, within eight minutes.

Weights are random, in real models' shapes, made on the device; documents are random words of exact lengths, and real
texts where folders are named. gpu-notes.md beside this file says what the figures mean.

    python benchmarks/gpu.py --out gpu.json
    python benchmarks/gpu.py --tokenizer DIR --data DIR DIR --out gpu.json
    python benchmarks/gpu.py --device cpu --quick                        # does it run: no figure of it says anything
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from device_bars import bars
from device_bench import DOCUMENT_FIRST, LARGE, QUICK, SMALL, DeviceBench, Sizes
from device_clock import Budget, OutOfTime
from device_parts import PARTS, LeftOut
from processes import quiet
from shapes import SHAPES
from texts import read_texts
from transformers import AutoTokenizer
from versions import MEASURED

from onelogit import DEMO_MODEL
from onelogit.errors import first_line
from onelogit.io.outputs import versions


def machine(device: torch.device) -> dict[str, Any]:
    """What the figures depend on besides the code."""
    host = {"processor": platform.processor(), "cores": os.cpu_count(), "system": platform.system()}
    if device.type != "cuda":
        return {"card": None, **host}
    about = torch.cuda.get_device_properties(device)
    return {
        "card": about.name,
        "capability": f"{about.major}.{about.minor}",
        "memory_bytes": about.total_memory,
        "processors": about.multi_processor_count,
        "cuda": torch.version.cuda,
        "driver": _driver(),
        **host,
    }


def _driver() -> str | None:
    command = shutil.which("nvidia-smi")
    if command is None:
        return None
    asked = [command, "--query-gpu=driver_version", "--format=csv,noheader"]
    lines = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=30).stdout.splitlines()
    return lines[0].strip() if lines else None


def heading(about: dict[str, Any], found: dict[str, str]) -> str:
    """Whose figures these are, in one line."""
    if about["card"] is None:
        return "NOTHING HERE IS A GPU'S FIGURE: --device cpu tries the code, and its times are the host's clock's"
    whose = "" if "H200" in about["card"] else "; the bars are an H200's, which this is not"
    return f"{about['card']}, driver {about['driver']}, CUDA {about['cuda']}, torch {found['torch']}{whose}"


def run(bench: DeviceBench, names: list[str]) -> dict[str, Any]:
    """The parts in order, and those that were not measured, with the reason."""
    parts: dict[str, Any] = {}
    reasons = dict.fromkeys(names, "the time was over before it began")
    name = ""
    try:
        with bench.budget.enforced():
            for name in names:
                measured, reasons[name] = _part(bench, name)
                if measured is not None:
                    parts[name] = measured
                    del reasons[name]
    except OutOfTime:
        reasons[name] = "the time was over before it was done"
    return {"parts": parts, "not_measured": [{"part": name, "reason": why} for name, why in reasons.items()]}


def _part(bench: DeviceBench, name: str) -> tuple[Any, str]:
    part, left = PARTS[name], bench.budget.left_s
    if left <= (0 if bench.is_quick else part.least_s):
        return None, f"{max(left, 0):.0f} s are left, and it is not begun with less than {part.least_s:.0f}"
    print(f"{name} ({left:.0f} s left)", flush=True)
    try:
        return part.measure(bench), ""
    except LeftOut as reason:
        return None, str(reason)
    except Exception as error:  # whatever a device has to say; the other parts go on
        print(f"  failed: {error!r}", file=sys.stderr, flush=True)
        return None, f"failed: {type(error).__name__}: {first_line(error)}"


def report(result: dict[str, Any]) -> None:
    """The ceiling, the table, and what is not in it, for people."""
    print(f"\n{result['heading']}")
    for name in ("ceiling", "ceiling-after"):
        if name in result["parts"]:
            reached = result["parts"][name]
            print(
                f"{name}: matrix products {reached['matmul_flop_per_s'] / 1e12:.1f} TFLOP/s, "
                f"copies {reached['copy_bytes_per_s'] / 1e9:.0f} GB/s, "
                f"from the host {reached['host_to_device_bytes_per_s'] / 1e9:.1f} GB/s"
            )
    print("\n| what | bar (H200) | measured |\n|---|---|---|")
    for line in result["bars"]:
        print(f"| {line['what']} | {line['bar']} | {line['measured']} |")
    for each in result["not_measured"]:
        print(f"not measured: {each['part']}: {each['reason']}")
    for who, why in result["without"].items():
        print(f"without {who}: {why}")
    for who, way in result["ways"].items():
        print(f"{who}: {way}")


def open_bench(options: argparse.Namespace, budget: Budget) -> DeviceBench:
    """What the options ask for."""
    is_cuda = options.device.type == "cuda"
    return DeviceBench(
        device=options.device,
        dtype=getattr(torch, options.dtype),
        budget=budget,
        sizes=QUICK if options.quick else Sizes(),
        tokenizer=AutoTokenizer.from_pretrained(options.tokenizer or options.weights or DEMO_MODEL),
        texts=[read_texts(folder) for folder in options.data],
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", type=_device, default="cuda", help="cuda, cuda:1, or cpu to try the code")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--minutes", type=float, default=8, help="for the run, imports apart (default: %(default)s)")
    parser.add_argument("--only", type=lambda text: text.split(","), help=f"some of {','.join(PARTS)}")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, help="compiled layers, too (CUDA: yes)")
    parser.add_argument("--peer-batch", type=int, default=32, help="of Sentence Transformers (its own: %(default)s)")
    parser.add_argument("--tokenizer", type=Path, help="folder with a real tokenizer")
    parser.add_argument(
        "--weights", type=Path, help="folder with a real Qwen3-Reranker-0.6B, in place of random weights"
    )
    parser.add_argument("--data", type=Path, nargs="+", default=[], help="folders with corpus.jsonl and queries.jsonl")
    parser.add_argument("--quick", action="store_true", help="tiny shapes, few documents: does it run at all")
    parser.add_argument("--out", type=Path, help="figures, as JSON")
    options = parser.parse_args()
    if options.device.type not in ("cuda", "cpu"):
        parser.error(f"--device {options.device}: only CUDA is measured, and cpu to try the code")
    if options.device.type == "cuda" and not torch.cuda.is_available():
        parser.exit(2, "PyTorch sees no CUDA device here; --device cpu --quick tries the code, and measures no GPU\n")
    if unknown := [each for each in options.only or () if each not in PARTS]:
        parser.error(f"--only: unknown {', '.join(unknown)}; known are {', '.join(PARTS)}")
    return options


def main() -> None:
    budget = Budget(60 * (options := parse()).minutes)
    quiet()
    if options.device.type == "cuda":
        torch.cuda.set_device(options.device)
    about, found = machine(options.device), versions(MEASURED)
    print(heading(about, found), flush=True)
    bench = open_bench(options, budget)
    names = [name for name in PARTS if options.only is None or name in options.only]
    result = {
        "heading": heading(about, found),
        "is_gpu": about["card"] is not None,
        "machine": about,
        "versions": found,
        "options": {name: getattr(options, name) for name in ("dtype", "minutes", "quick", "peer_batch", "compile")},
        "tokenizer": bench.tokenizer.name_or_path,
        "sources": {name: SHAPES[name].source for name in (SMALL, LARGE, DOCUMENT_FIRST)},
        **run(bench, names),
        "without": bench.without,
        "ways": bench.ways,
        "entered_s": bench.entered_s,
        "took_s": budget.spent_s,
    }
    result["bars"] = bars(result)
    report(result)
    if options.out is not None:
        options.out.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    sys.stdout.flush()
    # At once: what was cut off may go on computing in a thread that Python would wait for.
    os._exit(any(each["reason"].startswith("failed") for each in result["not_measured"]))


if __name__ == "__main__":
    main()
