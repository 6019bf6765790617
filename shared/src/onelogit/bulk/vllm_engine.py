"""Slices -> parts, with vLLM on a Ray cluster: Ray Data's own engine stage, between two functions of ours.

The model is one that `onelogit convert` wrote. vLLM reads token ids that the core's encoder writes, so prompt, cuts and
the safety of control tokens are the core's, whatever vLLM's version makes of templates; and gives raw logits.
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
from onelogit.bulk.job import Done, Engine, Work, located_pairs, places, worker_name
from onelogit.bulk.output_folder import part_of_shard
from onelogit.bulk.part_files import scored_table, write_part
from onelogit.bulk.ray_engine import Pool, connected, mention_room, one_line, quiet
from onelogit.bulk.scoring import scored
from onelogit.bulk.shards import Shard, ShardReader
from onelogit.checkpoints.load_encoder import LoadedEncoder, load_encoder
from onelogit.checkpoints.resolve import resolve_model
from onelogit.errors import InputError
from onelogit.options import ModelSpec, OpenOptions
from onelogit.recipes.recipe import Recipe

_ROWS_TOGETHER = 256  # in a batch of vLLM's stage, which has several of them in flight
_KEPT = ("number", "pairs", "place", "query_id", "document_id", "query")
_OPTIONS = {
    *("revision", "token", "recipe", "dtype", "device", "max_tokens", "instruction", "activation"),
    *("allow_control_tokens", "long_documents"),
}
_NO_PROMPT = [0]  # for a pair that has an error already, and stays in its row


def prompt_writer(model: str, options: OpenOptions) -> LoadedEncoder:
    """What writes the prompts of a folder that `onelogit convert` wrote.

    Raises:
        InputError: an option that would have no effect here.
        OnelogitError: as `Reranker.load`.
    """
    _check_options(options)
    found = resolve_model(ModelSpec.of(model, options))
    return load_encoder(found, _position_limit(model, json.loads(found.texts["config.json"])))


def _check_options(options: OpenOptions) -> None:
    if options.get("long_documents") == "chunk_max":
        raise InputError("long_documents='chunk_max' makes several rows of a document, which engine vllm cannot")
    if options.get("device") not in (None, "cuda", "cpu"):
        raise InputError(f"engine vllm runs on 'cuda', or with a build for it on 'cpu', not on {options['device']!r}")
    for name, value in options.items():
        if name not in _OPTIONS and value is not None and value is not False:
            raise InputError(f"{name!r} is no option of engine vllm")


def _position_limit(model: str, config: Mapping[str, Any]) -> int | None:
    if not any(name.endswith("ForSequenceClassification") for name in config.get("architectures") or ()):
        raise InputError(f"{model} is no sequence classifier; write one with: onelogit convert {model} -o FOLDER")
    return config.get("max_position_embeddings")


class Encode:
    """A pair's row as vLLM's stage takes it: token ids, and the wish for a raw logit.

    It travels as a model's name, and opens its tokenizer where it arrives.
    """

    def __init__(self, work: Work) -> None:
        self._work = work
        self._writer: LoadedEncoder | None = None

    def __reduce__(self) -> tuple[type["Encode"], tuple[Work]]:
        return Encode, (self._work,)

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The columns that are added to a row."""
        if self._writer is None:
            self._writer = prompt_writer(self._work.model, self._work.options)
        ids, error = _NO_PROMPT, row["error"]
        if error is None:
            try:
                rows = self._writer.encoder.rows([(row["query"], row["document"])], self._writer.instruction)
                ids = [*rows[0].ids]
            except InputError as fault:
                error = str(fault)
        return {"tokenized_prompt": ids, "pooling_params": {"use_activation": False}, "error": error}


