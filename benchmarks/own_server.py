"""A model -> `onelogit serve` in a process of its own, until the block ends; then it must end well."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.request import urlopen

from peer_server import free_port

START_S = 600
STOP_S = 60


@contextmanager
def served(model: str, *options: str) -> Iterator[tuple[str, int]]:
    """The url and the process id of a server that is ready, with further options of the command.

    Raises:
        SystemExit: it does not start, with what it printed; or its exit code after SIGTERM is not 0.
    """
    url = f"http://127.0.0.1:{(port := free_port())}"
    with TemporaryDirectory() as folder, Path(folder, "log").open("wb") as log:
        command = [sys.executable, "-m", "onelogit", "serve", model, "--port", str(port), *options]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            _wait(url, process, Path(log.name))
            yield url, process.pid
            process.terminate()
            if (code := process.wait(STOP_S)) != 0:
                sys.exit(f"the server ended with exit code {code}")
        finally:
            process.kill()
            process.wait()


def _wait(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    end = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < end:
        with suppress(OSError), urlopen(f"{url}/ready", timeout=10):  # 503 is an OSError, too
            return
        time.sleep(0.2)
    sys.exit(f"onelogit serve did not start: {log.read_text(encoding='utf-8', errors='replace')}")
