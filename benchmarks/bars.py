"""One table of onelogit's performance goals on a CPU and their measured values, in some 20 minutes on two quiet cores.

Runs cpu.py and loading.py with the settings below, one after the other. What a run measured before is kept, if the
folder is named again: delete RUN.json to measure it again.

    python benchmarks/bars.py --folder bars --tokenizer DIR --data XQUAD SCIFACT --vllm-python FOLDER/bin/python
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from command_line import print_goals

HERE = Path(__file__).parent
# By name: the script, and its settings.
RUNS = {
    "cold": ("cpu.py", "--layers 8 --only cold,ceiling --peers compiled,int8,sentence-transformers,vllm --rounds 5"),
    "callers": ("cpu.py", "--layers 8 --only callers --peers compiled --rounds 3"),
    "llama.cpp": ("cpu.py", "--only cold --peers int8,llama.cpp,llama.cpp-q8 --rounds 3 --documents 24"),
    "encoders": ("cpu.py", "--shape tiny --only encoders --encoders bert-large,modernbert-base --encoder-layers 6"),
    "loading": ("loading.py", "--rounds 7"),
}
QUICK = "--quick --shape tiny --encoders tiny --layers 2 --rounds 1"


def command(name: str, options: argparse.Namespace) -> list[str]:
    """The command of a run, which writes its results to NAME.json."""
    script, settings = RUNS[name]
    arguments = [*settings.split(), "--out", str(options.folder / f"{name}.json")]
    if script == "loading.py":
        arguments += ["--shape", "tiny", "--rounds", "1"] if options.quick else []
    else:
        arguments += QUICK.split() if options.quick else []
        arguments += ["--folder", str(options.folder / "models")]
        arguments += ["--data", *map(str, options.data)] if options.data else []
        arguments += ["--vllm-python", str(options.vllm_python)] if options.vllm_python is not None else []
    arguments += ["--tokenizer", str(options.tokenizer)] if options.tokenizer is not None else []
    return [sys.executable, str(HERE / script), *arguments]


def goals_of(name: str, result: dict[str, Any]) -> list[dict[str, str]]:
    """The lines of a run in the table."""
    lines = result["bars"]
    if name != "loading" and result["without"]:
        missing = "; ".join(f"{target}: {reason.splitlines()[0]}" for target, reason in result["without"].items())
        lines = [*lines, {"what": f"{name}, not measured", "bar": "", "measured": missing}]
    return lines


def parse(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="for results and models")
    parser.add_argument("--tokenizer", type=Path, help="folder with the Qwen3 tokenizer")
    parser.add_argument("--data", type=Path, nargs="+", default=[], help="folders with corpus.jsonl and queries.jsonl")
    parser.add_argument("--vllm-python", type=Path, help="of the environment of install_vllm.py")
    parser.add_argument("--only", choices=RUNS, nargs="+", default=list(RUNS), help="some of the runs")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to check that everything runs")
    options = parser.parse_args(given)
    options.folder = options.folder.absolute()
    return options


def main(given: Sequence[str] | None = None) -> None:
    options = parse(given)
    options.folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for name in options.only:
        file = options.folder / f"{name}.json"
        start = time.monotonic()
        if not file.exists():
            print(f"--- {name}", flush=True)
            subprocess.run(command(name, options), check=True)
            print(f"--- {name}: {time.monotonic() - start:.0f} s")
        lines += goals_of(name, json.loads(file.read_text(encoding="utf-8")))
    print_goals(lines)


if __name__ == "__main__":
    main()
