"""How much memory a contestant holds and takes while it scores, each in a process of its own.

The kernel's high-water mark (VmHWM), set back after loading: it runs on Linux.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from contestants import Ready, Settings
from processes import Contestant

from checkpoints import Checkpoint


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
    contestant = Contestant(name, checkpoint, settings)
    try:
        return contestant.run(_measure, query, documents)
    finally:
        contestant.close()


def _measure(contestant: Ready, query: str, documents: Sequence[str]) -> Memory:
    contestant.score(query, documents[:1])
    loaded = resident("VmRSS")
    reset_peak()
    contestant.score(query, documents)
    return Memory(loaded, resident("VmHWM"))


def resident(name: str) -> int:
    """A line of the kernel's account of this process, in bytes: VmRSS is now, VmHWM the most."""
    status = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return int(next(line for line in status if line.startswith(name)).split()[1]) * 1024


def reset_peak() -> None:
    """Set the high-water mark back to what is resident now."""
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
