"""Judgement files and run files in the formats of TREC and BEIR -> labels and rankings."""

import math
from collections.abc import Collection, Iterator
from pathlib import Path

from onelogit.errors import InputError
from onelogit.io.bad_lines import BadLines, checked_id, checked_label
from onelogit.io.file_forms import read_lines
from onelogit.io.lines import TextLine

Judgements = dict[str, dict[str, int]]
Rankings = dict[str, list[str]]


def read_judgements(
    path: Path, queries: Collection[str], documents: Collection[str], bad_lines: BadLines
) -> Judgements:
    """Labels by query id and document id.

    Args:
        path: lines of `query-id corpus-id score` as in BEIR, or of `query 0 document label` as in TREC; a header line
            is skipped.
        queries: the known query ids.
        documents: the known document ids.
        bad_lines: collects lines that are malformed, contain an unknown id, or contradict an earlier line.

    Raises:
        InputError: the file contains no valid line.
    """
    judgements: Judgements = {}

    def read(line: TextLine) -> None:
        columns = _columns(line)
        if len(columns) not in (3, 4):
            raise InputError(f"found {len(columns)} columns; expected query-id, corpus-id and score")
        query, document = checked_id(columns[0], "the query id"), checked_id(columns[-2], "the document id")
        label = checked_label(columns[-1])
        _check_known(query, document, queries, documents)
        if judgements.setdefault(query, {}).setdefault(document, label) != label:
            raise InputError(f"the document {document!r} has two labels for the query {query!r}")

    bad_lines.read_each("judgements", _without_header(path), read)
    if not any(judgements.values()):
        raise InputError(f"{path} contains no judgement; write query-id, corpus-id and score, separated by tabs")
    return judgements


def read_run(path: Path, queries: Collection[str], documents: Collection[str], bad_lines: BadLines) -> Rankings:
    """The ids of the documents that a first stage found for each query, by score and then by rank, best first.

    Args:
        path: lines of `query Q0 document rank score name`.
        queries: the known query ids.
        documents: the known document ids.
        bad_lines: collects lines that are malformed, contain an unknown id, or repeat a document.

    Raises:
        InputError: the file contains no valid line.
    """
    sort_keys: dict[str, dict[str, tuple[float, float]]] = {}

    def read(line: TextLine) -> None:
        columns = _columns(line)
        if len(columns) != 6:
            raise InputError(f"found {len(columns)} columns; expected six: query, Q0, document, rank, score, name")
        query, document = columns[0], columns[2]
        rank, score = _number(columns[3]), _number(columns[4])
        _check_known(query, document, queries, documents)
        if document in sort_keys.setdefault(query, {}):
            raise InputError(f"the document {document!r} occurs twice for the query {query!r}")
        sort_keys[query][document] = (-score, rank)

    bad_lines.read_each("lines of the run", read_lines(path), read)
    if not any(sort_keys.values()):
        raise InputError(f"{path} contains no run; write query, Q0, document, rank, score and name on each line")
    return {query: sorted(keys, key=keys.__getitem__) for query, keys in sort_keys.items()}


def _without_header(path: Path) -> Iterator[TextLine]:
    for number, line in enumerate(read_lines(path)):
        words = line.content.lower().split()
        if number > 0 or not words or words[0] not in (b"query-id", b"query_id", b"qid", b"topic"):
            yield line


def _columns(line: TextLine) -> list[str]:
    text = line.text()
    return [column.strip() for column in text.split("\t")] if "\t" in text else text.split()


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if math.isnan(number):
        raise InputError(f"rank and score must be numbers, not {text!r}")
    return number


def _check_known(query: str, document: str, queries: Collection[str], documents: Collection[str]) -> None:
    if query not in queries:
        raise InputError(f"the query {query!r} is not among the queries")
    if document not in documents:
        raise InputError(f"the document {document!r} is not in the corpus")
