"""Long-running work -> the same work, with a rich progress bar or spinner on stderr while it runs."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from importlib.util import find_spec
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Protocol, TypeVar, cast

from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from onelogit.io.lines import shortened
from onelogit.io.tables import console
from onelogit.processes import run_in_forked_children
from onelogit.threads import Outcome, start_thread

Item = TypeVar("Item")
ShowCompleted = Callable[[int], object]  # takes the number of rows completed so far

_LINE_INTERVAL_S = 10
_NARROW = 60  # characters of a terminal
_SPEED_PERIOD_S = 3600  # rich forgets older updates; with its 30 s, slow work would never tell the time left
_OTHER_COLUMNS = 50  # characters that a bar leaves for the description, the counts and the time left


class Advance(Protocol):
    """Moves a bar by an amount, and optionally changes its description."""

    def __call__(self, amount: float, description: str | None = None) -> None: ...


def is_shown() -> bool:
    """Whether stderr is a terminal."""
    return sys.stderr is not None and sys.stderr.isatty()


def tracked(items: Sequence[Item], description: str) -> Iterable[Item]:
    """Iterate over the items with a progress bar."""
    with progress_bar(description, len(items)) as advance:
        for item in items:
            yield item
            advance(1)


@contextmanager
def progress_bar(
    description: str, total: float, completed: int = 0, *, unit: str = "", refreshes_per_s: float = 10
) -> Iterator[Advance]:
    """Show a bar with the count and the time left while the block runs, and remove it afterwards.

    Show nothing if stderr is not a terminal.

    Args:
        description: text before the bar.
        total: amount of work.
        completed: amount already done; the time left follows from the work since then.
        unit: of the amounts.
        refreshes_per_s: how often to redraw the bar; lower it if drawing would disturb a measurement.
    """
    with _running_display(_bar_columns(), refreshes_per_s) as display:
        room = max(9, display.console.width - _OTHER_COLUMNS)

        def shown(text: str) -> str:
            return escape(shortened(text, room))

        task = display.add_task(shown(description), total=total, completed=completed, unit=unit and f" {unit}")

        def advance(amount: float, description: str | None = None) -> None:
            display.update(task, advance=amount, description=None if description is None else shown(description))

        yield advance


@contextmanager
def waiting(description: str) -> Iterator[None]:
    """Show a spinner and the elapsed time while the block runs, if stderr is a terminal."""
    with _running_display([SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()]) as display:
        display.add_task(escape(description), total=None)
        yield


class RowProgress:
    """Counts completed rows, and unless `is_shown` is False, shows the count once the total is known. Thread-safe.

    The count is a bar in a terminal or a notebook with ipywidgets; elsewhere, a line every ten seconds and at the end.
    """

    def __init__(self, *, is_shown: bool) -> None:
        self._is_shown = is_shown
        self._lock = Lock()
        self._completed = 0
        self._show: ShowCompleted | None = None

    def __call__(self, count: int) -> None:
        """Add to the number of completed rows."""
        with self._lock:
            self._completed += count
            if self._show is not None:
                self._show(self._completed)

    @contextmanager
    def shown(self, total: int) -> Iterator[None]:
        """Show the rows completed before the block and during it, out of `total`."""
        if not self._is_shown:
            yield
            return
        is_drawn = is_shown() or (console(is_error=True).is_jupyter and find_spec("ipywidgets") is not None)
        with _row_bars.added(total) if is_drawn else nullcontext(_row_lines(total)) as show:
            with self._lock:
                self._show = show
                if self._completed:
                    show(self._completed)
            try:
                yield
            finally:
                with self._lock:
                    self._show = None


class _RowBars:
    """One display for all concurrent scoring calls, because two displays would overwrite each other's lines."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin anew; in a forked child, the threads that draw the bars, and may hold their lock, do not exist."""
        self._lock, self._display = Lock(), cast("Progress | None", None)

    @contextmanager
    def added(self, total: int) -> Iterator[ShowCompleted]:
        """Show one more bar while the block runs."""
        if console(is_error=True).is_jupyter:  # where other threads may not write below the current cell
            with self._drawn(total) as show:
                yield show
            return
        # In a thread of its own, where no Ctrl-C can come: half started or stopped, a display would spoil later ones.
        shown: Outcome[ShowCompleted] = Outcome()
        is_over: SimpleQueue[None] = SimpleQueue()
        thread = Thread(target=self._draw, args=(total, shown, is_over), name="onelogit-bar", daemon=True)
        try:
            start_thread(thread)
            yield shown.result()
        finally:
            is_over.put(None)
            if shown.is_set:
                thread.join()
            del shown  # an error refers to this frame, and to those of its caller

    def _draw(self, total: int, shown: Outcome[ShowCompleted], is_over: "SimpleQueue[None]") -> None:
        try:
            with self._drawn(total) as show:
                shown.set_result(show)
                is_over.get()
        except BaseException as error:
            if not shown.is_set:  # else it could not be removed, for example because stderr was closed
                shown.set_error(error)
        finally:
            del shown

    @contextmanager
    def _drawn(self, total: int) -> Iterator[ShowCompleted]:
        with self._lock:
            if self._display is None:
                display = _display(_bar_columns())
                display.start()
                self._display = display
            display = self._display
            task = display.add_task("reranking", total=total, unit="")
        try:
            yield lambda completed: display.update(task, completed=completed)
        finally:
            with self._lock:
                display.remove_task(task)
                if not display.task_ids:
                    self._display = None
                    display.stop()


_row_bars = _RowBars()
run_in_forked_children(_row_bars.forget)


def _row_lines(total: int) -> ShowCompleted:
    started = last_line = time.monotonic()

    def show(completed: int) -> None:
        nonlocal last_line
        now = time.monotonic()
        if sys.stderr is not None and (completed == total or now - last_line >= _LINE_INTERVAL_S):
            last_line = now
            share, elapsed_s = completed / total, now - started
            left = f", about {elapsed_s / share - elapsed_s:.0f} s left" if 0 < completed < total else ""
            sys.stderr.write(
                f"reranking: {share:.0%}, {completed}/{total} row{'s' * (total != 1)} in {elapsed_s:.1f} s{left}\n"
            )

    return show


def _bar_columns() -> list[ProgressColumn]:
    width = console(is_error=True).width
    counts = TextColumn("{task.completed:,.0f}/{task.total:,.0f}{task.fields[unit]}")
    share = [TaskProgressColumn()] if width >= _NARROW else []
    bar = BarColumn(bar_width=max(1, min(20, width - _OTHER_COLUMNS)))
    return [TextColumn("{task.description}"), bar, *share, counts, TimeRemainingColumn(), TextColumn("left")]


def _display(
    columns: Sequence[str | ProgressColumn], refreshes_per_s: float = 10, *, is_drawn: bool = True
) -> Progress:
    out = console(is_error=True)
    return Progress(
        *columns,
        console=out,
        transient=True,
        disable=not is_drawn,
        refresh_per_second=refreshes_per_s,
        speed_estimate_period=_SPEED_PERIOD_S,
    )


@contextmanager
def _running_display(columns: Sequence[str | ProgressColumn], refreshes_per_s: float = 10) -> Iterator[Progress]:
    with ExitStack() as stack:
        if is_shown():
            from transformers.utils import logging  # noqa: PLC0415  slow to import

            if logging.is_progress_bar_enabled():  # the bars of transformers and the hub would overwrite ours
                logging.disable_progress_bar()  # type: ignore[no-untyped-call]
                stack.callback(logging.enable_progress_bar)
        yield stack.enter_context(_display(columns, refreshes_per_s, is_drawn=is_shown()))
