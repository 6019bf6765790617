"""Queries by the million: the same scoring over files or a Ray dataset, in this process, on a cluster, or by a server.

Ray and pyarrow are imported when they are used, and not before.
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
    """The dataset's queries with their documents ranked, as another dataset that is computed when it is asked for.

    Args:
        dataset: rows as `onelogit bulk` takes them: query_id, query and documents, or query_id, document_id, query and
            document.
        model: hub id, or path of a folder that every node has; for a server, its address as the option `url`.
        workers: actors, each with a reranker of its own.
        cpus_per_worker: of a cluster that has more than all workers take, since the rest of the dataset needs some.
        gpus_per_worker: 1 for a model on a GPU.
        **options: see `OpenOptions`.

    Returns:
        A row for each pair, in any order of queries, those of a query together and from best to worst: query_id,
        document_id, logit, score, rank, error, model. Equal logits are in the order of a row's documents, or of
        document_id where each row is a pair.

    Raises:
        InputError: Ray is not installed, or an option is unknown.
        OnelogitError: the model is not found, or not known.
    """
    check_packages("ray", "pyarrow")
    from onelogit.bulk.ray_engine import Pool, reranked_dataset  # noqa: PLC0415  loads Ray

    return reranked_dataset(dataset, model, options, Pool(workers, cpus_per_worker, gpus_per_worker))
