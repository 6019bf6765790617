"""`onelogit bulk`: input files -> result files. An interrupted run continues when it is started again."""

import json
import logging
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from pyarrow import ArrowException, compute
from typing_extensions import Unpack

from onelogit.bulk.beir_rows import Candidates
from onelogit.bulk.input_rows import ScoringPair, pairs_of
from onelogit.bulk.output_folder import RunFolder, RunRecord, shard_path
from onelogit.bulk.part_files import read_part, row_count, scored_table, write_part
from onelogit.bulk.ranking import grouped_tables, rank_table
from onelogit.bulk.scoring import score_pairs
from onelogit.bulk.shards import Shard, ShardPlan, ShardReader, plan_shards
from onelogit.checkpoints.fingerprint import model_label, portable_spec
from onelogit.errors import InputError, OnelogitError, first_line
from onelogit.io.progress import progress_bar, waiting
from onelogit.io.text_fields import UnreadFields
from onelogit.model_spec import ModelSpec
from onelogit.options import OpenOptions
from onelogit.registry import open_reranker
from onelogit.validation import checked_count, checked_path, with_whole_characters

logger = logging.getLogger(__name__)

DEFAULT_SLICE_ROWS = 1000
_MAX_PAIRS_PER_SHARD = 2**40


class WorkerSpec(NamedTuple):
    """The arguments of a worker in any process, as plain data.

    The model is a hub id, an absolute path, or a url, with the reranker's options. Part files go to `scored_folder`.
    """

    model: str
    options: OpenOptions
    scored_folder: str


class ShardResult(NamedTuple):
    """A shard that a worker has finished.

    Attributes:
        number, rows: of the shard.
        worker: host and process id of the worker.
        error: the reason why the part file was not written, or None.
        unread: the `UnreadFields` of the shard, as JSON; "" for none.
        empty_rows: the number of rows whose list of documents is empty.
    """

    number: int
    rows: int
    worker: str
    error: str | None = None
    unread: str = ""
    empty_rows: int = 0


@dataclass(frozen=True, slots=True)
class RunSummary:
    """The number of pairs that a run wrote, and how many of them are errors.

    `was_complete` is whether an earlier run had written all of them.
    """

    pairs: int
    errors: int
    was_complete: bool = field(default=False, compare=False)


BulkEngine = Callable[[WorkerSpec, Sequence[Shard]], Iterator[ShardResult]]


class ShardPairs(NamedTuple):
    """The pairs of a shard, and what `ShardResult` reports of its rows."""

    pairs: list[ScoringPair]
    unread: str
    empty_rows: int


class ShardWorker:
    """A reranker that scores shards into part files. A shard always gives the same file.

    Raises:
        OnelogitError: as `open_reranker`.
    """

    def __init__(self, spec: WorkerSpec) -> None:
        self._reranker = open_reranker(spec.model, **spec.options)
        self._scored_folder = Path(spec.scored_folder)
        self._reader = ShardReader()

    def score(self, shard: Shard) -> ShardResult:
        """Read a shard, score it, and write its part file."""
        pairs, unread, empty_rows = read_pairs(shard, self._reader)
        table = scored_table(pairs, score_pairs(self._reranker, pairs), pair_positions(shard.number, pairs))
        write_part(table, shard_path(self._scored_folder, shard.number))
        return ShardResult(shard.number, shard.rows, worker_name(), unread=unread, empty_rows=empty_rows)


def read_pairs(shard: Shard, reader: ShardReader) -> ShardPairs:
    """The pairs of a shard; errors of pairs without a query_id name the row."""
    name, unread = Path(shard.file).name, UnreadFields()
    rows = [pairs_of(row, unread) for row in reader.rows(shard)]
    numbered = enumerate(rows, start=shard.start + 1)
    pairs = [pair.with_location(f"{name}, row {number}") for number, row in numbered for pair in row]
    documents = with_whole_characters([pair.document for pair in pairs])
    whole = [pair._replace(document=document) for pair, document in zip(pairs, documents, strict=True)]
    return ShardPairs(whole, json.dumps(unread), rows.count([]))


def pair_positions(shard_number: int, pairs: Sequence[ScoringPair]) -> range:
    """The positions of a shard's pairs; they increase from shard to shard."""
    first = shard_number * _MAX_PAIRS_PER_SHARD
    return range(first, first + len(pairs))


def worker_name() -> str:
    """A name that identifies this process among all hosts."""
    return f"{socket.gethostname()}:{os.getpid()}"


def score_in_process(spec: WorkerSpec, shards: Sequence[Shard]) -> Iterator[ShardResult]:
    """The engine without Ray: one worker in this process, loaded by the call."""
    return map(ShardWorker(spec).score, shards)


