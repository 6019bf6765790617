"""The content of a CSV, TSV or Parquet file -> its rows, as the fields that `onelogit.io.text_fields` reads."""

import csv
import io
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from onelogit.errors import InputError, check_packages, first_line
from onelogit.io.text_fields import (
    POSITIVE_NAMES,
    ROW_NAMES,
    TEXT_NAMES,
    UnreadFields,
    listed_documents,
    text_name_of,
)

_SEPARATORS = ",;\t|"
_EXCELS_FIRST_LINE = re.compile(r'"?sep=(.)"?\r?\n', re.IGNORECASE)  # names the separator
_HEADER = re.compile(r'["\w-]+(?:[,;\t]["\w-]+)+')
_MAX_NAMES = 20
_BATCH_ROWS = 1024


class TableRow(NamedTuple):
    """A row of a table: its `place`, file name and number, and its `cells` by column, or why it cannot be read."""

    place: str
    cells: Mapping[str, Any] | InputError

    def fields(self) -> Mapping[str, Any]:
        """The cells.

        Raises:
            InputError: the row has another number of cells than the first one; the message does not name the row.
        """
        if isinstance(self.cells, InputError):
            raise self.cells
        return self.cells


class TextTable(NamedTuple):
    """The rows of a table.

    Attributes:
        form: such as "CSV"; shown to the user.
        text_name: the column with the texts; None if the rows have lists of documents.
        has_titles: whether there is a column of titles.
        unread: the columns that are not part of a text, id or query.
        rows: all rows that are not blank; they can be read once.
    """

    form: str
    text_name: str | None
    has_titles: bool
    unread: list[str]
    rows: Iterator[TableRow]

    @property
    def columns(self) -> str:
        """The columns with the documents; shown to the user."""
        if self.text_name is None:
            return "lists of documents"
        return f"columns 'title' and {self.text_name!r}" if self.has_titles else f"column {self.text_name!r}"


class _Cells(NamedTuple):
    line: int  # the last line of the row, from 1
    cells: list[str]


def is_header(line: str) -> bool:
    """Whether the first line of a file is the header of a table: words, "text" among them or two other known names."""
    names = {*_words(line)} if _HEADER.fullmatch(line) else set()
    return "text" in names or (not names.isdisjoint(TEXT_NAMES) and len(names & ROW_NAMES) > 1)


def separated_table(text: str, name: str, text_name: str | None = None, *, is_tsv: bool = False) -> TextTable:
    """The rows of a CSV or TSV file.

    Args:
        text: the content of the file. Its first row has the names of the columns; but a TSV file may have none if its
            two columns are an id and a text, as in MS MARCO.
        name: of the file, for messages.
        text_name: the column with the texts; by default, the first of `TEXT_NAMES`.
        is_tsv: whether cells are separated by tabs; otherwise by commas, semicolons, tabs or bars.

    Raises:
        InputError: there is no such column.
    """
    if "\0" in text:
        raise InputError(f"{name} is not text, because it contains the character NUL; save it as UTF-8")
    separator = "\t" if is_tsv else None
    if match := _EXCELS_FIRST_LINE.match(text):
        separator, text = match[1], text[match.end() :]
    separator = separator or _separator_of(text, text_name)
    form = "TSV" if separator == "\t" else "CSV"
    rows = _rows(text, name, separator)
    if (header := next(rows, None)) is None:
        return TextTable("an empty table", "text", has_titles=False, unread=[], rows=iter(()))
    names = [cell.strip() for cell in header.cells]
    keys = [each.casefold() if each.casefold() in ROW_NAMES else each for each in names]
    if is_tsv and len(names) == 2 and text_name is None and {*keys}.isdisjoint(ROW_NAMES):
        form, names, keys = "TSV without a header", ["id", "text"], ["id", "text"]
        rows = _unquoted_rows(text, separator)
    if text_name is None and _has_lists(keys):
        return TextTable(form, None, has_titles=False, unread=[], rows=_table_rows(rows, keys, None, name, separator))
    column = _text_column(names, keys, name, text_name)
    key = text_name or column
    keys = [key if each == column else each for each in keys]
    has_titles = "title" in keys and key != "title"
    return TextTable(form, key, has_titles, _unread(keys, key), _table_rows(rows, keys, key, name, separator))


