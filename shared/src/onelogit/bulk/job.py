"""`onelogit bulk`: files in, ranked files out; stopped at any moment and started again, it goes on."""

import os
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from pyarrow import ArrowException, compute
from typing_extensions import Unpack

from onelogit.bulk.input_rows import ScoringPair, pairs_of
from onelogit.bulk.output_folder import RunFolder, RunRecord, part_of_shard
from onelogit.bulk.part_files import read_part, row_count, scored_table, write_part
from onelogit.bulk.ranking import grouped_tables, rank_table
from onelogit.bulk.scoring import score_pairs
from onelogit.bulk.shards import Plan, Shard, ShardReader, plan_shards
from onelogit.checkpoints.fingerprint import model_label, portable_spec
from onelogit.errors import InputError, OnelogitError, first_line
from onelogit.io.progress import progress_bar, waiting
from onelogit.options import ModelSpec, OpenOptions
from onelogit.registry import open_reranker
from onelogit.validation import checked_count, checked_path

SLICE_ROWS = 1000
_MOST_PAIRS_OF_A_SHARD = 2**40


class Work(NamedTuple):
    """What a worker has to know, in any process: plain data.

    Attributes:
        model: hub id, absolute path, or URL.
        options: of the reranker.
        scored: the folder of the run's parts.
    """

    model: str
    options: OpenOptions
    scored: str


class Done(NamedTuple):
    """A slice whose part is written.

    Attributes:
        number: of the slice.
        rows: that it was made of.
        worker: who did it, host and process.
        fault: why the part is not written after all; None where it is.
    """

    number: int
    rows: int
    worker: str
    fault: str | None = None


class Outcome(NamedTuple):
    """What a run wrote."""

    pairs: int
    errors: int


Engine = Callable[[Work, Sequence[Shard]], Iterator[Done]]


class Worker:
    """One reranker that turns slices into parts. What it writes is the same whoever else wrote it before.

    Raises:
        OnelogitError: as `open_reranker`.
    """

    def __init__(self, work: Work) -> None:
        self._reranker = open_reranker(work.model, **work.options)
        self._folder = Path(work.scored)
        self._reader = ShardReader()

    def score(self, part: Shard) -> Done:
        """Read, score and write one slice."""
        pairs = located_pairs(part, self._reader)
        scored = score_pairs(self._reranker, pairs)
        table = scored_table(pairs, scored, places(part.number, pairs))
        write_part(table, part_of_shard(self._folder, part.number))
        return Done(part.number, part.rows, worker_name())


def located_pairs(part: Shard, reader: ShardReader) -> list[ScoringPair]:
    """The pairs of a slice; those that have no id say where they stand."""
    rows = enumerate(reader.rows(part), start=part.start + 1)
    name = Path(part.file).name
    return [pair.found_at(f"{name}, row {number}") for number, row in rows for pair in pairs_of(row)]


def places(slice_number: int, pairs: Sequence[ScoringPair]) -> range:
    """Where the pairs of a slice stand among all."""
    first = slice_number * _MOST_PAIRS_OF_A_SHARD
    return range(first, first + len(pairs))


def worker_name() -> str:
    """This process among those of all hosts."""
    return f"{socket.gethostname()}:{os.getpid()}"


def score_here(work: Work, shards: Sequence[Shard]) -> Iterator[Done]:
    """The engine of small jobs: one worker, in this process, loaded at once."""
    return map(Worker(work).score, shards)


