"""Faults at chosen moments: memory that runs out at an operation, Ctrl-C, and a process that dies or finds no disk.

`nox -s faults` sets FAULTS_MOMENTS and tries many moments; the suite tries a few of them.
"""

import json
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from support.prepared import Completed, run

Result = TypeVar("Result")

IS_LONG = bool(os.environ.get("FAULTS_MOMENTS"))
QUERY = "What is the capital of China?"
DOCUMENTS = [
    "Beijing is the capital of China.",
    "Bananas are yellow. " * 30,
    "서울은 대한민국의 수도이다.",
    "",
    *(f"Document {number} is about {'rivers ' * (number % 7)}and number {number}." for number in range(20)),
]

# Runs a command of onelogit, and does something at its file operation of the given number, which Python audits.
_PROGRAM = """
import os, signal, sys
at, fault, changes = int(sys.argv[1]), sys.argv[2], []
folder = sys.argv[3]
def audit(event, arguments):
    if event == "open":
        path, mode = arguments[0], arguments[1] or ""
        flags = arguments[2] if isinstance(arguments[2], int) else 0
        is_change = bool(set(str(mode)) & set("wax+")) or bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
    elif event in ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "shutil.rmtree"):
        path, is_change = arguments[0], True
    else:
        return
    if not is_change or folder not in str(path):
        return
    changes.append(event)
    if len(changes) == at:
        if fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if event != "os.remove":  # a full disk does not refuse to remove
            raise OSError(28, "No space left on device", str(path))
sys.addaudithook(audit)
code = 0
try:
    if sys.argv[4] == "save":
        from onelogit import Reranker
        Reranker.load(sys.argv[5]).save(sys.argv[6], force=True)
    else:
        from onelogit.cli.main import main
        code = main(sys.argv[4:])
except Exception as error:
    print(f"raised {type(error).__module__}.{type(error).__name__}: {error}", file=sys.stderr)
    code = 3
print(len(changes), flush=True)
sys.exit(code)
"""


def moments(few: int, many: int) -> range:
    """The numbers of the moments to try: a few in the suite, many in `nox -s faults`."""
    return range(many if IS_LONG else few)


def chosen(count: int, few: int, many: int, seed: int = 0) -> list[int]:
    """Some of the moments 1 to `count`, which were counted in a run without faults; all if there are so few."""
    numbers = range(1, count + 1)
    wanted = min(many if IS_LONG else few, count)
    return sorted(random.Random(seed).sample(numbers, wanted))


def _allocates(operation: Any, args: Any) -> bool:
    """Whether an operation takes memory for a new tensor: no view, nothing in place, and not empty."""
    is_empty = operation is torch.ops.aten.empty.memory_format and 0 in args[0]
    return not is_empty and any(
        isinstance(each.type, torch.TensorType) and each.alias_info is None for each in operation._schema.returns
    )


class MemoryRunsOut(TorchDispatchMode):
    """Counts the operations of this thread that allocate tensors, and lets memory run out at one of them.

    Args:
        at: the number of the operation that fails, from 1; None for none.
        lasts: whether all operations after it fail, too.
    """

    def __init__(self, at: int | None = None, *, lasts: bool = False) -> None:
        super().__init__()
        self.count, self._at, self._lasts = 0, at, lasts

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not _allocates(func, args):
            return func(*args, **(kwargs or {}))
        self.count += 1
        if self._at is not None and (self.count == self._at or (self._lasts and self.count > self._at)):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return func(*args, **(kwargs or {}))


def interrupted_after(delay_s: float, call: Callable[[], Result]) -> Result | None:
    """The result of a call, or None if Ctrl-C ended it after so many seconds. For the main thread."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with _lost_interrupts():
            signal.setitimer(signal.ITIMER_REAL, max(delay_s, 1e-5))
            result = call()
            signal.setitimer(signal.ITIMER_REAL, 0)
            return result
    except KeyboardInterrupt:
        return None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def steps_of(call: Callable[[], object]) -> int:
    """How many steps this thread makes in a call. At each, Ctrl-C can end it; also at each round of a loop."""
    return _run_to(0, call)


def interrupted_at(step: int, call: Callable[[], object]) -> bool:
    """Whether a call reached a step, numbered from 1, at which Ctrl-C ended it."""
    try:
        return _run_to(step, call) >= step
    except KeyboardInterrupt:
        return True


def _run_to(step: int, call: Callable[[], object]) -> int:
    """Python looks for signals when one of its functions starts, and when one that is written in C has returned."""
    count = 0

    def note(frame: object, event: str, argument: object) -> None:
        nonlocal count
        if event in ("call", "c_return"):
            count += 1
            if count == step:
                sys.setprofile(None)
                raise KeyboardInterrupt

    with _lost_interrupts():
        sys.setprofile(note)
        try:
            call()
        finally:
            sys.setprofile(None)
    return count


@contextmanager
def _lost_interrupts() -> Iterator[None]:
    """Ctrl-C while Python frees an object ends nothing, and Python says so; that is no fault of what it interrupts."""
    before = sys.unraisablehook
    sys.unraisablehook = lambda args: None if args.exc_type is KeyboardInterrupt else before(args)
    try:
        yield
    finally:
        sys.unraisablehook = before


def answer_of(call: Callable[[], Result], timeout_s: float = 60) -> Result:
    """The result of a call in another thread, which may wait for ever."""
    answers: SimpleQueue[Result] = SimpleQueue()
    threading.Thread(target=lambda: answers.put(call()), daemon=True).start()
    return answers.get(timeout=timeout_s)


def seconds_of(call: Callable[[], object]) -> float:
    """How long a call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def run_with_fault(fault: str, at: int, folder: Path, *arguments: object, timeout_s: float = 120) -> Completed:
    """Run a command of onelogit, or `save MODEL FOLDER`, in a process that has a fault.

    Args:
        fault: "kill" ends the process with SIGKILL, "full" is a full disk.
        at: before which change of a file in the folder; 0 for never.
        folder: whose files count.
        *arguments: of the command.
        timeout_s: after which the test fails.
    """
    return run(["-c", _PROGRAM, at, fault, folder, *arguments], timeout_s=timeout_s)


def changes_of(completed: Completed) -> int:
    """The number of changes of files that a run without a fault made."""
    assert completed.returncode == 0, completed
    return int(completed.stdout.strip().splitlines()[-1])


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Within the block, writing more than `size` bytes into a file fails, for this process and its children."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def one_sentence(message: str) -> str:
    """The message of a command that failed, which has one line and no traceback."""
    lines = [line for line in message.splitlines() if line.strip()]
    assert lines, "it failed without a message"
    assert "Traceback" not in message, message
    return lines[-1]


def json_lines(path: Path) -> Sequence[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
