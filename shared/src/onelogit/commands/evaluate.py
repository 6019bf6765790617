"""`onelogit evaluate`: how well models, instructions and templates rank judged data."""

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, cast, get_args

from rich.console import Console

from onelogit.commands.model_options import add_loading_options, load_options, options_without_recipe
from onelogit.errors import InputError
from onelogit.options import OpenOptions, Protocol, is_url

if TYPE_CHECKING:
    from onelogit.measure.quality.job import Job

SUMMARY = "measure how well models, instructions and templates rank your data, against a first stage and random order"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("models", nargs="+", metavar="MODEL", help="hub id, folder, or http://HOST:PORT of a server")
    data = parser.add_argument_group("data")
    data.add_argument("--data", type=Path, required=True, help="BEIR folder, or JSONL of query, documents, labels")
    data.add_argument("--run", type=Path, help="what a first stage found, in TREC form; BM25 where left out")
    data.add_argument("--split", help="judgements in qrels/ to use; test where left out")
    data.add_argument("--candidates", type=int, default=100, metavar="N", help="documents a query, at most; 100")
    data.add_argument("--skip-bad", action="store_true", help="count and pass over malformed lines and unknown ids")
    compared = parser.add_argument_group("what is compared")
    compared.add_argument(
        "--instruction",
        action="append",
        default=[],
        metavar="TEXT",
        help="repeat it to compare; 'default' for the model's own, '' for none, '@name' for that field of each query",
    )
    compared.add_argument(
        "--template", action="append", type=Path, default=[], metavar="FILE", help="chat template in jinja; repeat it"
    )
    compared.add_argument("-k", type=int, nargs="+", default=[10], help="cutoffs of nDCG, MRR and recall; 10")
    compared.add_argument("--slice", metavar="COLUMN", help="split by a field of the queries, or by length")
    compared.add_argument("--pairwise", action="store_true", help="how an instruction or a template moves documents")
    compared.add_argument("--changed-qrels", type=Path, help="judgements under the second instruction, for p-MRR")
    compared.add_argument("--seed", type=int, default=0, help="of random order and bootstrap; 0")
    written = parser.add_argument_group("what is written")
    written.add_argument("--output", type=Path, default=Path("evaluation"), help="folder of the runs; evaluation")
    written.add_argument("--resume", action="store_true", help="go on with the runs that are in that folder")
    written.add_argument("--overwrite", action="store_true", help="remove them, and score anew")
    written.add_argument("--json", type=Path, metavar="FILE", help="write the figures as JSON")
    written.add_argument("--plot", type=Path, metavar="FILE", help="write a picture: .png, .svg or .pdf")
    written.add_argument("--report", type=Path, metavar="FILE", help="write a page of HTML that needs no network")
    loading = parser.add_argument_group("how models are loaded")
    loading.add_argument("--revision", help="branch, tag or commit on the hub, of a single model")
    add_loading_options(cast("argparse.ArgumentParser", loading))
    loading.add_argument("--served-model", help="hub id or folder of what the servers serve, to write prompts here")
    loading.add_argument("--protocol", choices=get_args(Protocol), help="how servers are asked; vllm-tokens")


def run(options: argparse.Namespace) -> int:
    """Measure, write, print."""
    from onelogit.measure.quality.job import run_job  # noqa: PLC0415  what follows it needs an extra
    from onelogit.measure.quality.tables import tables  # noqa: PLC0415

    try:
        evaluation = run_job(_job(options))
    except KeyboardInterrupt:
        way = "--resume in place of --overwrite" if options.overwrite else "--resume"
        said = f"stopped; the same command with {way} goes on, from what stands in {options.output}"
        Console(stderr=True, soft_wrap=True, highlight=False).print(f"onelogit: {said}", markup=False)
        raise
    console = Console(highlight=False)
    for each in tables(evaluation, console.width):
        console.print(each, soft_wrap=isinstance(each, str))
    return 0


def _job(options: argparse.Namespace) -> "Job":
    from onelogit.measure.quality.contestants import without_secret  # noqa: PLC0415
    from onelogit.measure.quality.job import Job  # noqa: PLC0415

    if options.revision is not None and len(options.models) > 1:
        raise InputError("--revision is of one model; name one, or evaluate the others by themselves")
    return Job(
        models=options.models,
        data=options.data,
        options_of=lambda model, template: _options(options, model, template),
        output=options.output,
        instructions=options.instruction,
        templates=options.template,
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
        json=options.json,
        plot=options.plot,
        report=options.report,
        command=without_secret(shlex.join(["onelogit", *options.arguments])),
    )


def _options(options: argparse.Namespace, model: str, template: Path | None) -> OpenOptions:
    """What `open_reranker` takes; the instruction comes with each call."""
    settled = argparse.Namespace(
        **{**vars(options), "instruction": None, "activation": None, "chat_template": template}
    )
    if not is_url(model):
        return cast("OpenOptions", load_options(settled, model))
    if options.served_model is not None:
        recipe = load_options(settled, options.served_model)["recipe"]
    elif template is None:
        recipe = None
    else:
        raise InputError(f"{model} writes its own prompts: --template needs a --served-model")
    of_texts = options.protocol not in (None, "vllm-tokens")
    loading = {name: value for name, value in options_without_recipe(settled).items() if value is not False}
    remote = {"protocol": options.protocol, "model": options.served_model, "recipe": recipe}
    if of_texts:
        remote["template"] = "server" if options.served_model is None else "client"
    return cast("OpenOptions", {**loading, **remote})
