"""Run the fuzz targets for a number of cases, and print what each has done: `nox -s fuzz -- --cases 1000000 --seed 1`.

Cheap targets get most of their cases at random, and the others all of them by hypothesis. With `--engine atheris`,
which must be installed, coverage of the code decides which cases are tried next.
"""

import argparse
import json
import logging
import os
import sys
import time
import traceback
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny models do not benefit from more, which wait for each other
sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]

if "atheris" in sys.argv:  # it counts branches of what is imported from now on
    import atheris

    with atheris.instrument_imports(include=["onelogit"]):
        from targets import SHARES, TARGETS
else:
    from targets import SHARES, TARGETS

from support.fuzzing import FuzzTarget, fuzz, fuzz_at_random, fuzz_one_input  # noqa: E402

HYPOTHESIS_SHARE = 0.02  # of the cases of a target that also has random ones, which are ten times as fast


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cases", type=int, default=1_000_000, help="of all targets together")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--target", choices=sorted(TARGETS), action="append", help="only this one; may be repeated")
    parser.add_argument("--engine", choices=("hypothesis", "atheris"), default="hypothesis")
    parser.add_argument("--output", type=Path, help="append a line of JSON for each target")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)  # files and templates at random give warnings without end
    names = options.target or list(SHARES)
    if options.engine == "atheris":
        return _run_atheris(TARGETS[names[0]], options.cases)
    failed = [name for name in names if not _run(name, names, options)]
    print(f"failed: {', '.join(failed)}" if failed else "no failures")
    return 1 if failed else 0


def _run(name: str, names: list[str], options: argparse.Namespace) -> bool:
    target = TARGETS[name]
    cases = round(options.cases * SHARES[name] / sum(SHARES[each] for each in names))
    shrunk = cases if target.random_case is None else min(cases, round(cases * HYPOTHESIS_SHARE))
    started = time.process_time()
    try:
        result = fuzz(target, shrunk, seed=options.seed)
        at_random = fuzz_at_random(target, cases - shrunk, seed=options.seed) if shrunk < cases else None
    except Exception:  # whatever a check raises
        traceback.print_exc()
        return False
    record = {
        "target": name,
        "by_hypothesis": result.cases,
        "at_random": at_random.cases if at_random else 0,
        "seed": options.seed,
        "seconds": round(result.seconds + (at_random.seconds if at_random else 0), 1),
        "processor_seconds": round(time.process_time() - started, 1),
    }
    print(json.dumps(record), flush=True)
    if options.output:
        with options.output.open("a") as stream:
            stream.write(json.dumps(record) + "\n")
    return True


def _run_atheris(target: FuzzTarget, cases: int) -> int:
    import atheris

    atheris.Setup([sys.argv[0], f"-runs={cases}", "-max_len=4096"], fuzz_one_input(target))
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
