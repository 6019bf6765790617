"""`onelogit bulk`: reranks the documents of queries in files, and writes the rankings to files."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from onelogit.cli.model_options import add_json_option, add_model_options, add_server_options, model_spec
from onelogit.cli.output import mention_demo, print_json, printable, say
from onelogit.errors import InputError, check_packages
from onelogit.io.tables import console
from onelogit.model_spec import ModelSpec
from onelogit.validation import checked_count

if TYPE_CHECKING:
    from onelogit.bulk.beir_rows import Candidates
    from onelogit.bulk.job import BulkEngine, RunSummary

SUMMARY = "rerank all queries of Parquet, JSONL or CSV files; exit code 1 if pairs have errors"
EXAMPLES = (
    "onelogit bulk rows.jsonl ranked --model Qwen/Qwen3-Reranker-0.6B",
    "onelogit bulk rows.jsonl ranked-by-server --url http://127.0.0.1:8000 --model Qwen/Qwen3-Reranker-0.6B",
)
ENGINES = ("local", "vllm", "remote")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    help_text = "Parquet, JSONL, CSV or TSV file, a folder of them, or a folder in BEIR format"
    parser.add_argument("input", help=help_text)
    parser.add_argument("output", help="folder for the results; an interrupted run continues from the results in it")
    parser.add_argument("--model", help="hub id, folder, or url of a server")
    parser.add_argument(
        "--engine", choices=ENGINES, help="engine that scores the pairs (default: remote with --url, otherwise local)"
    )
    rows_help = "maximum rows that are scored and written together (default: %(default)s)"
    parser.add_argument("--slice-rows", type=int, metavar="N", default=1000, help=rows_help)
    run_help = "TREC run file with the documents to rank (default: the judged documents, or all)"
    beir = parser.add_argument_group("a folder in BEIR format")
    beir.add_argument("--run", type=Path, metavar="FILE", help=run_help)
    beir.add_argument("--split", metavar="NAME", help="judgements in qrels/ to use (default: test, or the only file)")
    parser.add_argument("--overwrite", action="store_true", help="replace the results of another run in the folder")
    add_json_option(parser)
    add_server_options(parser)
    cluster = parser.add_argument_group("a Ray cluster")
    cluster.add_argument(
        "--workers", type=int, metavar="N", default=0, help="number of actors (default: 0, without Ray)"
    )
    cpus_help = "CPUs of each actor, and threads of its model (default: %(default)s)"
    cluster.add_argument("--cpus-per-worker", type=float, metavar="N", default=1, help=cpus_help)
    gpus_help = "1 for a model on a GPU; with more, engine vllm splits the model (default: %(default)s)"
    cluster.add_argument("--gpus-per-worker", type=float, metavar="N", default=0, help=gpus_help)
    cluster.add_argument("--ray-address", metavar="HOST:PORT", help="address of the cluster, or local for a new one")
    add_model_options(parser)


def run(options: argparse.Namespace) -> int:
    """Score and rank all queries, and print the number of pairs."""
    if options.model is None and options.url is None:
        raise InputError("name a model or a server: --model, --url, or both")
    spec = model_spec(options, options.model)
    _check(options, spec)
    needs_ray = options.workers or options.engine == "vllm"
    check_packages("pyarrow", *(["ray"] if needs_ray else []), extra="ray" if needs_ray else "bulk")
    from onelogit.bulk.job import run as run_job  # noqa: PLC0415  loads pyarrow

    try:
        summary = run_job(
            options.input,
            options.output,
            spec,
            engine=_engine(options),
            slice_rows=options.slice_rows,
            is_overwriting=options.overwrite,
            candidates=_candidates(options),
        )
    except KeyboardInterrupt:
        change = " without --overwrite" if options.overwrite else ""
        say(f"stopped; run the same command{change} to continue from the results in {options.output}")
        raise
    _print(summary, options)
    mention_demo(spec.model)
    return 1 if summary.errors else 0


def _print(summary: "RunSummary", options: argparse.Namespace) -> None:
    """Print the numbers of pairs and errors, and the commonest errors; with --json, these go to stderr."""
    from onelogit.bulk.common_errors import common_errors  # noqa: PLC0415  loads pyarrow

    lines = [printable(str(each)) for each in common_errors(Path(options.output))] if summary.errors else []
    if options.json:
        print_json({"folder": options.output, "pairs": summary.pairs, "errors": summary.errors})
        for line in lines:
            say(line)
        return
    pairs = f"{summary.pairs:,} {'pair' if summary.pairs == 1 else 'pairs'}"
    written = f"{pairs} written to {options.output}"
    if summary.was_complete:
        written = f"nothing to do: {pairs} were in {options.output} already"
    errors = f"; {summary.errors:,} {'has an error' if summary.errors == 1 else 'have errors'}"
    out = console(soft_wrap=True)
    out.print(f"{written}{errors if summary.errors else ''}.", markup=False)
    for line in lines:
        out.print(f"  {line}", markup=False)


def _candidates(options: argparse.Namespace) -> "Candidates | None":
    from onelogit.bulk.beir_rows import Candidates  # noqa: PLC0415  not for --help

    if options.run is not None and options.split is not None:
        raise InputError("--run names the documents to rank, and --split the judgements they come from; pass only one")
    return None if options.run is options.split is None else Candidates(options.run, options.split)


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
        raise InputError(
            f"--engine {options.engine} {'needs' if options.engine == 'remote' else 'does not accept'} --url"
        )
    checked_count("--workers", options.workers, least=0)
    checked_count("--slice-rows", options.slice_rows)
