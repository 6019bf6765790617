"""Reranking of millions of queries in files or a Ray dataset: in this process, on a Ray cluster, or by a server.

Ray and pyarrow are imported only when they are used.
"""

from typing import TYPE_CHECKING

from typing_extensions import Unpack

from onelogit.errors import check_packages
from onelogit.options import OpenOptions

if TYPE_CHECKING:
    from ray.data import Dataset


def rerank(
    dataset: "Dataset",
    model: str,
    /,
    *,
    workers: int = 1,
    cpus_per_worker: float = 1,
    gpus_per_worker: float = 0,
    **options: Unpack[OpenOptions],
) -> "Dataset":
    """Rank the documents of a dataset's queries. The result is computed lazily.

    Args:
        dataset: rows as in `onelogit bulk`: query_id, query and documents, or query_id, document_id, query and
            document.
        model: hub id, or path of a folder on every node; for a server, pass the option `url`.
        workers: number of actors, each with its own reranker.
        cpus_per_worker: CPUs of each actor; the cluster needs at least one more CPU for the rest of the dataset.
        gpus_per_worker: 1 for a model on a GPU.
        **options: see `OpenOptions`.

    Returns:
        A row for each pair: query_id, document_id, logit, score, rank, error, model. The rows of a query are together,
        from best to worst; queries are in any order. Equal logits are in the order of a row's documents, or of
        document_id if each row is a pair.

    Raises:
        InputError: Ray is not installed, or an option is unknown.
        OnelogitError: as `open_reranker`.
    """
    check_packages("ray", "pyarrow", extra="ray")
    from onelogit.bulk.ray_engine import WorkerPool, rerank_dataset  # noqa: PLC0415  loads Ray

    return rerank_dataset(dataset, model, options, WorkerPool(workers, cpus_per_worker, gpus_per_worker))
