"""onelogit against its peers on a CPU, side by side and in turn: speed, tokens, memory, and that all agree.

Weights are random, in a real model's shape; texts come from folders in BEIR form, or from the small sample of the
examples. README.md beside this file says what is measured and how, and holds a run.

    python benchmarks/cpu.py --shape qwen3-0.6b --layers 8 --data DIR --out run.json --plot run.png
    python benchmarks/cpu.py --quick
"""

import argparse
import json
import os
import platform
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from bars import add_shares, bars
from bench import QUICK, Bench, Sizes
from ceiling import measure_ceiling
from contestants import CARD, COMPILED, CONVERTED, SENTENCE_TRANSFORMERS, VLLM, Settings
from parts import PARTS
from processes import quiet
from shapes import SHAPES
from texts import read_texts
from transformers import AutoConfig
from versions import MEASURED

from checkpoints import open_checkpoint, write_checkpoint
from onelogit.io.outputs import versions

PEERS = {
    "compiled": COMPILED,
    "sentence-transformers": SENTENCE_TRANSFORMERS,
    "converted": CONVERTED,
    "card": CARD,
    "vllm": VLLM,
}
BUSY = 0.5  # load average over a minute


def machine() -> dict[str, Any]:
    """What the figures depend on besides the code."""
    names = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").exists() else ""
    models = [line.split(":", 1)[1].strip() for line in names.splitlines() if line.startswith("model name")]
    return {
        "processor": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "amx_bfloat16": "amx_bf16" in names,
        "system": platform.system(),
        "load_before": os.getloadavg()[0],
    }


def run(bench: Bench, names: list[str]) -> dict[str, Any]:
    """The parts in order, the ceiling before and after them."""
    has_ceiling = "ceiling" in names
    config = AutoConfig.from_pretrained(bench.checkpoint.folder)
    ceiling = {}
    if has_ceiling:
        ceiling["before"] = measure_ceiling(config, bench.checkpoint.dtype)._asdict()
    parts = {name: part(bench) for name, part in PARTS.items() if name in names}
    if has_ceiling:
        ceiling["after"] = measure_ceiling(config, bench.checkpoint.dtype)._asdict()
    return {"parts": parts, **({"ceiling": ceiling} if has_ceiling else {})}


def report(result: dict[str, Any]) -> None:
    """The ceiling and the bars, for people."""
    if (load := result["machine"]["load_before"]) > BUSY:
        print(f"this machine had {load:.1f} programs running before the run began: its times say little")
    for when, each in result.get("ceiling", {}).items():
        print(f"ceiling {when}: best {each['best'] / 1e12:.3f}, of all layers {each['weighted'] / 1e12:.3f} TFLOP/s")
    print("\n| what | bar | measured |\n|---|---|---|")
    for line in result["bars"]:
        print(f"| {line['what']} | {line['bar']} | {line['measured']} |")


def open_bench(options: argparse.Namespace, folder: Path) -> Bench:
    """The checkpoint, written unless it stands there already, and what is asked of it."""
    shape = SHAPES[options.shape]
    target = folder / f"{options.shape}-{options.layers}"
    if target.exists():
        checkpoint = open_checkpoint(target, shape.family)
    else:
        checkpoint = write_checkpoint(target, shape, layers=options.layers, tokenizer=options.tokenizer)
    sizes = QUICK if options.quick else Sizes()
    given = {name: getattr(options, name) for name in ("documents", "rounds", "peer_documents")}
    given |= {"growth": options.growth and tuple(options.growth)}
    return Bench(
        checkpoint=replace(checkpoint, dtype=options.dtype),
        texts=[read_texts(each) for each in options.data or [None]],
        settings=Settings(vllm_url=options.vllm_url),
        sizes=replace(sizes, **{name: value for name, value in given.items() if value is not None}),
        peers=[PEERS[name] for name in options.peers],
    )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="qwen3-0.6b", help="of the model (default: %(default)s)")
    parser.add_argument("--layers", type=int, help="fewer than the shape has, to be done sooner")
    parser.add_argument("--tokenizer", type=Path, help="folder with a real tokenizer")
    parser.add_argument("--data", type=Path, nargs="+", help="folders with corpus.jsonl and queries.jsonl")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--only", type=lambda text: text.split(","), help=f"some of {','.join([*PARTS, 'ceiling'])}")
    parser.add_argument("--peers", type=lambda text: text.split(",") if text else [], default=list(PEERS))
    parser.add_argument("--vllm-url", help="of a server that you started")
    parser.add_argument("--folder", type=Path, help="where checkpoints are kept for the next run and for vLLM")
    parser.add_argument("--documents", type=int, help="in a call")
    parser.add_argument("--rounds", type=int, help="calls of each kind")
    parser.add_argument("--growth", type=int, nargs="+", help="documents in the calls of that part")
    parser.add_argument("--peer-documents", type=int, help="most documents in a call that peers are asked for")
    parser.add_argument("--quick", action="store_true", help="two layers, few documents: does it run at all")
    parser.add_argument("--out", type=Path, help="figures, as JSON")
    parser.add_argument("--plot", type=Path, help="a picture of cost against number and length of documents")
    options = parser.parse_args()
    options.only = [*PARTS, "ceiling"] if options.only is None else options.only
    if options.layers is None:
        options.layers = 2 if options.quick else SHAPES[options.shape].layers
    for name, known in (("only", [*PARTS, "ceiling"]), ("peers", PEERS)):
        if unknown := [each for each in getattr(options, name) if each not in known]:
            parser.error(f"--{name}: unknown {', '.join(unknown)}; known are {', '.join(known)}")
    return options


def main() -> None:
    options = parse()
    quiet()
    before = machine()
    with tempfile.TemporaryDirectory() as scratch:
        bench = open_bench(options, scratch_or(options.folder, Path(scratch)))
        start = time.perf_counter()
        try:
            figures = run(bench, options.only)
        finally:
            bench.close()
        result = {
            "machine": before,
            "versions": versions(MEASURED),
            "options": {name: getattr(options, name) for name in ("shape", "layers", "dtype", "quick")},
            "source": SHAPES[options.shape].source,
            **figures,
            "took_s": time.perf_counter() - start,
            "load_after": os.getloadavg()[0],
        }
    add_shares(result)
    result["bars"] = bars(result)
    report(result)
    if options.out is not None:
        options.out.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if options.plot is not None:
        from picture import draw  # noqa: PLC0415  matplotlib, only for a picture

        draw(result, options.plot)


def scratch_or(folder: Path | None, scratch: Path) -> Path:
    """The folder that was named, made if it is not there; else one that is gone afterwards."""
    if folder is None:
        return scratch
    folder.mkdir(parents=True, exist_ok=True)
    return folder.absolute()


if __name__ == "__main__":
    main()
