"""Labels and figures -> a table that fits the terminal: columns that do not fit follow below, with the labels again."""

import os
from collections.abc import Iterable, Iterator, Sequence

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.table import Table
from rich.text import Text

Cell = str | Text

_LABEL_WIDTH = 16  # characters that longer labels keep if the figures leave room for no more
_WORD_WIDTH = 24  # up to this many characters, a word of a label is not cut
_TEXT_WIDTH = 24  # the same for a column of texts
_BETWEEN_COLUMNS = 2  # characters, including the one after the last column
_INDENT = 1


def console(*, is_error: bool = False, soft_wrap: bool = False) -> Console:
    """A console for stdout or stderr. Without a terminal, or if NO_COLOR is set, it writes plain text.

    Rich itself leaves out only colours if NO_COLOR is set, and writes bold and dim text to a terminal nevertheless.
    """
    colours = None if os.environ.get("NO_COLOR") else "auto"
    return Console(stderr=is_error, soft_wrap=soft_wrap, highlight=False, color_system=colours)  # type: ignore[arg-type]


class FigureTable:
    """A table of figures, whose first column labels the rows. It takes the width of the console that prints it.

    Figures are never cut or folded. Those that do not fit beside the labels follow in a table below, and a cell with a
    line break has one only if that lets it fit. Labels, and columns of `texts`, are wrapped between words.

    Args:
        columns: their headings; the first one is that of the labels.
        title: a line above the table, which may be wider than the table.
        caption: lines below the table.
        texts: headings of columns that contain texts instead of figures.
    """

    def __init__(
        self, columns: Sequence[str], *, title: Cell = "", caption: Cell = "", texts: Iterable[str] = ()
    ) -> None:
        self.title, self.caption = title, caption
        self._columns = [Text(name, style="bold") for name in columns]
        self._are_texts = [index == 0 or name in {*texts} for index, name in enumerate(columns)]
        self._rows: list[list[Text]] = []
        self._headings: set[int] = set()
        self._last_of_sections: set[int] = set()

    def add_row(self, *cells: Cell) -> None:
        """Add a row: its label, and a cell for each other column. Missing cells at its end are empty."""
        texts = [Text(cell) if isinstance(cell, str) else cell for cell in cells]
        self._rows.append([*texts, *(Text() for _ in range(len(self._columns) - len(texts)))])

    def add_heading(self, text: str) -> None:
        """Add a row that only names the rows below it."""
        self._headings.add(len(self._rows))
        self.add_row(Text(text, style="bold"))

    def add_section(self) -> None:
        """Separate the rows so far from those that follow."""
        self._last_of_sections.add(len(self._rows) - 1)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        if self.title:
            yield Text.assemble(self.title, style="bold")
        for columns, is_on_one_line in self._parts(options.max_width):
            yield self._part(columns, options.max_width, is_on_one_line=is_on_one_line)
        if self.caption:
            yield Text.assemble(self.caption, style="dim")

    def _parts(self, width: int) -> Iterator[tuple[list[int], bool]]:
        """The columns of each table that is drawn, and whether its cells are without line breaks."""
        others = [*range(1, len(self._columns))]
        for is_on_one_line in (True, False):
            if self._room(others, width, is_on_one_line=is_on_one_line) >= self._label_width():
                yield others, is_on_one_line
                return
        part: list[int] = []
        for index in others:
            if part and self._room([*part, index], width, is_on_one_line=False) < self._label_width():
                yield part, False
                part = []
            part.append(index)
        yield part, False

    def _room(self, columns: Sequence[int], width: int, *, is_on_one_line: bool) -> int:
        """The characters that these columns leave for the labels."""
        used = sum(self._width(index, is_on_one_line=is_on_one_line) + _BETWEEN_COLUMNS for index in columns)
        return width - used - _BETWEEN_COLUMNS - _INDENT

    def _label_width(self) -> int:
        labels = [self._columns[0], *(row[0] for row in self._rows)]
        longest_word = max(cell_len(word) for label in labels for word in (label.plain.split() or [""]))
        least = max(_LABEL_WIDTH, longest_word if longest_word <= _WORD_WIDTH else 0)
        return min(self._width(0, is_on_one_line=True), least)

    def _width(self, index: int, *, is_on_one_line: bool) -> int:
        cells = [self._columns[index], *(row[index] for row in self._rows)]
        lines = [" ".join(cell.plain.split("\n")) for cell in cells] if is_on_one_line else []
        lines += [] if is_on_one_line else [line for cell in cells for line in cell.plain.split("\n")]
        widest = max(map(cell_len, lines))
        return min(widest, _TEXT_WIDTH) if index > 0 and self._are_texts[index] else widest

    def _part(self, columns: Sequence[int], width: int, *, is_on_one_line: bool) -> Table:
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        room = max(1, self._room(columns, width, is_on_one_line=is_on_one_line))
        for index in (0, *columns):
            is_text = self._are_texts[index]
            table.add_column(
                _shown(self._columns[index], is_on_one_line=is_on_one_line),
                justify="left" if is_text else "right",
                no_wrap=not is_text,
                overflow="fold",
                max_width=room if index == 0 else None,
                min_width=None if is_text else self._width(index, is_on_one_line=is_on_one_line),
            )
        for number, row in enumerate(self._rows):
            if number not in self._headings and not any(row[index].plain for index in columns):
                continue
            cells = [_shown(row[index], is_on_one_line=is_on_one_line) for index in (0, *columns)]
            is_last = number in self._last_of_sections and number + 1 < len(self._rows)
            table.add_row(*cells, end_section=is_last)
        return table


def _shown(cell: Text, *, is_on_one_line: bool) -> Text:
    return Text(" ").join(cell.split("\n")) if is_on_one_line and "\n" in cell.plain else cell
