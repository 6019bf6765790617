"""A target that fails, for a worker process. In a file of its own, because a new process has to import it."""

import os
import signal
from collections.abc import Sequence


class FailingTarget:
    """Raises in `fail`, and kills its process in `time`."""

    def time(self, query: str, documents: Sequence[str]) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def fail(self) -> None:
        raise RuntimeError("it broke\nat the second line")