def run(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    model: str | ModelSpec,
    /,
    *,
    engine: BulkEngine = score_in_process,
    slice_rows: int = DEFAULT_SLICE_ROWS,
    is_overwriting: bool = False,
    candidates: Candidates | None = None,
    **options: Unpack[OpenOptions],
) -> RunSummary:
    """Rerank all queries of the input files.

    Args:
        source: a Parquet, JSONL, CSV or TSV file, or a folder of them; or a folder in BEIR format.
        output: the folder of the results.
        model: hub id, path of a folder, or url of a server, as in `open_reranker`; or a `ModelSpec`, without `options`.
        engine: scores shards in any order; see `score_in_process`, `score_on_ray` and `score_by_vllm`.
        slice_rows: maximum rows of a shard, which are scored and written together, and scored again if their worker is
            killed.
        is_overwriting: replace the results of another run.
        candidates: which documents of a folder in BEIR format are ranked; by default, the judged ones.
        **options: see `OpenOptions`.

    Raises:
        InputError: the input cannot be read, the output folder has other content, or another run is writing to it.
        OnelogitError: the results are incomplete or cannot be written; or as `open_reranker`.
    """
    checked_count("slice_rows", slice_rows)
    model_spec = portable_spec(ModelSpec.of(model, options))
    source, output = checked_path(source), checked_path(output)
    _check_output(output, source)
    plan = plan_shards(source, slice_rows, candidates)
    new = RunRecord(model=model_label(model_spec), input=plan.digest, slice_rows=slice_rows)
    folder = RunFolder(output.absolute(), new)
    spec = WorkerSpec(model_spec.name, model_spec.open_options, str(folder.scored))
    try:
        with folder.claimed(is_overwriting=is_overwriting) as record:
            return _finish(record, plan, folder, spec, engine)
    except (OSError, ArrowException) as error:
        path, reason = getattr(error, "filename", None), getattr(error, "strerror", None) or first_line(error)
        located = reason if path is None else f"{path}: {reason}"
        raise OnelogitError(f"{located}; once this is fixed, run the same command again") from error


def _check_output(output: Path, source: Path) -> None:
    if source.is_dir() and output.absolute().resolve().is_relative_to(source.absolute().resolve()):
        raise InputError(f"{output} is inside the input folder {source}; name an output folder outside it")
    if output.is_file():
        raise InputError(f"{output} is a file; results are written to a folder")


def _finish(record: RunRecord, plan: ShardPlan, folder: RunFolder, spec: WorkerSpec, engine: BulkEngine) -> RunSummary:
    """Complete the run; if it is complete already, check that its results still exist."""
    if record.pairs is None or record.errors is None:
        _score(spec, plan, folder, engine)
        summary = _rank(plan, folder, record.model)
        folder.write_record(replace(record, pairs=summary.pairs, errors=summary.errors))
    else:
        summary = RunSummary(record.pairs, record.errors, was_complete=True)
        _check_count(folder, sum(row_count(part, remove=folder.path) for part in folder.results()), summary.pairs)
    folder.clean()
    return summary


def _score(spec: WorkerSpec, plan: ShardPlan, folder: RunFolder, engine: BulkEngine) -> None:
    scored = folder.scored_shards()
    remaining = [shard for shard in plan.shards if shard.number not in scored]
    completed = plan.row_count - sum(shard.rows for shard in remaining)
    with waiting(f"loading {spec.model}"):
        results = engine(spec, remaining) if remaining else iter(())
    unread, empty_rows = UnreadFields(), 0
    with progress_bar("scoring rows", plan.row_count, completed) as advance:
        for result in results:
            if result.error is not None:
                raise OnelogitError(f"worker {result.worker}: {result.error}")
            unread.update(json.loads(result.unread or "{}"))
            empty_rows += result.empty_rows
            advance(result.rows)
    unread.report(plan.name)
    if empty_rows:
        logger.warning("%s: rows with an empty list of documents, which give no result: %s", plan.name, empty_rows)


def _rank(plan: ShardPlan, folder: RunFolder, model: str) -> RunSummary:
    parts = [shard_path(folder.scored, shard.number) for shard in plan.shards]
    if missing := [part.name for part in parts if not part.is_file()]:
        raise OnelogitError(
            f"{len(missing)} of {len(parts)} shards were not scored, the first is {missing[0]}; "
            "run the same command again"
        )
    pair_count = sum(map(row_count, parts))
    with folder.drafts() as drafts:
        for number, table in enumerate(grouped_tables(parts, Path(drafts), pair_count)):
            write_part(rank_table(table, model), folder.result_path(number))
    return _check_results(folder, pair_count)


def _check_results(folder: RunFolder, expected: int) -> RunSummary:
    """Read the results back and count them.

    Raises:
        OnelogitError: a pair is missing or duplicated.
    """
    pairs = errors = 0
    for part in folder.results():
        table = read_part(part, columns=["query_id", "document_id", "error"])
        ranked = table.filter(compute.is_null(table["error"]))
        if ranked.group_by(["query_id", "document_id"]).aggregate([]).num_rows != ranked.num_rows:
            raise OnelogitError(f"{part} contains a pair twice; remove {folder.path} and run the same command again")
        pairs, errors = pairs + table.num_rows, errors + table.num_rows - ranked.num_rows
    _check_count(folder, pairs, expected)
    return RunSummary(pairs, errors)


def _check_count(folder: RunFolder, pairs: int, expected: int) -> None:
    if pairs != expected:
        raise OnelogitError(
            f"{folder.path} contains {pairs} of {expected} pairs; remove it and run the same command again"
        )
