"""`onelogit evaluate`: measures how well models, instructions and templates rank labelled data."""

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from rich.text import Text

from onelogit.cli.model_options import add_json_option, add_loading_options, add_server_options, model_spec
from onelogit.cli.number_lists import numbers_of
from onelogit.cli.output import print_json, say
from onelogit.errors import InputError
from onelogit.io.tables import console
from onelogit.model_spec import ModelSpec
from onelogit.options import LoadOptions, OpenOptions, Quantization, RemoteOptions, is_url

if TYPE_CHECKING:
    from onelogit.evaluation.job import EvaluationSpec

SUMMARY = "measure how models, instructions and templates rank your data, compared with a first stage and random order"
EXAMPLES = (
    "onelogit evaluate Qwen/Qwen3-Reranker-0.6B --data questions.jsonl --limit 20 --report report.html",
    "onelogit evaluate Qwen/Qwen3-Reranker-0.6B --data questions.jsonl -k 1,10 --slice language --output models",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("models", nargs="+", metavar="MODEL", help="hub id, folder, or url of a server")
    _add_data_options(parser)
    _add_comparison_options(parser)
    _add_output_options(parser)
    add_json_option(parser)
    add_server_options(parser)
    add_loading_options(parser)


def _add_data_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("data").add_argument
    help_text = "a folder in BEIR format, or a JSONL, CSV or Parquet file of queries, documents and labels"
    add("--data", type=Path, metavar="FILE|FOLDER", required=True, help=help_text)
    add("--run", type=Path, metavar="FILE", help="results of a first stage in TREC format (default: search with BM25)")
    add("--split", metavar="NAME", help="which judgements in qrels/ to use (default: test, or the only file)")
    add("--limit", type=int, metavar="N", help="evaluate only the first N queries (default: all)")
    add("--candidates", type=int, metavar="N", default=100, help="maximum documents per query (default: %(default)s)")
    add("--skip-bad", action="store_true", help="skip and count malformed lines and unknown ids")


def _add_comparison_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("what to compare").add_argument
    help_text = "'default' is the model's default, '' is none, '@name' is that field of each query; may be repeated"
    add("--instruction", action="append", default=[], metavar="TEXT", help=help_text)
    help_text = "Jinja template with the roles query and document; may be repeated"
    add("--chat-template", action="append", type=Path, default=[], metavar="FILE", help=help_text)
    help_text = "none: exact; int8: approximate but faster, on an x86 CPU; may be repeated to compare them"
    add("--quantization", action="append", choices=("none", *get_args(Quantization)), default=[], help=help_text)
    add("-k", metavar="N,N", default="10", help="cutoffs of nDCG, MRR and recall (default: %(default)s)")
    add("--slice", metavar="NAME", help="also report results by a field of the queries, or by length")
    help_text = "compare a model's rankings under different instructions, templates or quantisations"
    add("--pairwise", action="store_true", help=help_text)
    add("--changed-qrels", type=Path, metavar="FILE", help="judgements under the second instruction, for p-MRR")
    add("--seed", type=int, metavar="N", default=0, help="for random order and the bootstrap (default: %(default)s)")


def _add_output_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("output").add_argument
    help_text = "folder for run files and results (default: %(default)s)"
    add("-o", "--output", type=Path, metavar="FOLDER", default=Path("evaluation"), help=help_text)
    add("--resume", action="store_true", help="continue the runs in that folder")
    add("--overwrite", action="store_true", help="delete the runs in that folder, and score again")
    add("--plot", type=Path, metavar="FILE", help="write a plot of each system's mean")
    add("--report", type=Path, metavar="FILE", help="write a self-contained HTML page")


def run(options: argparse.Namespace) -> int:
    """Evaluate, write the results, and print them."""
    from onelogit.evaluation.job import run_evaluation  # noqa: PLC0415  its imports need an extra
    from onelogit.evaluation.report.json_report import evaluation_json  # noqa: PLC0415
    from onelogit.evaluation.report.tables import tables  # noqa: PLC0415

    try:
        evaluation = run_evaluation(_spec(options))
    except KeyboardInterrupt:
        how = "--resume instead of --overwrite" if options.overwrite else "--resume"
        say(f"stopped; run the same command with {how} to continue from the results in {options.output}")
        raise
    if options.json:
        print_json(evaluation_json(evaluation))
        return 0
    out = console()
    for each in tables(evaluation):
        out.print(each, soft_wrap=isinstance(each, Text) and not out.is_terminal)  # a sentence is a line of a file
    return 0


def _spec(options: argparse.Namespace) -> "EvaluationSpec":
    from onelogit.evaluation.job import EvaluationSpec  # noqa: PLC0415  as above
    from onelogit.evaluation.systems import redact_credentials  # noqa: PLC0415

    for name in ("revision", "url"):
        if getattr(options, name) is not None and len(options.models) > 1:
            raise InputError(f"--{name} applies to a single model; evaluate the models separately")
    again = [] if options.resume or options.overwrite else ["--overwrite"]  # works with and without existing runs
    return EvaluationSpec(
        models=options.models,
        data=options.data,
        spec_of=lambda model, template: _model_spec(options, model, template),
        output=options.output,
        instructions=options.instruction,
        templates=options.chat_template,
        quantizations=options.quantization,
        run=options.run,
        split=options.split,
        changed_qrels=options.changed_qrels,
        max_queries=options.limit,
        max_candidates=options.candidates,
        cutoffs=numbers_of(options.k, "-k"),
        seed=options.seed,
        group_column=options.slice,
        is_pairwise=options.pairwise,
        is_skipping=options.skip_bad,
        is_resuming=options.resume,
        is_overwriting=options.overwrite,
        plot=options.plot,
        report=options.report,
        command=redact_credentials(shlex.join(["onelogit", *options.arguments, *again])),
    )


def _model_spec(options: argparse.Namespace, model: str, template: Path | None) -> ModelSpec:
    """The spec of one model, without the instruction, which is passed with each call.

    If local models and servers are compared, each gets only the options that apply to it.
    """
    given = {**vars(options), "instruction": None, "activation": None, "chat_template": template, "quantization": None}
    if len({is_url(each) for each in options.models}) > 1:
        own = (RemoteOptions if is_url(model) else LoadOptions).__annotations__
        given |= dict.fromkeys(OpenOptions.__annotations__.keys() - own)
    return model_spec(argparse.Namespace(**given), model)
