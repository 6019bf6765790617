"""A folder in BEIR form -> DataSet: corpus.jsonl, queries.jsonl, qrels/*.tsv, each of them plain or gzipped."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from onelogit.errors import InputError
from onelogit.evaluation.data.bad_lines import Faults, id_of
from onelogit.evaluation.data.dataset import DataSet, JudgedQuery
from onelogit.evaluation.data.jsonl import NOTHING_RELEVANT, fields_of
from onelogit.evaluation.data.trec import Judgements, read_judgements, read_run
from onelogit.io.text_files import document_of, find_beir_file, read_lines, text_of

Entry = TypeVar("Entry")

_JUDGEMENTS = (".tsv", ".tsv.gz", ".qrels", ".qrels.gz")


def read_beir(
    folder: Path, faults: Faults, *, split: str | None = None, changed: Path | None = None, run: Path | None = None
) -> DataSet:
    """Queries and documents of a folder.

    Args:
        folder: with `corpus.jsonl` (`_id`, `text`, and `title` where there is one) and `queries.jsonl` (`_id`,
            `text`); fields of a query beyond these describe it.
        faults: takes lines that are none, and ids that are unknown or stand twice.
        split: which file of `qrels/`, without its ending; "test", or the only one, where not given.
        changed: judgements under another instruction.
        run: what a first stage found, in TREC form.

    Raises:
        InputError: a file is missing, or there is no document, query or judgement.
    """
    documents = _entries(_file(folder, "corpus.jsonl"), document_of, "documents", faults)
    texts = _entries(_file(folder, "queries.jsonl"), _query, "queries", faults)
    judgements_file = _judgements_file(folder, split)
    judgements = read_judgements(judgements_file, texts, documents, faults)
    changed_labels = {} if changed is None else read_judgements(changed, texts, documents, faults)
    queries = {id: _judged(query, judgements, changed_labels) for id, query in texts.items()}
    left_out = {
        "not judged": sum(id not in judgements for id in queries),
        NOTHING_RELEVANT: sum(id in judgements and not query.relevant for id, query in queries.items()),
    }
    kept = [query for query in queries.values() if query.relevant]
    if not kept:
        raise InputError(f"{judgements_file} makes no document relevant to any query: a score must be 1 or more")
    data = DataSet(
        name=folder.absolute().name,
        documents=documents,
        queries=kept,
        first_stage="BM25",
        left_out={reason: count for reason, count in left_out.items() if count},
        left_out_ids=frozenset(texts).difference(query.id for query in kept),
    )
    return data if run is None else with_run(data, run, faults)


def with_run(data: DataSet, run: Path, faults: Faults) -> DataSet:
    """The data with the candidates of a run in place of others; queries that it leaves out have none.

    Args:
        data: what it is about.
        run: in TREC form.
        faults: takes what is wrong with it.
    """
    found = read_run(run, {query.id for query in data.queries} | data.left_out_ids, data.documents, faults)
    queries = [replace(query, found=tuple(found.get(query.id, ()))) for query in data.queries]
    if not any(query.found for query in queries):
        raise InputError(f"{run} names none of the {len(queries)} queries that are judged")
    return replace(data, queries=queries, first_stage=f"the run {run.name}")


def _file(folder: Path, name: str) -> Path:
    path = find_beir_file(folder, name)
    if path is None:
        raise InputError(
            f"{folder} has no {name}: a folder in BEIR form has corpus.jsonl, queries.jsonl and qrels/*.tsv"
        )
    return path


def _judgements_file(folder: Path, split: str | None) -> Path:
    places = [folder / "qrels", folder]
    files = [file for place in places if place.is_dir() for file in sorted(place.iterdir()) if _is_judgements(file)]
    names = {file.name.partition(".")[0]: file for file in reversed(files)}
    if not names:
        raise InputError(f"{folder} has no judgements: put query-id, corpus-id and score into qrels/test.tsv")
    if split is None and len(names) > 1 and "test" not in names:
        raise InputError(f"{folder} has judgements for {', '.join(sorted(names))}: name one of them as --split")
    wanted = split or ("test" if "test" in names else next(iter(names)))
    if wanted not in names:
        raise InputError(f"{folder} has no judgements for {wanted!r}, but for {', '.join(sorted(names))}")
    return names[wanted]


def _is_judgements(file: Path) -> bool:
    return file.is_file() and file.name.endswith(_JUDGEMENTS)


def _entries(path: Path, read: Callable[[dict[str, Any]], Entry], kind: str, faults: Faults) -> dict[str, Entry]:
    entries: dict[str, Entry] = {}
    for line in read_lines(path):
        try:
            fields = line.fields()
            id = id_of(fields.get("_id"), '"_id"')
            if id in entries:
                raise InputError(f"the id {id!r} stands twice")
            entries[id] = read(fields)
        except InputError as fault:
            faults.add(kind, line.place, fault)
    if not entries:
        raise InputError(f"{path} is empty: it holds no {kind}")
    return entries


def _query(fields: dict[str, Any]) -> JudgedQuery:
    return JudgedQuery(
        id=id_of(fields["_id"], '"_id"'),
        text=text_of(fields, "text", is_blank_allowed=False),
        labels={},
        fields=fields_of(fields, {"_id", "text"}),
    )


def _judged(query: JudgedQuery, judgements: Judgements, changed: Judgements) -> JudgedQuery:
    return replace(query, labels=judgements.get(query.id, {}), changed_labels=changed.get(query.id))
