"""A tokenizer, texts and package versions -> one folder with all that a machine with a GPU and no network needs.

    python benchmarks/gpu_kit.py --tokenizer DIR --data DIR --out gpu-kit      # here, with a package index
    bash gpu-kit/run.sh 14                                                     # there, in the root of this repository

The machine needs Python with PyTorch for CUDA, transformers and Sentence Transformers. `run.sh` takes the minutes that
it may use, and writes every result to gpu-kit/results as soon as it is known.
"""

import argparse
import json
import shutil
import subprocess
import sys
from itertools import islice
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
LIMIT_BYTES = 64_000_000
DOCUMENTS, QUERIES = 2_000, 200
# Needed by onelogit, its tests and the benchmark, besides what comes with transformers and Sentence Transformers.
PACKAGES = ("filelock", "hypothesis", "iniconfig", "peft", "pluggy", "pytest", "pytest-asyncio", "pytest-xdist")
PACKAGES += ("execnet", "pygments", "rich", "sortedcontainers", "tenacity")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")
RUN = """#!/usr/bin/env bash
# Equality, then the table, then profiles; see benchmarks/gpu-notes.md. Run it in the root of the repository.
set -uo pipefail
minutes=${1:-14} device=${2:-cuda} quick=${3:-}
kit=$(cd "$(dirname "$0")" && pwd) && out=$kit/results && mkdir -p "$out"
if [ -d "$kit/wheels" ]; then
  python3 -m pip install --quiet --no-index --no-deps --no-compile --upgrade --target "$kit/site" "$kit"/wheels/*.whl
fi
export PYTHONPATH=$PWD/shared/src:$kit/site HF_HUB_OFFLINE=1 PYTHONUNBUFFERED=1 GPU_TESTS_DEVICE=$device
end=$((SECONDS + minutes * 60))
left() { echo $((end - SECONDS)); }
bench() {  # name, minutes, measurements
  python3 benchmarks/gpu.py --device "$device" $quick --minutes "$2" --only "$3" --tokenizer "$kit/tokenizer" \\
    --data "$kit"/texts/* --out "$out/$1.json" 2>&1 | tee "$out/$1.log"
}
python3 -m pip list 2>/dev/null > "$out/packages.txt"
timeout 150 python3 -m pytest -q -n 0 -p no:cacheprovider tests/gpu 2>&1 | tee "$out/tests.log"
bench equality 3 ways,equality,ceiling
bench table "$(( $(left) > 420 ? 6 : 3 ))" cold,cold-short,end-to-end,share-small,cached,share-large,callers,texts
[ "$(left)" -gt 60 ] && bench profile 2 profile,ceiling
echo "$(left) s are left; results are in $out"
"""


def copy_tokenizer(source: Path, out: Path) -> None:
    """Copy the files of a tokenizer."""
    out.mkdir(parents=True)
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, out / name)
    copy_licence(source, out)


def copy_texts(source: Path, out: Path) -> None:
    """Copy the first documents and queries of a folder in BEIR format, and its licence."""
    out.mkdir(parents=True)
    for name, count in (("corpus.jsonl", DOCUMENTS), ("queries.jsonl", QUERIES)):
        with (source / name).open(encoding="utf-8") as lines:
            (out / name).write_text("".join(islice(lines, count)), encoding="utf-8")
    copy_licence(source, out)


def copy_licence(source: Path, out: Path) -> None:
    """Copy the licence of what was copied."""
    for licence in source.glob("*LICEN[CS]E*"):
        shutil.copyfile(licence, out / licence.name)


def download_wheels(out: Path, python: str, packages: list[str]) -> None:
    """Download wheels for Linux on x86-64, in the versions of constraints.txt if it has them."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith(("#", "-"))]
    versions = {each.name.lower(): str(each.specifier) for each in pins}
    requirements = [f"{name}{versions.get(name, '')}" for name in packages]
    platforms = [f"manylinux_2_{minor}_x86_64" for minor in (28, 27, 17, 12, 5)] + ["manylinux2014_x86_64"]
    target = ["--only-binary=:all:", "--python-version", python, "--implementation", "cp"]
    target += [part for platform in platforms for part in ("--platform", platform)]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", *target, "--dest", str(out)]
    subprocess.run([*command, *requirements], check=True)


def check_size(folder: Path) -> int:
    """The bytes of all files in the folder.

    Raises:
        SystemExit: it is larger than `LIMIT_BYTES`.
    """
    sizes = {file: file.stat().st_size for file in folder.rglob("*") if file.is_file()}
    if (total := sum(sizes.values())) > LIMIT_BYTES:
        largest = sorted(sizes, key=lambda file: -sizes[file])[:5]
        parts = ", ".join(f"{file.relative_to(folder)} {sizes[file] / 1e6:.1f} MB" for file in largest)
        sys.exit(f"{folder} has {total / 1e6:.1f} MB, more than {LIMIT_BYTES / 1e6:.0f} MB; the largest files: {parts}")
    return total


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder with the tokenizer of Qwen3")
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders with corpus.jsonl, queries.jsonl")
    parser.add_argument("--python", default="3.12", help="version of Python on the machine (default: %(default)s)")
    parser.add_argument("--packages", nargs="*", default=[*PACKAGES], help="wheels to take along")
    parser.add_argument("--out", type=Path, default=Path("gpu-kit"), help="new folder (default: %(default)s)")
    options = parser.parse_args()
    if options.out.exists():
        parser.error(f"{options.out} exists; remove it, or name another folder with --out")
    return options


def main() -> None:
    options = parse()
    options.out.mkdir(parents=True)
    copy_tokenizer(options.tokenizer, options.out / "tokenizer")
    for folder in options.data:
        copy_texts(folder, options.out / "texts" / folder.name)
    if options.packages:
        download_wheels(options.out / "wheels", options.python, options.packages)
    (options.out / "run.sh").write_text(RUN, encoding="utf-8")
    made = {"python": options.python, "packages": options.packages, "bytes": check_size(options.out)}
    print(json.dumps(made, indent=1))


if __name__ == "__main__":
    main()
