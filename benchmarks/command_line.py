"""The parts that cpu.py and gpu.py share: options, the table of goals, and the JSON file."""

import argparse
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

LIBRARIES = (
    *("onelogit", "torch", "triton", "transformers", "sentence-transformers", "tokenizers"),
    *("kernels", "flash-attn", "FlagEmbedding", "llama-cpp-python", "gguf"),
)


def new_parser(description: str | None, measurements: Iterable[str]) -> argparse.ArgumentParser:
    """A parser with the options that both commands have."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--only", type=names_in, help=f"some of {','.join(measurements)}")
    parser.add_argument("--tokenizer", type=Path, help="folder with a real tokenizer")
    parser.add_argument("--data", type=Path, nargs="+", default=[], help="folders with corpus.jsonl and queries.jsonl")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to check that everything runs")
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    return parser


def names_in(text: str) -> list[str]:
    """The names of a list such as "cold,warm"."""
    return text.split(",") if text else []


def check_known(parser: argparse.ArgumentParser, option: str, given: Iterable[str], known: Sequence[str]) -> None:
    """Exit with an error if a given name is unknown."""
    if unknown := [name for name in given if name not in known]:
        parser.error(f"{option}: unknown {', '.join(unknown)}; known are {', '.join(known)}")


def print_goals(goals: Sequence[dict[str, str]], heading: str = "goal") -> None:
    """A Markdown table."""
    print(f"\n| what | {heading} | measured |\n|---|---|---|")
    for goal in goals:
        print(f"| {goal['what']} | {goal['bar']} | {goal['measured']} |")


def write_json(result: dict[str, Any], path: Path | None) -> None:
    """Write the results if a file is named; a file that is there is replaced as a whole."""
    if path is not None:
        new = path.with_name(f"{path.name}.new")
        new.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        new.replace(path)
