"""`onelogit bulk`: all queries of some files, ranked into files."""

import argparse
from typing import TYPE_CHECKING

from rich.console import Console

from onelogit.cli.model_options import (
    add_json_option,
    add_model_options,
    add_server_options,
    model_spec,
)
from onelogit.cli.output import mention_demo, print_json, say
from onelogit.errors import InputError, check_packages
from onelogit.options import ModelSpec
from onelogit.validation import checked_count

if TYPE_CHECKING:
    from onelogit.bulk.job import BulkEngine

SUMMARY = "rerank all queries of Parquet or JSONL files; exit code 1 where pairs have errors"
ENGINES = ("local", "vllm", "remote")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("input", help=".parquet, .jsonl or .jsonl.gz file, or a folder of them")
    parser.add_argument("output", help="the folder to write; a run that was broken off goes on where it stands")
    parser.add_argument("--model", help="hub id or folder, or the URL of a server")
    parser.add_argument("--engine", choices=ENGINES, help="what scores; remote with --url, else local where left out")
    parser.add_argument(
        "--slice-rows",
        type=int,
        metavar="N",
        default=1000,
        help="rows that are scored and written together; %(default)s where left out",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace what another run wrote to the folder")
    add_json_option(parser)
    add_server_options(parser)
    cluster = parser.add_argument_group("a Ray cluster")
    cluster.add_argument("--workers", type=int, metavar="N", default=0, help="actors; no Ray where left out, or 0")
    cluster.add_argument(
        "--cpus-per-worker",
        type=float,
        metavar="N",
        default=1,
        help="of the cluster, and threads of a model; 1 where left out",
    )
    cluster.add_argument(
        "--gpus-per-worker",
        type=float,
        metavar="N",
        default=0,
        help="1 for a model on a GPU; engine vllm splits it over more; 0 where left out",
    )
    cluster.add_argument("--ray-address", metavar="HOST:PORT", help="of a cluster, or local for one of its own")
    add_model_options(parser)


def run(options: argparse.Namespace) -> int:
    """Score, rank, write, say how much."""
    if options.model is None and options.url is None:
        raise InputError("name what scores: --model, or the --url of a server, or both")
    spec = model_spec(options, options.model)
    _check(options, spec)
    check_packages("pyarrow", *(["ray"] if options.workers or options.engine == "vllm" else []))
    from onelogit.bulk.job import run as run_job  # noqa: PLC0415  loads pyarrow

    try:
        outcome = run_job(
            options.input,
            options.output,
            spec,
            engine=_engine(options),
            slice_rows=options.slice_rows,
            is_overwriting=options.overwrite,
        )
    except KeyboardInterrupt:
        way = " without --overwrite" if options.overwrite else ""
        say(f"stopped; the same command{way} goes on, from what stands in {options.output}")
        raise
    if options.json:
        print_json({"folder": options.output, **outcome._asdict()})
    else:
        errors = f"; {outcome.errors:,} have errors" if outcome.errors else ""
        said = f"{outcome.pairs:,} pairs written to {options.output}{errors}."
        Console(highlight=False, soft_wrap=True).print(said, markup=False)
    mention_demo(spec.model)
    return 1 if outcome.errors else 0


def _engine(options: argparse.Namespace) -> "BulkEngine":
    from onelogit.bulk.job import score_in_process  # noqa: PLC0415  loads pyarrow

    if not options.workers and options.engine != "vllm":
        return score_in_process
    from onelogit.bulk.ray_engine import WorkerPool, score_on_ray  # noqa: PLC0415  loads Ray

    pool = WorkerPool(options.workers or 1, options.cpus_per_worker, options.gpus_per_worker)
    if options.engine != "vllm":
        return score_on_ray(pool, options.ray_address)
    check_packages("vllm")
    from onelogit.bulk.vllm_engine import score_by_vllm  # noqa: PLC0415

    return score_by_vllm(pool, options.ray_address)


def _check(options: argparse.Namespace, spec: ModelSpec) -> None:
    if options.engine is not None and (options.engine == "remote") != (spec.url is not None):
        raise InputError(f"--engine {options.engine} {'wants a' if options.engine == 'remote' else 'has no'} --url")
    checked_count("--workers", options.workers, least=0)
    checked_count("--slice-rows", options.slice_rows)
