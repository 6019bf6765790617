"""Shards -> part files, and a Ray dataset -> a ranked dataset, by actors of a Ray cluster.

For files, only the numbers and ranges of shards pass through Ray. Each worker reads its shards from the input and
writes their part files, both in folders that all nodes can access. So nothing is shuffled, nothing must fit in the
object store, and a shard that Ray runs again, after a worker or node died, is written to the same file again.
"""

import logging
import math
import os
import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow
import ray
import ray.data
from ray.exceptions import RayError

from onelogit.bulk.input_rows import pairs_of
from onelogit.bulk.job import BulkEngine, ShardResult, ShardWorker, WorkerSpec, worker_name
from onelogit.bulk.part_files import scored_table
from onelogit.bulk.ranking import rank_table
from onelogit.bulk.scoring import score_pairs
from onelogit.bulk.shards import Shard
from onelogit.checkpoints.fingerprint import model_label, portable_spec
from onelogit.errors import InputError, OnelogitError
from onelogit.model_spec import ModelSpec
from onelogit.options import OpenOptions
from onelogit.registry import open_reranker

logger = logging.getLogger(__name__)

_QUERIES_PER_BLOCK = 16  # each with some hundred documents
_PAIRS_PER_BLOCK = 1024
_RESULT_SCHEMA = pyarrow.schema({
    "number": "int64", "rows": "int64", "worker": "string", "error": "string", "unread": "string",
    "empty_rows": "int64",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class WorkerPool:
    """The number of workers, and the resources of each.

    Attributes:
        workers: the maximum number; fewer run if the cluster has no room for all.
        cpus_per_worker: also the number of threads of a model on a CPU.
        gpus_per_worker: 0 for a model on a CPU.
    """

    workers: int = 1
    cpus_per_worker: float = 1
    gpus_per_worker: float = 0

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise InputError(f"workers must be a whole number from 1 up, not {self.workers!r}")
        for name in ("cpus_per_worker", "gpus_per_worker"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise InputError(f"{name} must be a number of at least 0, not {value!r}")

    def map_arguments(self, worker: type, *arguments: object) -> dict[str, Any]:
        """The arguments of `map_batches` for a pool of `worker(*arguments)`."""
        return {
            "fn": worker,
            "fn_constructor_args": arguments,
            "compute": ray.data.ActorPoolStrategy(size=self.workers),
            "num_cpus": self.cpus_per_worker,
            "num_gpus": self.gpus_per_worker or None,
            "batch_format": "pyarrow",
        }


def warn_if_no_node_fits(pool: WorkerPool) -> None:
    """Log a warning if no node can run a worker, because Ray waits silently: a cluster may still grow."""
    needs = {"CPU": pool.cpus_per_worker, "GPU": pool.gpus_per_worker}
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(all(node.get(kind, 0) >= count for kind, count in needs.items()) for node in nodes):
        logger.warning("no node has the %s CPUs and %s GPUs of a worker; waiting for such a node", *needs.values())


class ShardActor:
    """A worker that Ray Data can call: a table of shards in, a table of their results out.

    Errors are returned, not raised: Ray would retry them and print long reports.
    """

    def __init__(self, spec: WorkerSpec) -> None:
        self._worker: ShardWorker | None = None
        self._error: str | None = None
        try:
            self._worker = ShardWorker(spec)
        except Exception as error:
            self._error = _one_line(error)

    def __call__(self, batch: Any) -> Any:
        """Score the shards of a batch."""
        results = [self._score(Shard(**row))._asdict() for row in batch.to_pylist()]
        return pyarrow.Table.from_pylist(results, _RESULT_SCHEMA)

    def _score(self, shard: Shard) -> ShardResult:
        if self._worker is None:
            return ShardResult(shard.number, shard.rows, worker_name(), self._error)
        try:
            return self._worker.score(shard)
        except Exception as error:
            return ShardResult(shard.number, shard.rows, worker_name(), _one_line(error))


def score_on_ray(pool: WorkerPool, address: str | None = None) -> BulkEngine:
    """The engine that scores shards on a Ray cluster.

    Without an address, this is the cluster of the environment variable RAY_ADDRESS or, without it, a new local one.
    """
    return partial(_score, pool, address)


def _score(pool: WorkerPool, address: str | None, spec: WorkerSpec, shards: Sequence[Shard]) -> Iterator[ShardResult]:
    with ray_session(address):
        # One block per shard: Ray assigns blocks to workers, and one block of all rows would go to one worker.
        rows = ray.data.from_items([shard._asdict() for shard in shards], override_num_blocks=len(shards))
        pool = replace(pool, workers=min(pool.workers, len(shards)))
        warn_if_no_node_fits(pool)
        for row in rows.map_batches(batch_size=1, **pool.map_arguments(ShardActor, spec)).iter_rows():
            yield ShardResult(**row)


class PairActor:
    """A reranker that Ray Data can call: a table of rows in, a table of their scored pairs out.

    The model is a hub id, absolute path, or url; not a reranker, because Ray could not restore a lost one.
    """

    def __init__(self, model: str, options: OpenOptions) -> None:
        self._reranker = open_reranker(model, **options)

    def __call__(self, batch: Any) -> Any:
        """Score the pairs of a batch; the position of a pair is its position in its row."""
        positioned = [each for row in batch.to_pylist() for each in enumerate(pairs_of(row))]
        pairs = [pair for _, pair in positioned]
        return scored_table(pairs, score_pairs(self._reranker, pairs), [position for position, _ in positioned])


def rerank_dataset(dataset: Any, model: str, options: OpenOptions, pool: WorkerPool) -> Any:
    """See `onelogit.bulk.rerank`."""
    _check_free_cpu(pool)
    spec = portable_spec(ModelSpec.of(model, options))
    label = model_label(spec)
    actors = pool.map_arguments(PairActor, spec.name, spec.open_options)
    scored = split_blocks(dataset).map_batches(batch_size=1024, **actors)
    return scored.groupby("query_id").map_groups(partial(rank_table, model=label), batch_format="pyarrow")


def _check_free_cpu(pool: WorkerPool) -> None:
    """Refuse a pool that takes all CPUs: it would wait forever for its input, which needs a CPU, too."""
    count, taken = ray.cluster_resources().get("CPU", 0), pool.workers * pool.cpus_per_worker
    if taken > count - 1:
        raise InputError(
            f"{pool.workers} workers take {taken:g} CPUs of the cluster's {count:g}, and the rest of the dataset needs "
            "one; lower workers or cpus_per_worker"
        )


def split_blocks(dataset: Any) -> Any:
    """The dataset in blocks for many actors: Ray reads a file as one block, and assigns a block to one actor."""
    schema = dataset.schema()
    has_lists = schema is not None and "documents" in schema.names
    return dataset.repartition(target_num_rows_per_block=_QUERIES_PER_BLOCK if has_lists else _PAIRS_PER_BLOCK)


@contextmanager
def ray_session(address: str | None) -> Iterator[None]:
    """Connect to Ray for the block, unless it is connected, and silence the progress bars and logs of Ray Data.

    Raises:
        OnelogitError: the cluster cannot be reached or refuses the token, or a worker fails.
        InputError: a local cluster would have its files in the virtual environment.
    """
    with _connected(address), _quiet():
        try:
            yield
        except RayError as error:
            raise OnelogitError(f"a worker failed: {_one_line(error)}") from error


@contextmanager
def _connected(address: str | None) -> Iterator[None]:
    if ray.is_initialized():
        yield
        return
    given = address or os.environ.get("RAY_ADDRESS", "")
    if not given:
        _check_temporary_folder()
    try:
        _check_address(given)
        ray.init(address, logging_level=logging.CRITICAL, log_to_driver=False)
    except (OSError, RuntimeError, ValueError, RayError) as error:
        raise OnelogitError(f"Ray cannot be reached at {address or 'this machine'}: {_one_line(error)}") from error
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _quiet() -> Iterator[None]:
    context, ray_logger = ray.data.DataContext.get_current(), logging.getLogger("ray.data")
    has_bars, level = context.enable_progress_bars, ray_logger.level
    context.enable_progress_bars = False
    ray_logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        context.enable_progress_bars = has_bars
        ray_logger.setLevel(level)


def _check_temporary_folder() -> None:
    """Fail immediately where Ray would wait for ever, because its workers do not start."""
    folder = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    environment = os.environ.get("VIRTUAL_ENV")
    if environment and Path(folder).resolve().is_relative_to(Path(environment).resolve()):
        raise InputError(
            f"Ray's workers do not start with a temporary folder in the virtual environment ({folder}); set the "
            "environment variable TMPDIR to another one, such as /tmp"
        )


def _check_address(address: str) -> None:
    """Fail immediately if nothing listens at the address; Ray itself would wait for minutes."""
    host, _, port = address.rpartition(":")
    if port.isdigit() and "://" not in host:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


def _one_line(error: BaseException) -> str:
    """The last line of the original cause's message: in Ray's reports, that line names the error."""
    while (cause := getattr(error, "cause", None) or error.__cause__) is not None:
        error = cause
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    message = lines[-1] if lines else ""
    return message if isinstance(error, OnelogitError) else f"{type(error).__name__}: {message}"
