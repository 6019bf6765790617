"""How much memory a contestant holds and takes while it scores, each in a process of its own.

The kernel's high-water mark (VmHWM), set back after loading: it runs on Linux.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from checkpoints import Checkpoint, open_checkpoint
from contestants import Settings, prepare


class Memory(NamedTuple):
    """In bytes.

    Attributes:
        loaded: resident once the model is loaded and has scored one short pair.
        peak: most resident while it scored.
    """

    loaded: int
    peak: int


def measure_memory(
    name: str, checkpoint: Checkpoint, settings: Settings, query: str, documents: Sequence[str]
) -> Memory:
    """Of one contestant for one call."""
    task = {
        "name": name,
        "folder": str(checkpoint.folder),
        "family": checkpoint.recipe.family,
        "dtype": checkpoint.dtype,
        "settings": asdict(settings),
        "query": query,
        "documents": list(documents),
    }
    ran = subprocess.run(
        [sys.executable, __file__], input=json.dumps(task), capture_output=True, text=True, check=False
    )
    if ran.returncode:
        raise SystemExit(f"{name}: {ran.stderr}")
    return Memory(*json.loads(ran.stdout.splitlines()[-1]))


def resident(name: str) -> int:
    """A line of the kernel's account of this process, in bytes: VmRSS is now, VmHWM the most."""
    status = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return int(next(line for line in status if line.startswith(name)).split()[1]) * 1024


def reset_peak() -> None:
    """Set the high-water mark back to what is resident now."""
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def main() -> None:
    task = json.load(sys.stdin)
    checkpoint = open_checkpoint(Path(task["folder"]), task["family"], task["dtype"])
    contestant = prepare(task["name"], checkpoint, Settings(**task["settings"]))
    contestant.score(task["query"], task["documents"][:1])
    loaded = resident("VmRSS")
    reset_peak()
    contestant.score(task["query"], task["documents"])
    print(json.dumps([loaded, resident("VmHWM")]))


if __name__ == "__main__":
    main()
