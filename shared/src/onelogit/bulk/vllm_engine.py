"""Shards -> part files, by vLLM on a Ray cluster: Ray Data's vLLM stage between `RowEncoder` and `decode_row`.

The model must have been written by `onelogit convert`. vLLM reads token ids from onelogit's encoder, so prompts,
truncation and the handling of control tokens do not depend on vLLM's version. It returns raw logits.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import ray.data

from onelogit.bulk.input_rows import ScoringPair
from onelogit.bulk.job import BulkEngine, ShardResult, WorkerSpec, pair_positions, read_pairs, worker_name
from onelogit.bulk.output_folder import shard_path
from onelogit.bulk.part_files import scored_table, write_part
from onelogit.bulk.ray_engine import WorkerPool, ray_session, warn_if_no_node_fits
from onelogit.bulk.scoring import pair_result
from onelogit.bulk.shards import Shard, ShardReader
from onelogit.checkpoints.load_encoder import LoadedEncoder, load_encoder
from onelogit.checkpoints.resolve import resolve_model
from onelogit.errors import InputError
from onelogit.model_spec import ModelSpec
from onelogit.options import OpenOptions
from onelogit.recipes.recipe import Activation

_BATCH_ROWS = 256  # vLLM's stage has several batches in flight
_RESULT_COLUMNS = ("number", "pairs", "unread", "empty_rows", "position", "query_id", "document_id", "query")
_OPTIONS = {
    *("revision", "token", "recipe", "dtype", "device", "max_tokens", "instruction", "activation"),
    *("allow_control_tokens", "long_documents"),
}
_PLACEHOLDER_IDS = [0]  # for a row that has an error already, because vLLM needs some prompt


def load_converted_encoder(model: str, options: OpenOptions) -> LoadedEncoder:
    """The encoder of a folder that `onelogit convert` wrote.

    Raises:
        InputError: an option has no effect with this engine, or the model is not converted.
        OnelogitError: as `Reranker.load`.
    """
    _check_options(options)
    resolved = resolve_model(ModelSpec.of(model, options))
    config = json.loads(resolved.texts["config.json"])
    is_classifier = any(name.endswith("ForSequenceClassification") for name in config.get("architectures") or ())
    if not is_classifier or resolved.adapter is not None:
        raise InputError(f"{model} is not a sequence classifier; convert it with: onelogit convert {model} -o FOLDER")
    return load_encoder(resolved, config.get("max_position_embeddings"))


def _check_options(options: OpenOptions) -> None:
    if options.get("long_documents") == "chunk_max":
        raise InputError("engine vllm does not support long_documents='chunk_max'; use another engine")
    if options.get("device") not in (None, "cuda", "cpu"):
        raise InputError(f"engine vllm runs on 'cuda', or with a CPU build on 'cpu', not on {options['device']!r}")
    for name, value in options.items():
        if name not in _OPTIONS and value is not None and value is not False:
            raise InputError(f"engine vllm does not support the option {name!r}")


class RowEncoder:
    """Adds the columns that vLLM's stage needs to the row of a pair: token ids, and the request for a raw logit.

    It is pickled as its spec, and loads its tokenizer in the process that uses it.
    """

    def __init__(self, spec: WorkerSpec) -> None:
        self._spec = spec
        self._loaded: LoadedEncoder | None = None

    def __reduce__(self) -> tuple[type["RowEncoder"], tuple[WorkerSpec]]:
        return RowEncoder, (self._spec,)

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The columns to add to a row."""
        if self._loaded is None:
            self._loaded = load_converted_encoder(self._spec.model, self._spec.options)
        ids, error = _PLACEHOLDER_IDS, row["error"]
        if error is None:
            try:
                encoder = self._loaded.encoder
                ids = [*encoder.rows([(row["query"], row["document"])], encoder.instruction)[0].ids]
            except InputError as input_error:
                error = str(input_error)
        return {"tokenized_prompt": ids, "pooling_params": {"use_activation": False}, "error": error}


def decode_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row from vLLM's stage as the row of a pair with its logit or its error."""
    error = row["error"] or row.get("__inference_error__") or None
    logit = None if error is not None else float(row["embeddings"][0])
    if logit is not None and not math.isfinite(logit):
        logit, error = None, f"the logit is {logit}"
    return {**{name: row[name] for name in _RESULT_COLUMNS}, "error": error, "logit": logit}