def decode(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of vLLM's stage as a pair with its logit, or with an error in its place."""
    error = row["error"] or row.get("__inference_error__") or None
    logit = None if error is not None else float(row["embeddings"][0])
    if logit is not None and not math.isfinite(logit):
        logit, error = None, f"the logit is {logit}"
    return {**{name: row[name] for name in _KEPT}, "error": error, "logit": logit}


def score_by_vllm(pool: Pool, address: str | None = None) -> Engine:
    """The engine of GPUs: as many of vLLM's engines as the pool has workers.

    Args:
        pool: of the engines; one that takes several GPUs splits its model over them, and one takes no less than one
            but for the option `device="cpu"`, with a build of vLLM for it.
        address: as of `score_on_ray`.
    """
    return partial(_score, pool, address)


def _score(pool: Pool, address: str | None, work: Work, shards: Sequence[Shard]) -> Iterator[Done]:
    writer = prompt_writer(work.model, work.options)  # refuses before anything is started what would be refused there
    if pool.gpus_per_worker != int(pool.gpus_per_worker):
        raise InputError(f"an engine of vLLM takes whole GPUs, not {pool.gpus_per_worker:g}")
    room = _room(pool, work.options)
    with connected(address), quiet(), one_line():
        mention_room(room)
        rows = ray.data.from_items([part._asdict() for part in shards], override_num_blocks=len(shards))
        pairs = rows.flat_map(pair_rows)
        answered = _processor(pool, work, writer.encoder.max_tokens)(pairs).iter_rows()
        yield from gathered(answered, work, writer.model.recipe, shards)


def _room(pool: Pool, options: OpenOptions) -> Pool:
    """What an engine really takes."""
    return replace(pool, gpus_per_worker=0 if options.get("device") == "cpu" else max(pool.gpus_per_worker, 1))


def pair_rows(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The pairs of a slice, a row each; one that stands for none where there are none."""
    part = Shard(**row)
    pairs = located_pairs(part, ShardReader())
    same = {"number": part.number, "pairs": len(pairs)}
    listed = pairs or [ScoringPair(None, None, error="no pairs")]
    return [{**same, "place": place, **pair._asdict()} for place, pair in enumerate(listed)]


def gathered(rows: Iterator[Mapping[str, Any]], work: Work, recipe: Recipe, shards: Sequence[Shard]) -> Iterator[Done]:
    """Write each slice as soon as all its pairs are there, in whatever order they come; a pair may come twice."""
    activation = work.options.get("activation") or recipe.activation
    waiting: dict[int, dict[int, Mapping[str, Any]]] = {}
    size = {part.number: part.rows for part in shards}
    for row in rows:
        number = row["number"]
        if number not in size:
            continue  # written already
        here = waiting.setdefault(number, {})
        here[row["place"]] = row if "logit" in row else decode(row)  # Ray passes rows of failed requests by `decode`
        if len(here) >= row["pairs"]:
            _write(work, number, [here[place] for place in range(row["pairs"])], activation)
            yield Done(number, size.pop(number), worker_name())
            del waiting[number]


def _write(work: Work, number: int, rows: Sequence[Mapping[str, Any]], activation: Any) -> None:
    pairs = [ScoringPair(row["query_id"], row["document_id"], row["query"]) for row in rows]
    outcomes = [scored(row["logit"] if row["error"] is None else row["error"], activation) for row in rows]
    table = scored_table(pairs, outcomes, places(number, pairs))
    write_part(table, part_of_shard(Path(work.scored), number))


def engine_settings(pool: Pool, work: Work, max_tokens: int) -> dict[str, Any]:
    """How Ray Data's stage is set up."""
    is_on_cpu = work.options.get("device") == "cpu"
    engine = {name: work.options[name] for name in ("dtype", "revision") if work.options.get(name)}
    return {
        "model_source": work.model,
        "task_type": "classify",
        "batch_size": _ROWS_TOGETHER,
        "concurrency": pool.workers,
        "engine_kwargs": {
            "max_model_len": max_tokens,
            "tensor_parallel_size": int(pool.gpus_per_worker) or 1,
            **engine,
        },
        # Ray would wait for a GPU for ever.
        "placement_group_config": {"bundle_per_worker": {"CPU": pool.cpus_per_worker}} if is_on_cpu else None,
        "chat_template_stage": False,
        "tokenize_stage": False,
        "detokenize_stage": False,
        "should_continue_on_error": True,
        "log_engine_metrics": False,  # they want a port of their own
    }


def _processor(pool: Pool, work: Work, max_tokens: int) -> Any:
    from ray.data.llm import build_processor, vLLMEngineProcessorConfig  # noqa: PLC0415  wants ray[llm]

    config = vLLMEngineProcessorConfig(**engine_settings(pool, work, max_tokens))
    return build_processor(config, preprocess=Encode(work), postprocess=decode)
