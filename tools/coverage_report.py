"""The measurement of `nox -s coverage` -> each package's branch coverage, and the functions with gaps, by name.

    python tools/coverage_report.py coverage.json

The file is that of `coverage json`. A gap that is named in coverage_gaps.toml is printed with its reason. The exit code
is 1 if less than 97 % of the core's lines and branches are covered, or if a whole function is not, and is not named.
"""

import json
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

LEAST_PERCENT = 97.0
GAPS = Path(__file__).with_name("coverage_gaps.toml")


class Gap(NamedTuple):
    """A function with lines or branches that no test takes."""

    name: str
    is_whole: bool
    lines: list[int]
    branches: list[list[int]]

    def __str__(self) -> str:
        lines = f"lines {', '.join(map(str, self.lines))}" if self.lines else ""
        branches = ", ".join(f"{start}->{'exit' if end < 0 else end}" for start, end in self.branches)
        return f"{self.name}  {lines}{'; ' if lines and branches else ''}{branches and f'branches {branches}'}"


def relative(file: str) -> str:
    """The path of a file of the core, from its folder `onelogit`."""
    return file.replace("\\", "/").rpartition("/onelogit/")[2]


def gaps_of(files: dict[str, Any]) -> Iterator[Gap]:
    for file, measured in sorted(files.items()):
        for function, region in measured["functions"].items():
            lines, branches = region["missing_lines"], region["missing_branches"]
            if lines or branches:
                is_whole = bool(function) and not region["executed_lines"]
                yield Gap(f"{relative(file)}::{function or 'module'}", is_whole, lines, branches)


def percents(files: dict[str, Any]) -> dict[str, float]:
    """The covered share of lines and branches of each package, in percent."""
    covered: dict[str, int] = defaultdict(int)
    counted: dict[str, int] = defaultdict(int)
    for file, measured in files.items():
        package = relative(file).partition("/")[0]
        summary = measured["summary"]
        covered[package] += summary["covered_lines"] + summary["covered_branches"]
        counted[package] += summary["num_statements"] + summary["num_branches"]
    return {name: 100 * covered[name] / count for name, count in sorted(counted.items()) if count}


def main(file: str) -> int:
    report = json.loads(Path(file).read_text(encoding="utf-8"))
    reasons = tomllib.loads(GAPS.read_text(encoding="utf-8"))
    console = Console(soft_wrap=True, highlight=False)
    table = Table(title="Lines and branches that tests take", title_justify="left")
    table.add_column("package")
    table.add_column("%", justify="right")
    for name, percent in percents(report["files"]).items():
        table.add_row(name, f"{percent:.1f}")
    console.print(table)
    unnamed = []
    for gap in gaps_of(report["files"]):
        file, _, function = gap.name.partition("::")
        reason = reasons.get(file, {}).get(function)
        console.print(f"{gap}{f'  ({reason})' if reason else ''}", markup=False)
        if gap.is_whole and reason is None:
            unnamed.append(gap.name)
    total = report["totals"]["percent_covered"]
    console.print(f"{total:.2f} % in all; at least {LEAST_PERCENT:g} % are needed", markup=False)
    for name in unnamed:
        console.print(f"no test calls {name}: test it, or give the reason in tools/{GAPS.name}", markup=False)
    return int(total < LEAST_PERCENT or bool(unnamed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
