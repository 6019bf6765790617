"""`onelogit bulk`: all queries of some files, ranked into files."""

import argparse
import json
from typing import TYPE_CHECKING

from rich.console import Console

from onelogit.bulk import check_installed
from onelogit.commands.model_options import add_model_options, add_server_options, open_options
from onelogit.errors import InputError

if TYPE_CHECKING:
    from onelogit.bulk.job import Engine

SUMMARY = "rerank all queries of Parquet or JSONL files; exit code 1 where pairs have errors"
ENGINES = ("local", "vllm", "remote")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("input", help=".parquet or .jsonl file, or a folder of them")
    parser.add_argument("output", help="the folder to write; a run that was broken off goes on where it stands")
    parser.add_argument("--model", help="hub id or folder; with --url, of the model that the server serves")
    parser.add_argument("--engine", choices=ENGINES, help="what scores; remote with --url, else local where left out")
    add_server_options(parser)
    parser.add_argument("--workers", type=int, default=0, help="Ray actors; 0, as when left out, for none: no Ray")
    parser.add_argument("--cpus-per-worker", type=float, default=1, help="of the cluster, and threads of a model")
    parser.add_argument(
        "--gpus-per-worker", type=float, default=0, help="1 for a model on a GPU; engine vllm splits it over more"
    )
    parser.add_argument("--ray-address", help="of a cluster, or local for one of its own")
    parser.add_argument("--slice-rows", type=int, default=1000, help="rows that are scored and written together")
    parser.add_argument("--overwrite", action="store_true", help="replace what another run wrote to the folder")
    add_model_options(parser)


def run(options: argparse.Namespace) -> int:
    """Score, rank, write, say how much."""
    _check_engine(options)
    check_installed("pyarrow", *(["ray"] if options.workers or options.engine == "vllm" else []))
    from onelogit.bulk.job import run as run_job  # noqa: PLC0415  loads pyarrow

    outcome = run_job(
        options.input,
        options.output,
        options.model or options.url,
        engine=_engine(options),
        slice_rows=options.slice_rows,
        is_overwriting=options.overwrite,
        **open_options(options, options.model, options.url),
    )
    if options.json:
        print(json.dumps({"folder": options.output, **outcome._asdict()}))  # noqa: T201
    else:
        errors = f"; {outcome.errors:,} have errors" if outcome.errors else ""
        said = f"{outcome.pairs:,} pairs written to {options.output}{errors}."
        Console(highlight=False, soft_wrap=True).print(said, markup=False)
    return 1 if outcome.errors else 0


def _engine(options: argparse.Namespace) -> "Engine":
    from onelogit.bulk.job import score_here  # noqa: PLC0415  loads pyarrow

    if not options.workers and options.engine != "vllm":
        return score_here
    from onelogit.bulk.on_ray import Pool, score_on_ray  # noqa: PLC0415  loads Ray

    pool = Pool(options.workers or 1, options.cpus_per_worker, options.gpus_per_worker)
    if options.engine != "vllm":
        return score_on_ray(pool, options.ray_address)
    check_installed("vllm")
    from onelogit.bulk.on_vllm import score_by_vllm  # noqa: PLC0415

    return score_by_vllm(pool, options.ray_address)


def _check_engine(options: argparse.Namespace) -> None:
    if options.model is None and options.url is None:
        raise InputError("name what scores: --model, or the --url of a server, or both")
    if options.engine is not None and (options.engine == "remote") != (options.url is not None):
        raise InputError(f"--engine {options.engine} {'wants a' if options.engine == 'remote' else 'has no'} --url")
