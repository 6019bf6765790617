"""A folder in BEIR format -> Dataset. It holds corpus.jsonl, queries.jsonl and qrels/*.tsv, each plain or gzipped."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from onelogit.errors import InputError
from onelogit.evaluation.data.bad_lines import BadLines, checked_id
from onelogit.evaluation.data.dataset import Dataset, LabelledQuery
from onelogit.evaluation.data.jsonl import NO_RELEVANT_DOCUMENT, other_fields
from onelogit.evaluation.data.trec import read_judgements, read_run
from onelogit.io.lines import TextLine
from onelogit.io.text_fields import document_of, text_of
from onelogit.io.text_files import find_beir_file, read_lines

Value = TypeVar("Value")

_JUDGEMENT_ENDINGS = (".tsv", ".tsv.gz", ".qrels", ".qrels.gz")


def read_beir(
    folder: Path, bad_lines: BadLines, *, split: str | None = None, changed: Path | None = None, run: Path | None = None
) -> Dataset:
    """The queries, documents and labels of a folder.

    Args:
        folder: contains `corpus.jsonl` (`_id`, `text`, optionally `title`) and `queries.jsonl` (`_id`, `text`); other
            fields of a query describe it.
        bad_lines: collects malformed lines, unknown ids, and ids that occur twice.
        split: the file in `qrels/` to use, without its extension; by default "test" or the only file.
        changed: file of judgements under another instruction.
        run: run file of a first stage, in TREC format.

    Raises:
        InputError: a file is missing, or there is no document, query or judgement.
    """
    documents = _by_id(folder, "corpus.jsonl", document_of, "documents", bad_lines)
    queries = _by_id(folder, "queries.jsonl", _query, "queries", bad_lines)
    path = _judgements_path(folder, split)
    judgements = read_judgements(path, queries, documents, bad_lines)
    changed_labels = {} if changed is None else read_judgements(changed, queries, documents, bad_lines)
    labelled = [
        replace(query, labels=judgements[id], changed_labels=changed_labels.get(id))
        for id, query in queries.items()
        if id in judgements
    ]
    kept = [query for query in labelled if query.relevant]
    if not kept:
        raise InputError(f"{path} makes no document relevant to any query, which takes a score of 1 or more")
    excluded = {"not judged": len(queries) - len(labelled), NO_RELEVANT_DOCUMENT: len(labelled) - len(kept)}
    dataset = Dataset(
        name=folder.absolute().name,
        documents=documents,
        queries=kept,
        first_stage="BM25",
        excluded={reason: count for reason, count in excluded.items() if count},
        excluded_ids=frozenset(queries).difference(query.id for query in kept),
    )
    return dataset if run is None else with_run(dataset, run, bad_lines)


def with_run(dataset: Dataset, run: Path, bad_lines: BadLines) -> Dataset:
    """The dataset with the candidates of a run file in TREC format; queries that are not in it get no candidates.

    Raises:
        InputError: the run is empty, or has no line for a query of the dataset.
    """
    known = {query.id for query in dataset.queries} | dataset.excluded_ids
    rankings = read_run(run, known, dataset.documents, bad_lines)
    queries = [replace(query, candidates=tuple(rankings.get(query.id, ()))) for query in dataset.queries]
    if not any(query.candidates for query in queries):
        raise InputError(f"{run} contains none of the {len(queries)} queries that have relevant documents")
    return replace(dataset, queries=queries, first_stage=f"the run {run.name}")


def _by_id(
    folder: Path, name: str, read: Callable[[dict[str, Any]], Value], kind: str, bad_lines: BadLines
) -> dict[str, Value]:
    path = find_beir_file(folder, name)
    if path is None:
        raise InputError(
            f"{folder} has no {name}; a folder in BEIR format has corpus.jsonl, queries.jsonl and qrels/*.tsv"
        )
    values: dict[str, Value] = {}

    def read_line(line: TextLine) -> None:
        fields = line.fields()
        id = checked_id(fields.get("_id"), '"_id"')
        if id in values:
            raise InputError(f"the id {id!r} occurs twice")
        values[id] = read(fields)

    bad_lines.read_each(kind, read_lines(path), read_line)
    if not values:
        raise InputError(f"{path} contains no {kind}")
    return values


def _query(fields: dict[str, Any]) -> LabelledQuery:
    return LabelledQuery(
        id=checked_id(fields["_id"], '"_id"'),
        text=text_of(fields, "text", is_blank_allowed=False),
        labels={},
        fields=other_fields(fields, {"_id", "text"}),
    )


def _judgements_path(folder: Path, split: str | None) -> Path:
    files = [file for place in (folder / "qrels", folder) if place.is_dir() for file in sorted(place.iterdir())]
    by_split = {
        file.name.partition(".")[0]: file
        for file in reversed(files)
        if file.is_file() and file.name.endswith(_JUDGEMENT_ENDINGS)
    }
    splits = ", ".join(sorted(by_split))
    if not by_split:
        raise InputError(f"{folder} has no judgements; put query-id, corpus-id and score into qrels/test.tsv")
    if split is None and len(by_split) > 1 and "test" not in by_split:
        raise InputError(f"{folder} has judgements for {splits}; name one of them as --split")
    wanted = split or ("test" if "test" in by_split else next(iter(by_split)))
    if wanted not in by_split:
        raise InputError(f"{folder} has no judgements for {wanted!r}, only for {splits}")
    return by_split[wanted]