def score_by_vllm(pool: WorkerPool, address: str | None = None) -> BulkEngine:
    """The engine that scores shards by vLLM, on a cluster as in `score_on_ray`; each worker is one of vLLM's engines.

    The model is split over the GPUs of a worker, which is at least one, except with the option `device="cpu"` and a CPU
    build of vLLM.
    """
    return partial(_score, pool, address)


def _score(pool: WorkerPool, address: str | None, spec: WorkerSpec, shards: Sequence[Shard]) -> Iterator[ShardResult]:
    loaded = load_converted_encoder(spec.model, spec.options)  # errors are reported before anything is started
    if pool.gpus_per_worker != int(pool.gpus_per_worker):
        raise InputError(f"an engine of vLLM takes whole GPUs, not {pool.gpus_per_worker:g}")
    gpus = 0 if spec.options.get("device") == "cpu" else max(pool.gpus_per_worker, 1)
    with ray_session(address):
        warn_if_no_node_fits(replace(pool, gpus_per_worker=gpus))
        rows = ray.data.from_items([shard._asdict() for shard in shards], override_num_blocks=len(shards))
        scored = _processor(pool, spec, loaded.encoder.max_tokens)(rows.flat_map(pair_rows)).iter_rows()
        yield from write_shards(scored, spec, spec.options.get("activation") or loaded.model.recipe.activation, shards)


def pair_rows(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of a shard's pairs; one row with an error if it has none, so that its part file is written, too."""
    shard = Shard(**row)
    pairs, unread, empty_rows = read_pairs(shard, ShardReader())
    common = {"number": shard.number, "pairs": len(pairs), "unread": unread, "empty_rows": empty_rows}
    listed = pairs or [ScoringPair(None, None, error="no pairs")]
    return [{**common, "position": position, **pair._asdict()} for position, pair in enumerate(listed)]


def write_shards(
    rows: Iterator[Mapping[str, Any]], spec: WorkerSpec, activation: Activation, shards: Sequence[Shard]
) -> Iterator[ShardResult]:
    """Write each shard once all its rows have arrived, in any order; a row may arrive twice."""
    arrived: dict[int, dict[int, Mapping[str, Any]]] = {shard.number: {} for shard in shards}
    shard_rows = {shard.number: shard.rows for shard in shards}
    for row in rows:
        number = row["number"]
        if number not in arrived:
            continue  # written already
        # Ray does not call `decode_row` for the rows of failed requests.
        arrived[number][row["position"]] = row if "logit" in row else decode_row(row)
        if len(arrived[number]) >= row["pairs"]:
            by_position = arrived.pop(number)
            _write_shard(spec, number, [by_position[position] for position in range(row["pairs"])], activation)
            yield ShardResult(
                number, shard_rows[number], worker_name(), unread=row["unread"], empty_rows=row["empty_rows"]
            )


def _write_shard(spec: WorkerSpec, number: int, rows: Sequence[Mapping[str, Any]], activation: Activation) -> None:
    pairs = [ScoringPair(row["query_id"], row["document_id"], row["query"]) for row in rows]
    results = [pair_result(row["logit"] if row["error"] is None else row["error"], activation) for row in rows]
    table = scored_table(pairs, results, pair_positions(number, pairs))
    write_part(table, shard_path(Path(spec.scored_folder), number))


def engine_settings(pool: WorkerPool, spec: WorkerSpec, max_tokens: int) -> dict[str, Any]:
    """The settings of Ray Data's vLLM stage."""
    is_on_cpu = spec.options.get("device") == "cpu"
    return {
        "model_source": spec.model,
        "task_type": "classify",
        "batch_size": _BATCH_ROWS,
        "concurrency": pool.workers,
        "engine_kwargs": {
            "max_model_len": max_tokens,
            "tensor_parallel_size": int(pool.gpus_per_worker) or 1,
            **{name: spec.options[name] for name in ("dtype", "revision") if spec.options.get(name)},
        },
        # Without this, Ray would wait for a GPU forever.
        "placement_group_config": {"bundle_per_worker": {"CPU": pool.cpus_per_worker}} if is_on_cpu else None,
        "chat_template_stage": False,
        "tokenize_stage": False,
        "detokenize_stage": False,
        "should_continue_on_error": True,
        "log_engine_metrics": False,  # needs a port
    }


def _processor(pool: WorkerPool, spec: WorkerSpec, max_tokens: int) -> Any:
    from ray.data.llm import build_processor, vLLMEngineProcessorConfig  # noqa: PLC0415  needs ray[llm]

    config = vLLMEngineProcessorConfig(**engine_settings(pool, spec, max_tokens))
    return build_processor(config, preprocess=RowEncoder(spec), postprocess=decode_row)
