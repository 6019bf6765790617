"""The results of a run -> the kinds of errors in them, the commonest first."""

import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from pyarrow import compute

from onelogit.bulk.part_files import read_part

_LOCATION = re.compile(r"^.*?, row \d+: ")
_VARYING = re.compile(r"\d+|'[^']*'")  # numbers and values, in which errors of one kind differ


class ErrorKind(NamedTuple):
    """A kind of error: how many pairs have it, and the first of them."""

    pairs: int
    query_id: str | None
    error: str

    def __str__(self) -> str:
        where = "" if self.query_id is None else f"query {self.query_id!r}: "
        if self.pairs == 1:
            return f"1 has an error: {where}{self.error}"
        return f"{self.pairs:,} have an error like this: {where}{self.error}"


def common_errors(folder: Path, count: int = 3) -> list[ErrorKind]:
    """The commonest kinds of errors in the results of a run, at most `count`; a kind ignores numbers and quoted values.

    Raises:
        OnelogitError: a result file cannot be read.
    """
    pairs: Counter[str] = Counter()
    examples: dict[str, tuple[str | None, str]] = {}
    for part in sorted(folder.glob("part-*.parquet")):
        table = read_part(part, columns=["query_id", "error"])
        for row in table.filter(compute.is_valid(table["error"])).to_pylist():
            kind = _VARYING.sub("", _LOCATION.sub("", row["error"]))
            pairs[kind] += 1
            examples.setdefault(kind, (row["query_id"], row["error"]))
    return [ErrorKind(number, *examples[kind]) for kind, number in pairs.most_common(count)]
