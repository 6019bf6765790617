"""`onelogit evaluate`: how well models, instructions and templates rank judged data."""

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, cast

from rich.console import Console

from onelogit.cli.model_options import (
    add_json_option,
    add_loading_options,
    add_server_options,
    named,
    open_options,
)
from onelogit.cli.output import print_json, say
from onelogit.errors import InputError
from onelogit.options import LoadOptions, OpenOptions, RemoteOptions, check_place, is_url

if TYPE_CHECKING:
    from onelogit.evaluation.job import EvaluationSpec

SUMMARY = "measure how well models, instructions and templates rank your data, against a first stage and random order"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("models", nargs="+", metavar="MODEL", help="hub id or folder, or the URL of a server")
    _add_data_options(parser)
    _add_compared_options(parser)
    written = parser.add_argument_group("what is written")
    written.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FOLDER",
        default=Path("evaluation"),
        help="for runs and figures; %(default)s where left out",
    )
    written.add_argument("--resume", action="store_true", help="go on with the runs that are in that folder")
    written.add_argument("--overwrite", action="store_true", help="remove them, and score anew")
    written.add_argument("--plot", type=Path, metavar="FILE", help="write a picture: each order's mean")
    written.add_argument("--report", type=Path, metavar="FILE", help="write a page of HTML that needs no network")
    add_json_option(parser)
    add_server_options(parser)
    add_loading_options(parser)


def _add_data_options(parser: argparse.ArgumentParser) -> None:
    data = parser.add_argument_group("data")
    data.add_argument(
        "--data",
        type=Path,
        metavar="FILE|FOLDER",
        required=True,
        help="a folder in BEIR form, or JSONL of query, documents, labels",
    )
    data.add_argument("--run", type=Path, metavar="FILE", help="of a first stage, in TREC form; BM25's where left out")
    data.add_argument("--split", metavar="NAME", help="judgements in qrels/ to use; test where left out")
    data.add_argument(
        "--candidates",
        type=int,
        metavar="N",
        default=100,
        help="documents a query, at most; %(default)s where left out",
    )
    data.add_argument("--skip-bad", action="store_true", help="count and pass over malformed lines and unknown ids")


def _add_compared_options(parser: argparse.ArgumentParser) -> None:
    compared = parser.add_argument_group("what is compared")
    compared.add_argument(
        "--instruction",
        action="append",
        default=[],
        metavar="TEXT",
        help="repeat it to compare; 'default' for the model's own, '' for none, '@name' for that field of each query",
    )
    compared.add_argument(
        "--chat-template",
        action="append",
        type=Path,
        default=[],
        metavar="FILE",
        help="jinja with the roles query and document; repeat it to compare",
    )
    compared.add_argument(
        "-k", type=int, nargs="+", metavar="N", default=[10], help="cutoffs of nDCG, MRR, recall; 10 where left out"
    )
    compared.add_argument("--slice", metavar="NAME", help="split by a field of the queries, or by length")
    compared.add_argument("--pairwise", action="store_true", help="how an instruction or a template moves documents")
    compared.add_argument(
        "--changed-qrels", type=Path, metavar="FILE", help="judgements under the second instruction, for p-MRR"
    )
    compared.add_argument(
        "--seed", type=int, metavar="N", default=0, help="of random order and bootstrap; %(default)s where left out"
    )


def run(options: argparse.Namespace) -> int:
    """Measure, write, print."""
    from onelogit.evaluation.job import run_evaluation  # noqa: PLC0415  what follows it needs an extra
    from onelogit.evaluation.report.json_report import plain_evaluation  # noqa: PLC0415
    from onelogit.evaluation.report.tables import tables  # noqa: PLC0415

    try:
        evaluation = run_evaluation(_job(options))
    except KeyboardInterrupt:
        way = "--resume in place of --overwrite" if options.overwrite else "--resume"
        say(f"stopped; the same command with {way} goes on, from what stands in {options.output}")
        raise
    if options.json:
        print_json(plain_evaluation(evaluation))
        return 0
    console = Console(highlight=False)
    for each in tables(evaluation, console.width):
        console.print(each, soft_wrap=isinstance(each, str))
    return 0


def _job(options: argparse.Namespace) -> "EvaluationSpec":
    from onelogit.evaluation.job import EvaluationSpec  # noqa: PLC0415  as above

    for name in ("revision", "url"):
        if getattr(options, name) is not None and len(options.models) > 1:
            raise InputError(f"--{name} is of one model; name one, or evaluate the others by themselves")
    return EvaluationSpec(
        models=options.models,
        data=options.data,
        options_of=lambda model, template: _options(options, model, template),
        output=options.output,
        instructions=options.instruction,
        templates=options.chat_template,
        run=options.run,
        split=options.split,
        changed=options.changed_qrels,
        candidates=options.candidates,
        cutoffs=options.k,
        seed=options.seed,
        slice_column=options.slice,
        is_pairwise=options.pairwise,
        is_skipping=options.skip_bad,
        is_resuming=options.resume,
        is_overwriting=options.overwrite,
        plot=options.plot,
        report=options.report,
        command=_command(options),
    )


def _command(options: argparse.Namespace) -> str:
    """What asks for the same again, wherever it is run: also where the runs are there already."""
    from onelogit.evaluation.systems import without_secret  # noqa: PLC0415  as above

    again = [] if options.resume or options.overwrite else ["--overwrite"]
    return without_secret(shlex.join(["onelogit", *options.arguments, *again]))


def _options(options: argparse.Namespace, model: str, template: Path | None) -> OpenOptions:
    """What `open_reranker` takes; the instruction comes with each call."""
    place = named(model, options.url)
    settled = {**vars(options), "instruction": None, "activation": None, "chat_template": template}
    opening = open_options(argparse.Namespace(**settled), place)
    kinds = {is_url(each) for each in options.models}
    if len(kinds) == 1:  # else each kind of model takes its own of the options
        check_place({**opening, "url": place.url})
        return opening
    known = (LoadOptions if place.url is None else RemoteOptions).__annotations__
    return cast("OpenOptions", {name: value for name, value in opening.items() if name in known})