def run(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    model: str | ModelSpec,
    /,
    *,
    engine: Engine = score_here,
    slice_rows: int = SLICE_ROWS,
    is_overwriting: bool = False,
    **options: Unpack[OpenOptions],
) -> Outcome:
    """Rerank all queries of some files.

    Args:
        source: a .parquet or .jsonl file, or a folder of them.
        output: the folder of the results.
        model: hub id or path of a folder; or URL of a server, as in `open_reranker`; or a spec, with the options.
        engine: scores slices, in any order; see `score_here` and `onelogit.bulk.ray_engine`.
        slice_rows: rows that are scored in one sitting, and lost where a worker is killed.
        is_overwriting: replace results of another run.
        **options: see `OpenOptions`.

    Raises:
        InputError: the input cannot be read, or the folder holds something else, or another run is writing to it.
        OnelogitError: what was written is not what was to be written; or as `open_reranker`.
    """
    checked_count("slice_rows", slice_rows)
    spec = portable_spec(model if isinstance(model, ModelSpec) else ModelSpec.of(model, options))
    source, output = checked_path(source), checked_path(output)
    _check_output(output, source)
    plan = plan_shards(source, slice_rows)
    new = RunRecord(model=model_label(spec), input=plan.digest, slice_rows=slice_rows)
    folder = RunFolder(output.absolute(), new)
    work = Work(spec.name, spec.open_options, str(folder.scored))
    try:
        with folder.claimed(is_overwriting=is_overwriting) as known:
            return _finished(known, plan, folder, work, engine)
    except (OSError, ArrowException) as error:
        place, said = getattr(error, "filename", None), getattr(error, "strerror", None) or first_line(error)
        named = said if place is None else f"{place}: {said}"
        raise OnelogitError(f"{named}; once that is mended, run the same command again") from error


def _check_output(output: Path, source: Path) -> None:
    if source.is_dir() and output.absolute().resolve().is_relative_to(source.absolute().resolve()):
        raise InputError(f"{output} lies in {source}, whose files are the input; name a folder outside it")
    if output.is_file():
        raise InputError(f"{output} is a file; results are a folder")


def _finished(known: RunRecord, plan: Plan, folder: RunFolder, work: Work, engine: Engine) -> Outcome:
    """What a run wrote: the one that stands in the folder, gone on with unless it is finished already."""
    if known.pairs is not None and known.errors is not None:
        folder.clean()
        return _still_there(folder, Outcome(known.pairs, known.errors))
    _score(work, plan, folder, engine)
    outcome = _ranked(plan, folder, known.model)
    folder.write(replace(known, **outcome._asdict()))
    folder.clean()
    return outcome


def _score(work: Work, plan: Plan, folder: RunFolder, engine: Engine) -> None:
    scored = folder.scored_slices()
    left = [part for part in plan.shards if part.number not in scored]
    is_done = plan.row_count - sum(part.rows for part in left)
    with waiting(f"loading {work.model}"):
        results = engine(work, left) if left else iter(())
    with progress_bar("scoring rows", plan.row_count, is_done) as advance:
        for done in results:
            if done.fault is not None:
                raise OnelogitError(f"worker {done.worker}: {done.fault}")
            advance(done.rows)


def _ranked(plan: Plan, folder: RunFolder, model: str) -> Outcome:
    parts = [part_of_shard(folder.scored, part.number) for part in plan.shards]
    if missing := [part.name for part in parts if not part.is_file()]:
        raise OnelogitError(f"{len(missing)} of {len(parts)} slices are not scored, {missing[0]} for one; run it again")
    expected = sum(map(row_count, parts))
    for number, table in enumerate(grouped_tables(parts, folder.make_drafts(), expected)):
        write_part(rank_table(table, model), folder.part_of_results(number))
    return _checked(folder, expected)


def _still_there(folder: RunFolder, outcome: Outcome) -> Outcome:
    """What a finished run wrote.

    Raises:
        OnelogitError: a part of it is gone.
    """
    _check_count(folder, sum(row_count(part, remove=folder.path) for part in folder.results()), outcome.pairs)
    return outcome


def _check_count(folder: RunFolder, pairs: int, expected: int) -> None:
    if pairs != expected:
        raise OnelogitError(f"{folder.path} holds {pairs} pairs of {expected}; remove it and run it again")


def _checked(folder: RunFolder, expected: int) -> Outcome:
    """What the results hold, read back.

    Raises:
        OnelogitError: a pair is missing, or there twice.
    """
    pairs = errors = 0
    for part in folder.results():
        table = read_part(part, columns=["query_id", "document_id", "error"])
        fine = table.filter(compute.is_null(table["error"]))
        if fine.group_by(["query_id", "document_id"]).aggregate([]).num_rows != fine.num_rows:
            raise OnelogitError(f"{part} holds a pair twice; remove {folder.path} and run it again")
        pairs, errors = pairs + table.num_rows, errors + table.num_rows - fine.num_rows
    _check_count(folder, pairs, expected)
    return Outcome(pairs, errors)
