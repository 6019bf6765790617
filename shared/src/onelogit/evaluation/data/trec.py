"""Files of three to six columns -> judgements and runs, as TREC and BEIR write them."""

from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from onelogit.errors import InputError
from onelogit.evaluation.data.bad_lines import Faults, id_of, label_of
from onelogit.io.text_files import TextLine, read_lines

Judgements = dict[str, dict[str, int]]
Found = dict[str, list[str]]


def read_judgements(path: Path, queries: Collection[str], documents: Collection[str], faults: Faults) -> Judgements:
    """Labels by query and document: `query-id corpus-id score` as in BEIR, or `query 0 document label` as in TREC.

    Args:
        path: a heading is passed over.
        queries: the ids that are known.
        documents: the ids that are known.
        faults: takes lines that cannot be read, have an unknown id, or contradict an earlier one.

    Raises:
        InputError: there is no line that counts.
    """
    judgements: Judgements = {}

    def judge(line: TextLine) -> None:
        query, document, label = _judgement(line)
        _check_known(query, document, queries, documents)
        if judgements.setdefault(query, {}).setdefault(document, label) != label:
            raise InputError(f"the document {document!r} has two labels for the query {query!r}")

    _each(_without_heading(path), judge, "judgements", faults)
    if not any(judgements.values()):
        raise InputError(f"{path} holds no judgement: write query-id, corpus-id and score, with tabs between them")
    return judgements


def read_run(path: Path, queries: Collection[str], documents: Collection[str], faults: Faults) -> Found:
    """The documents that a first stage found for each query, best first: `query Q0 document rank score name`.

    They are sorted by score; those with the same score by rank.

    Args:
        path: of the run.
        queries: the ids that are known.
        documents: the ids that are known.
        faults: takes lines that cannot be read, have an unknown id, or name a document twice.

    Raises:
        InputError: there is no line that counts.
    """
    rows: dict[str, dict[str, tuple[float, float]]] = {}

    def find(line: TextLine) -> None:
        query, document, key = _run_row(line)
        _check_known(query, document, queries, documents)
        if document in rows.setdefault(query, {}):
            raise InputError(f"the document {document!r} stands twice for the query {query!r}")
        rows[query][document] = key

    _each(read_lines(path), find, "lines of the run", faults)
    if not any(rows.values()):
        raise InputError(f"{path} holds no run: write query, Q0, document, rank, score and a name, a line each")
    return {query: sorted(found, key=found.__getitem__) for query, found in rows.items()}


def _each(lines: Iterator[TextLine], use: Callable[[TextLine], None], kind: str, faults: Faults) -> None:
    for line in lines:
        try:
            use(line)
        except InputError as fault:
            faults.add(kind, line.place, fault)


def _without_heading(path: Path) -> Iterator[TextLine]:
    for number, line in enumerate(read_lines(path)):
        words = line.content.lower().split()
        if number > 0 or not words or words[0] not in (b"query-id", b"query_id", b"qid", b"topic"):
            yield line


def _judgement(line: TextLine) -> tuple[str, str, int]:
    columns = _columns(line)
    if len(columns) not in (3, 4):
        raise InputError(f"{len(columns)} columns where query-id, corpus-id and score are expected")
    return id_of(columns[0], "the query's id"), id_of(columns[-2], "the document's id"), label_of(columns[-1])


def _run_row(line: TextLine) -> tuple[str, str, tuple[float, float]]:
    columns = _columns(line)
    if len(columns) != 6:
        raise InputError(f"{len(columns)} columns where six are expected: query, Q0, document, rank, score, name")
    rank, score = (_number(column) for column in columns[3:5])
    return columns[0], columns[2], (-score, rank)


def _columns(line: TextLine) -> list[str]:
    text = line.text()
    return [column.strip() for column in text.split("\t")] if "\t" in text else text.split()


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if number != number:  # noqa: PLR0124  only NaN is not itself
        raise InputError(f"rank and score must be numbers, not {text!r}")
    return number


def _check_known(query: str, document: str, queries: Collection[str], documents: Collection[str]) -> None:
    if query not in queries:
        raise InputError(f"the query {query!r} is not among the queries")
    if document not in documents:
        raise InputError(f"the document {document!r} is not in the corpus")
