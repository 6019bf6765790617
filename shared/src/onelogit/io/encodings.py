"""The bytes of a file or of stdin -> lines in UTF-8, or an error for what is not text."""

import codecs
import io
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain

from onelogit.errors import InputError
from onelogit.io.lines import BYTE_ORDER_MARK, line_content

_UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_BINARY_STARTS = {
    b"%PDF": "a PDF file",
    b"PK\x03\x04": "a ZIP, Word or Excel file",
    b"\xd0\xcf\x11\xe0": "an old Word or Excel file",
    b"\x1f\x8b": "gzipped",  # on stdin; files are unzipped
    b"PAR1": "a Parquet file, whose name must end in .parquet",
    b"{\\rtf": "an RTF file",
    b"BZh91AY&SY": "compressed by bzip2",
    b"\xfd7zXZ": "compressed by xz",
    b"\x28\xb5\x2f\xfd": "compressed by Zstandard",
    b"SQLite format 3": "an SQLite database",
}


def as_utf8(lines: Iterator[bytes], name: str) -> Iterator[bytes]:
    """The lines, converted to UTF-8 if they begin with a byte order mark of UTF-16, as Excel writes it.

    Raises:
        InputError: the file begins like one of `_BINARY_STARTS`.
    """
    first = next(lines, b"")
    if kind := next((kind for start, kind in _BINARY_STARTS.items() if first.startswith(start)), None):
        raise InputError(f"{name} is {kind}, not text; save its texts as .txt, .csv or .jsonl, in UTF-8")
    if not first.startswith(_UTF16_MARKS):
        return chain([first], lines)
    content = b"".join([first, *lines])
    with suppress(UnicodeDecodeError):  # the mark may be the beginning of something else
        content = content.decode("utf-16").encode()
    return io.BytesIO(content)


def with_first(lines: Iterator[bytes]) -> tuple[str, Iterator[bytes]]:
    """The first line that is not blank, and all lines."""
    read: list[bytes] = []
    for line in lines:
        read.append(line)
        if content := line_content(line).strip():
            return content.decode("utf-8", "replace"), chain(read, lines)
    return "", iter(read)


def decoded(content: bytes, name: str) -> str:
    """The content of the file `name`; raises InputError, with the number of the line, if it is not UTF-8."""
    try:
        return content.removeprefix(BYTE_ORDER_MARK).decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(f"{name}, line {line}: not UTF-8: {error.reason}; save the file as UTF-8") from error
