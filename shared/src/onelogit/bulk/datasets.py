"""A Ray dataset of queries -> a dataset of their documents, ranked."""

from functools import partial
from typing import Any

from onelogit.bulk.input_rows import pairs_of
from onelogit.bulk.part_files import scored_table
from onelogit.bulk.ranking import rank_table
from onelogit.bulk.ray_engine import Pool, check_room
from onelogit.bulk.scoring import score_pairs
from onelogit.checkpoints.fingerprint import model_label, sent_name, sent_options
from onelogit.options import OpenOptions
from onelogit.registry import open_reranker

_QUERIES_OF_A_BLOCK = 16  # with some hundred documents each
_PAIRS_OF_A_BLOCK = 1024


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


def reranked(dataset: Any, model: str, options: OpenOptions, pool: Pool) -> Any:
    """What `onelogit.bulk.rerank` gives."""
    check_room(pool)
    sent = sent_options(model, options)
    label = model_label(model, sent)
    scored = in_blocks(dataset).map_batches(batch_size=1024, **pool.of(PairActor, sent_name(model), sent))
    return scored.groupby("query_id").map_groups(partial(rank_table, model=label), batch_format="pyarrow")


def in_blocks(dataset: Any) -> Any:
    """The dataset in blocks for many actors: one file is one block, which one would get while the others wait."""
    schema = dataset.schema()
    has_lists = schema is not None and "documents" in schema.names
    return dataset.repartition(target_num_rows_per_block=_QUERIES_OF_A_BLOCK if has_lists else _PAIRS_OF_A_BLOCK)
