"""The seconds from the start of a process to its first ranking, compared with importing and reading the model alone.

Writes a checkpoint of random weights in a real shape, which stays in the system's cache of files. Each measurement is a
fresh process, the ways alternate, and each round starts with another way. The ratio is of two processes of one round.

    python benchmarks/loading.py --tokenizer DIR --rounds 7
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from command_line import LIBRARIES, print_goals, write_json
from shapes import SHAPES
from timing import ratios, spread

from checkpoints import write_checkpoint
from onelogit.benchmarking.machine import processor_name
from onelogit.benchmarking.runner import rotated
from onelogit.io.outputs import versions

QUERY = "What is the capital of China?"
DOCUMENTS = ["Bananas are yellow.", "Beijing is the capital of China."]
LEAST, TOKENIZER, ONELOGIT = "transformers, the model alone", "transformers, with the tokenizer", "onelogit"

# Each program prints the seconds of its steps; Python's own start is part of what the parent measures.
_STEPS = """
import json, sys, time
folder, query, documents = json.loads(sys.argv[1])
seconds, before = {}, time.perf_counter()
def step(name):
    global before
    seconds[name], before = time.perf_counter() - before, time.perf_counter()
"""
_END = """
print(json.dumps(seconds), flush=True)
"""
_MODEL = """
import torch
from transformers import AutoModel
step("import")
model = AutoModel.from_pretrained(folder, dtype="auto")
with torch.inference_mode():
    for weight in model.parameters():
        weight.view(torch.uint8).max()  # reads the file, which is only mapped until then
step("load")
"""
PROGRAMS = {
    LEAST: _MODEL,
    TOKENIZER: f"""{_MODEL}
from transformers import AutoTokenizer
AutoTokenizer.from_pretrained(folder)(query, documents[0])
step("tokenizer")
""",
    ONELOGIT: """
from onelogit import Reranker
step("import")
reranker = Reranker.load(folder, device="cpu")
step("load")
reranker.rank(query, documents)
step("first rank")
reranker.rank(query, documents)
step("second rank")
""",
}


def measure(way: str, folder: Path) -> dict[str, float]:
    """The seconds of one fresh process: of each step, and from its start to the end of its first ranking, `total`."""
    arguments = json.dumps([str(folder), QUERY, DOCUMENTS])
    # As in an installation, the modules of a checkout are compiled once.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    start = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-c", f"{_STEPS}{PROGRAMS[way]}{_END}", arguments],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        assert process.stdout is not None
        printed = process.stdout.readline()
        total = time.perf_counter() - start
    if not printed:
        raise SystemExit(f"the process of {way} ended with code {process.returncode}")
    seconds = json.loads(printed)
    return {**seconds, "total": total - seconds.get("second rank", 0)}


def summarize(measured: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """The spread of each step's seconds, and of onelogit's total over those of the other ways."""
    seconds = {
        way: {name: spread([each[name] for each in rounds]) for name in rounds[0]} for way, rounds in measured.items()
    }
    totals = {way: [each["total"] for each in rounds] for way, rounds in measured.items()}
    over = {way: ratios(totals[ONELOGIT], each) for way, each in totals.items() if way != ONELOGIT}
    goals = [
        {
            "what": f"a process up to its first ranking: times as long as {way}",
            "bar": "at most 1.3" if way == LEAST else "",
            "measured": f"{each['median']:.2f} ({each['min']:.2f} to {each['max']:.2f})",
        }
        for way, each in over.items()
    ]
    return {"seconds": seconds, "onelogit_over": over, "bars": goals}


def report(result: dict[str, Any]) -> None:
    """Print the steps of each way, and the goals."""
    for way, steps in result["seconds"].items():
        print(f"{way:34}", ", ".join(f"{name} {each['median']:.2f} s" for name, each in steps.items()))
    print_goals(result["bars"])


def parse(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="qwen3-0.6b")
    parser.add_argument("--layers", type=int, help="fewer than the shape has")
    parser.add_argument("--tokenizer", type=Path, help="folder with the shape's real tokenizer")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    return parser.parse_args(given)


def main(given: Sequence[str] | None = None) -> None:
    options = parse(given)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "model")
        write_checkpoint(folder, SHAPES[options.shape], layers=options.layers, tokenizer=options.tokenizer)
        for way in PROGRAMS:
            measure(way, folder)  # fills the caches of files and of bytecode
        measured: dict[str, list[dict[str, float]]] = {way: [] for way in PROGRAMS}
        for number in range(options.rounds):
            for way in rotated(list(PROGRAMS), number):
                measured[way].append(measure(way, folder))
    result = {"processor": processor_name(), "versions": versions(LIBRARIES), **summarize(measured)}
    report(result)
    write_json(result, options.out)


if __name__ == "__main__":
    main()
