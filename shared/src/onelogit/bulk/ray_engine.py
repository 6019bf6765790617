"""Slices -> parts, by actors of a Ray cluster.

What travels through Ray are the names of slices: each worker reads its own from the input and writes its own part, both
in folders that all nodes see. So nothing is shuffled, nothing has to fit in the object store, and what Ray runs twice,
after a worker or a node died, is written twice under one name.
"""

import logging
import math
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pyarrow
import ray
import ray.data
from ray.exceptions import RayError

from onelogit.bulk.input_rows import pairs_of
from onelogit.bulk.job import Done, Engine, Work, Worker, worker_name
from onelogit.bulk.part_files import scored_table
from onelogit.bulk.ranking import rank_table
from onelogit.bulk.scoring import score_pairs
from onelogit.bulk.shards import Shard
from onelogit.checkpoints.fingerprint import model_label, portable_spec
from onelogit.errors import InputError, OnelogitError
from onelogit.options import ModelSpec, OpenOptions
from onelogit.registry import open_reranker

logger = logging.getLogger(__name__)

_QUERIES_OF_A_BLOCK = 16  # with some hundred documents each
_PAIRS_OF_A_BLOCK = 1024


@dataclass(frozen=True, slots=True)
class Pool:
    """How many workers there are, and what each takes of the cluster.

    Attributes:
        workers: fewer do the work where the cluster has no room for all.
        cpus_per_worker: also the threads of a model on a CPU.
        gpus_per_worker: 0 for a model on a CPU.
    """

    workers: int = 1
    cpus_per_worker: float = 1
    gpus_per_worker: float = 0

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise InputError(f"workers must be an integer of at least 1, not {self.workers!r}")
        for name in ("cpus_per_worker", "gpus_per_worker"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise InputError(f"{name} must be a number from 0 up, not {value!r}")

    def of(self, worker: type, *arguments: object) -> dict[str, Any]:
        """The arguments of `map_batches` for workers of a class that is made with `arguments`."""
        return {
            "fn": worker,
            "fn_constructor_args": arguments,
            "compute": ray.data.ActorPoolStrategy(size=self.workers),
            "num_cpus": self.cpus_per_worker,
            "num_gpus": self.gpus_per_worker or None,
            "batch_format": "pyarrow",
        }


def check_room(pool: Pool) -> None:
    """Refuse a pool that would hold every CPU for good, while what feeds it waits for one, for good.

    Raises:
        InputError: the cluster has no CPU left beside the pool.
    """
    count, taken = ray.cluster_resources().get("CPU", 0), pool.workers * pool.cpus_per_worker
    if taken > count - 1:
        raise InputError(
            f"{pool.workers} workers take {taken:g} CPUs of the cluster's {count:g}, and the rest of the dataset needs "
            "one; lower workers or cpus_per_worker"
        )


def mention_room(pool: Pool) -> None:
    """Warn where no node has room for a worker: Ray waits without a word, for a cluster may yet get one."""
    need = {"CPU": pool.cpus_per_worker, "GPU": pool.gpus_per_worker}
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(all(node.get(kind, 0) >= count for kind, count in need.items()) for node in nodes):
        logger.warning("no node has the %s CPUs and %s GPUs of a worker: waiting for one that does", *need.values())


_DONE = pyarrow.schema(
    [
        ("number", pyarrow.int64()),
        ("rows", pyarrow.int64()),
        ("worker", pyarrow.string()),
        ("fault", pyarrow.string()),
    ]
)


class ShardActor:
    """A worker as Ray Data calls it: a table of slices in, a table of what is done out.

    What goes wrong in it is told, not raised: Ray would try it again, and print pages.
    """

    def __init__(self, work: Work) -> None:
        self._worker: Worker | None = None
        self._fault: str | None = None
        try:
            self._worker = Worker(work)
        except Exception as error:
            self._fault = _told(error)

    def __call__(self, batch: Any) -> Any:
        """Score the slices of a batch."""
        return pyarrow.Table.from_pylist([self._done(Shard(**row))._asdict() for row in batch.to_pylist()], _DONE)

    def _done(self, part: Shard) -> Done:
        if self._worker is None:
            return Done(part.number, part.rows, worker_name(), self._fault)
        try:
            return self._worker.score(part)
        except Exception as error:
            return Done(part.number, part.rows, worker_name(), _told(error))


def score_on_ray(pool: Pool, address: str | None = None) -> Engine:
    """The engine of large jobs.

    Args:
        pool: of the workers.
        address: of a cluster; None for the one that RAY_ADDRESS names, or else for one of this machine alone.
    """
    return partial(_score, pool, address)


def _score(pool: Pool, address: str | None, work: Work, shards: Sequence[Shard]) -> Iterator[Done]:
    with connected(address), quiet(), one_line():
        # A block for each slice: Ray gives blocks to workers, and would give all rows of one file to one of them.
        rows = ray.data.from_items([part._asdict() for part in shards], override_num_blocks=len(shards))
        pool = replace(pool, workers=min(pool.workers, len(shards)))
        mention_room(pool)
        for row in rows.map_batches(batch_size=1, **pool.of(ShardActor, work)).iter_rows():
            yield Done(**row)


class PairActor:
    """A reranker as Ray Data calls it: a table of rows in, a table of their scored pairs out.

    Args:
        model: hub id, absolute path, or URL; never a model, which would stay in Ray's memory, and go with it.
        options: of the reranker.
    """

    def __init__(self, model: str, options: OpenOptions) -> None:
        self._reranker = open_reranker(model, **options)

    def __call__(self, batch: Any) -> Any:
        """Score the pairs of a batch; `place` counts those of one row."""
        places, pairs = [], []
        for row in batch.to_pylist():
            for place, pair in enumerate(pairs_of(row)):
                places.append(place)
                pairs.append(pair)
        return scored_table(pairs, score_pairs(self._reranker, pairs), places)


def reranked_dataset(dataset: Any, model: str, options: OpenOptions, pool: Pool) -> Any:
    """What `onelogit.bulk.rerank` gives."""
    check_room(pool)
    spec = portable_spec(ModelSpec.of(model, options))
    label = model_label(spec)
    scored = in_blocks(dataset).map_batches(batch_size=1024, **pool.of(PairActor, spec.name, spec.open_options))
    return scored.groupby("query_id").map_groups(partial(rank_table, model=label), batch_format="pyarrow")


def in_blocks(dataset: Any) -> Any:
    """The dataset in blocks for many actors: one file is one block, which one would get while the others wait."""
    schema = dataset.schema()
    has_lists = schema is not None and "documents" in schema.names
    return dataset.repartition(target_num_rows_per_block=_QUERIES_OF_A_BLOCK if has_lists else _PAIRS_OF_A_BLOCK)


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Ray, as the caller has it already, or else while this lasts.

    Raises:
        OnelogitError: there is no cluster at the address, or it wants another token.
    """
    if ray.is_initialized():
        yield
        return
    try:
        _check_address(address or os.environ.get("RAY_ADDRESS", ""))
        ray.init(address, logging_level=logging.CRITICAL, log_to_driver=False)
    except (OSError, RuntimeError, ValueError, RayError) as error:
        raise OnelogitError(f"Ray cannot be reached at {address or 'this machine'}: {_told(error)}") from error
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def quiet() -> Iterator[None]:
    """Ray Data without bars and plans of its own: the caller counts rows."""
    context, logger = ray.data.DataContext.get_current(), logging.getLogger("ray.data")
    bars, level = context.enable_progress_bars, logger.level
    context.enable_progress_bars = False
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        context.enable_progress_bars = bars
        logger.setLevel(level)


@contextmanager
def one_line() -> Iterator[None]:
    """What Ray raises, as an error of ours."""
    try:
        yield
    except RayError as error:
        raise OnelogitError(f"a worker failed: {_told(error)}") from error


def _check_address(address: str) -> None:
    """Fail at once where nobody listens, which Ray itself would wait minutes for."""
    host, _, port = address.rpartition(":")
    if port.isdigit() and "://" not in host:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


def _told(error: BaseException) -> str:
    """One line: of the first cause, the last line of a report of Ray's, which names the error itself."""
    while (cause := getattr(error, "cause", None) or error.__cause__) is not None:
        error = cause
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    message = lines[-1] if lines else ""
    return message if isinstance(error, OnelogitError) else f"{type(error).__name__}: {message}"
