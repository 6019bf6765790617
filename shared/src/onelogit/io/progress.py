"""Work that takes a while -> the same, with a bar or a spinner on stderr; where that is no terminal, nothing at all."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, TypeVar

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, TextColumn, TimeElapsedColumn

Item = TypeVar("Item")


class Advance(Protocol):
    """Moves a bar by an amount, and may give it another description."""

    def __call__(self, amount: float, description: str | None = None) -> None: ...


def is_shown() -> bool:
    """Whether stderr is a terminal, so that somebody sees a bar."""
    return sys.stderr is not None and sys.stderr.isatty()


def tracked(items: Sequence[Item], description: str) -> Iterable[Item]:
    """The items, with a bar while they are gone through."""
    with progress_bar(description, len(items)) as advance:
        for item in items:
            yield item
            advance(1)


@contextmanager
def progress_bar(description: str, total: float, completed: int = 0, refreshes_per_s: float = 10) -> Iterator[Advance]:
    """A bar while the block runs, gone afterwards.

    Args:
        description: stands before it.
        total: amount at its end.
        completed: amount at its start.
        refreshes_per_s: how often it is drawn anew; few where drawing would disturb what is measured.
    """
    columns = [*Progress.get_default_columns()]
    with _progress(columns, refreshes_per_s) as progress:
        task = progress.add_task(escape(description), total=total, completed=completed)

        def advance(amount: float, description: str | None = None) -> None:
            progress.update(task, advance=amount, description=None if description is None else escape(description))

        yield advance


@contextmanager
def waiting(description: str) -> Iterator[None]:
    """A spinner and a clock while the block runs, gone afterwards: for work whose end is not known."""
    with _progress([SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()]) as progress:
        progress.add_task(escape(description), total=None)
        yield


@contextmanager
def _progress(columns: Sequence[ProgressColumn], refreshes_per_s: float = 10) -> Iterator[Progress]:
    for column in columns:
        if isinstance(column, BarColumn):
            column.bar_width = 20  # leaves a narrow terminal room for the words
    progress = Progress(
        *columns,
        console=Console(stderr=True),
        transient=True,
        disable=not is_shown(),
        refresh_per_second=refreshes_per_s,
    )
    with _others_hidden(), progress:
        yield progress


@contextmanager
def _others_hidden() -> Iterator[None]:
    """Keep the bars of transformers and of the hub away meanwhile: two that draw on the same lines spoil both."""
    from transformers.utils import logging  # noqa: PLC0415  not for who shows no bar

    if not is_shown() or not logging.is_progress_bar_enabled():
        yield
        return
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.enable_progress_bar()  # type: ignore[no-untyped-call]
