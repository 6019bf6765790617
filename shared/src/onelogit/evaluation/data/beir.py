"""A folder in BEIR format -> Dataset. It holds corpus.jsonl, queries.jsonl and qrels/*.tsv, each plain or gzipped."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from onelogit.errors import InputError
from onelogit.evaluation.data.dataset import Dataset, LabelledQuery
from onelogit.evaluation.data.query_rows import NO_RELEVANT_DOCUMENT, other_fields
from onelogit.io.bad_lines import BadLines
from onelogit.io.beir import judgements_path, query_text_of, read_corpus, read_queries
from onelogit.io.text_fields import QUERY_ID_NAMES
from onelogit.io.trec import read_judgements, read_run


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
    documents = read_corpus(folder, bad_lines)
    queries = read_queries(folder, bad_lines, _query)
    path = judgements_path(folder, split)
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


def _query(id: str, fields: Mapping[str, Any]) -> LabelledQuery:
    return LabelledQuery(
        id=id, text=query_text_of(fields), labels={}, fields=other_fields(fields, {"_id", "text", *QUERY_ID_NAMES})
    )
