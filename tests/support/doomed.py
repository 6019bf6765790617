"""What a process of a benchmark may turn out to be. In a file of its own: a fresh process has to find it."""

import os
import signal
from collections.abc import Sequence


class Doomed:
    """Fails when it is asked to, and is killed when it is timed."""

    def time(self, query: str, documents: Sequence[str]) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def fail(self) -> None:
        raise RuntimeError("it broke\nat the second line")
