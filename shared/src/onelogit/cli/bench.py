"""`onelogit bench`: measures latency and throughput of a model or a server, by number and length of documents."""

import argparse
import math
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from onelogit.cli.model_options import add_json_option, add_model_options, add_server_options, fetch, model_spec
from onelogit.cli.number_lists import numbers_of
from onelogit.cli.output import print_json
from onelogit.errors import InputError, check_packages
from onelogit.io.file_forms import STDIN
from onelogit.io.outputs import check_plot
from onelogit.io.tables import console
from onelogit.io.text_files import TextCollection, read_text_collection
from onelogit.model_spec import ModelSpec
from onelogit.validation import checked_count

if TYPE_CHECKING:
    from onelogit.benchmarking.result import Result


SUMMARY = "measure latency and throughput by number and length of documents, on your texts and machine"
EXAMPLES = (
    "onelogit bench Qwen/Qwen3-Reranker-0.6B --candidates 1,10,100 --seconds 30",
    "onelogit bench Qwen/Qwen3-Reranker-0.6B --texts texts.jsonl --lengths 64,256 --plot latency.png",
)
PEERS = ("sentence-transformers", "int8")
SAMPLE = "the included sample (48 pairs; CC BY-SA and Apache-2.0, see PAIRS-LICENCE.md)"
_MAX_TEXTS = 100_000  # enough for any benchmark; a corpus may have millions


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add = parser.add_argument
    add("model", help="hub id, folder, or url of a server")
    add("--candidates", metavar="N,N", default="1,10,100,1000", help="documents per call (default: %(default)s)")
    add("--lengths", metavar="N,N", help="tokens per document (default: use the texts unchanged)")
    add("--texts", metavar="FILE|FOLDER", help="plain lines, JSONL, - for stdin, or BEIR (default: a small sample)")
    add("--warm", action="store_true", help="send the same documents in each call, with a new query")
    add("--document-cache-bytes", type=int, metavar="N", help="cache documents between calls, for --warm")
    help_text = "also measure this library with the same weights, or the weights quantised to int8, call by call"
    add("--compare", choices=PEERS, help=help_text)
    add("--seconds", type=float, metavar="N", default=60, help="time for all calls together (default: %(default)s)")
    add("--repeats", type=int, metavar="N", default=100, help="maximum number of calls per size (default: %(default)s)")
    add("--plot", type=Path, metavar="FILE", help="write a plot of latency and throughput")
    add_json_option(parser)
    add_server_options(parser)
    add_model_options(parser)


def run(options: argparse.Namespace) -> int:
    """Measure, print the result, and write the plot."""
    candidates = sorted({*numbers_of(options.candidates, "--candidates")})
    lengths = [None] if options.lengths is None else sorted({*numbers_of(options.lengths, "--lengths")})
    spec = model_spec(options, options.model, {"document_cache_bytes": options.document_cache_bytes})
    _check(options, spec)
    texts, texts_name = _texts(options.texts)
    if spec.url is None:
        fetch(spec)
    from onelogit.benchmarking.benchmark import BenchmarkSpec, run_benchmark  # noqa: PLC0415  not for --help
    from onelogit.benchmarking.report import plot_result  # noqa: PLC0415
    from onelogit.benchmarking.runner import Budget, Case  # noqa: PLC0415

    result = run_benchmark(
        BenchmarkSpec(
            model=spec,
            cases=[Case(count, length) for length, count in product(lengths, candidates)],
            texts=texts,
            texts_name=texts_name,
            budget=Budget(options.seconds, options.repeats),
            is_warm=options.warm,
            peer=options.compare,
        )
    )
    if options.json:
        print_json(result.to_json())
    else:
        _print(result)
    if options.plot is not None:
        plot_result(result, options.plot)
    return 0


def _check(options: argparse.Namespace, spec: ModelSpec) -> None:
    """Find errors before the model is loaded that would otherwise appear afterwards."""
    checked_count("--repeats", options.repeats)
    checked_count("--document-cache-bytes", options.document_cache_bytes, least=0)
    if not (options.seconds > 0 and math.isfinite(options.seconds)):
        raise InputError(f"--seconds must be a number above 0, not {options.seconds}")
    if options.compare is not None and spec.url is not None:
        raise InputError("--compare runs both models on this machine; name a model instead of a server")
    if options.compare == "sentence-transformers":
        check_packages("sentence_transformers")
    elif options.compare is not None and spec.quantization is not None:
        raise InputError(f"--compare {options.compare} compares with exact weights; leave --quantization out")
    elif options.compare is not None:
        spec.with_quantization(options.compare)  # raises before anything is loaded
    if options.plot is not None:
        check_plot(options.plot)


def _texts(path: str | None) -> tuple[TextCollection, str]:
    """The given texts or the sample, and their name; the sample's queries if the texts have none."""
    from onelogit.io.sample_pairs import bundled_pairs  # noqa: PLC0415  not for --help

    sample = bundled_pairs()
    queries = list(dict.fromkeys(pair.query for pair in sample))
    if path is None:
        return TextCollection(list(dict.fromkeys(pair.document for pair in sample)), queries), SAMPLE
    texts, name = read_text_collection(path, _MAX_TEXTS), "stdin" if path == STDIN else path
    if not texts.documents:
        raise InputError(f"{name} has no documents")
    return texts if texts.queries else texts._replace(queries=queries), name


def _print(result: "Result") -> None:
    from onelogit.benchmarking.report import lines_below, tables_of, title_of  # noqa: PLC0415  not for --help
    from onelogit.benchmarking.result import remarks_of, warnings_of  # noqa: PLC0415

    out = console()

    def show(line: str, style: str) -> None:
        out.print(line, style=style, markup=False)

    for warning in warnings_of(result):
        show(warning, "yellow")
    tables = tables_of(result)
    if len(tables) > 1:
        show(title_of(result), "bold")
    for table in tables:
        out.print(table)
    for line in lines_below(result):
        show(line, "dim")
    for remark in remarks_of(result):
        show(remark, "yellow")