def parquet_table(path: Path, text_name: str | None = None, *, is_whole: bool = False) -> TextTable:
    """The rows of a Parquet file; if `is_whole`, with all columns, otherwise with those of documents and queries.

    Raises:
        InputError: pyarrow is not installed, the file cannot be read, or has no texts.
    """
    check_packages("pyarrow")
    from pyarrow import ArrowException, parquet  # noqa: PLC0415  an optional package

    @contextmanager
    def reading() -> Iterator[None]:
        try:
            yield
        except (OSError, ArrowException) as error:
            raise InputError(f"{path} cannot be read: {first_line(error)}") from error

    with reading():
        file = parquet.ParquetFile(path)
    names = list(file.schema_arrow.names)
    has_lists = text_name is None and listed_documents(dict.fromkeys(names, True)) is not None
    key = None if has_lists else text_name or text_name_of(dict.fromkeys(names, True))
    if not has_lists and key not in names:
        raise _no_text_column(names, str(path), text_name)
    read = [each for each in names if is_whole or each in ROW_NAMES or each == key]
    unread = [] if key is None else _unread(names, key)

    def rows() -> Iterator[TableRow]:
        number = 0
        with reading():
            for batch in file.iter_batches(_BATCH_ROWS, columns=read):
                for fields in batch.to_pylist():
                    yield TableRow(f"{path}, row {(number := number + 1)}", fields)

    return TextTable("Parquet", key, key not in (None, "title") and "title" in names, unread, rows())


def _has_lists(names: Sequence[str]) -> bool:
    """Whether the rows have no text, but positive and negative documents, as in training data."""
    return {*TEXT_NAMES}.isdisjoint(names) and not {*POSITIVE_NAMES}.isdisjoint(names)


def _unread(names: Sequence[str], text_name: str) -> list[str]:
    counted = UnreadFields()
    counted.count(dict.fromkeys(names, True), text_name)
    return [*counted]


def _words(line: str) -> list[str]:
    return [word.strip('"').casefold() for word in re.split("[,;\t|]", line.strip())]


def _separator_of(text: str, text_name: str | None) -> str:
    """The separator with which the first row has a known column and the most cells."""
    wanted = {text_name.casefold()} if text_name else {*TEXT_NAMES, *POSITIVE_NAMES}

    def quality(separator: str) -> tuple[bool, int]:
        try:
            cells = next(csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True), [])
        except csv.Error:
            return False, 0
        return not wanted.isdisjoint(cell.strip().casefold() for cell in cells), len(cells)

    return max(_SEPARATORS, key=quality)


def _rows(text: str, name: str, separator: str) -> Iterator[_Cells]:
    """The rows that are not blank. In TSV files, quotes are usually characters like any others; then they are kept."""
    with _long_cells():
        stream = io.StringIO(text, newline="")
        reader = csv.reader(stream, delimiter=separator, skipinitialspace=separator != "\t", strict=True)
        try:
            rows = [_Cells(reader.line_num, cells) for cells in reader]
        except csv.Error as error:
            if separator != "\t":
                raise InputError(f"{name}, line {reader.line_num}: not CSV: {error}") from error
            return _unquoted_rows(text, separator)
    if separator == "\t" and any("\n" in cell and "\t" in cell for _, cells in rows for cell in cells):
        return _unquoted_rows(text, separator)
    return (row for row in rows if any(cell.strip() for cell in row.cells))


def _unquoted_rows(text: str, separator: str) -> Iterator[_Cells]:
    lines = enumerate(text.split("\n"), start=1)
    return (_Cells(number, line.rstrip("\r").split(separator)) for number, line in lines if line.strip())


@contextmanager
def _long_cells() -> Iterator[None]:
    limit = csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # a C long, which has 32 bits on Windows
    try:
        yield
    finally:
        csv.field_size_limit(limit)


def _text_column(names: Sequence[str], keys: Sequence[str], name: str, text_name: str | None) -> str:
    """The key of the column with the texts."""
    if text_name is not None:
        key = next((each for each in keys if each.casefold() == text_name.strip().casefold()), "")
    else:
        key = next((each for each in TEXT_NAMES if each in keys), "")
    if not key:
        raise _no_text_column(names, name, text_name)
    if (count := [each.casefold() for each in keys].count(key.casefold())) > 1:
        raise InputError(f"{name} has {count} columns {key.casefold()!r}; rename all but one")
    return key


def _no_text_column(names: Sequence[str], name: str, text_name: str | None) -> InputError:
    listed = ", ".join(repr(each if len(each) <= 40 else f"{each[:39]}…") for each in names[:_MAX_NAMES])
    more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
    return InputError(
        f"{name} has no column {text_name or 'text'!r}; its columns are {listed}{more}; rename the one with the texts "
        "to 'text', or name it for rank: --text-column NAME"
    )


def _table_rows(
    rows: Iterator[_Cells], keys: Sequence[str], text_name: str | None, name: str, separator: str
) -> Iterator[TableRow]:
    """The rows with their columns; a cell that is empty is null, except a text."""
    for line, cells in rows:
        found: Mapping[str, Any] | InputError = InputError(
            f"{len(cells)} cells instead of {len(keys)}; put cells that contain {separator!r} in double quotes"
        )
        if len(cells) == len(keys):
            given = zip(keys, cells, strict=True)
            found = {key: None if not cell and key != text_name else cell for key, cell in given}
        yield TableRow(f"{name}, line {line}", found)
