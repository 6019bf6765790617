"""`onelogit verify`: compares the logits of a model and its conversion."""

import argparse
from pathlib import Path

from onelogit.cli.model_options import add_json_option, add_model_options, fetch, model_spec
from onelogit.cli.output import mention_demo, print_json
from onelogit.errors import check_packages
from onelogit.io.outputs import check_plot
from onelogit.io.tables import console

SUMMARY = "compare the logits of a model and its conversion; exit code 1 if they disagree"
EXAMPLES = (
    "onelogit verify Qwen/Qwen3-Reranker-0.6B",
    "onelogit verify Qwen/Qwen3-Reranker-0.6B --against qwen3-reranker-classifier --plot parity.png",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("model", help="hub id or folder")
    parser.add_argument(
        "--pairs", metavar="FILE", help="JSONL, CSV or Parquet with query and document (default: 48 multilingual pairs)"
    )
    parser.add_argument("--against", metavar="FOLDER|URL", help="also compare an exported folder or a vLLM server")
    help_text = "write a plot of the converted logits against the original ones"
    parser.add_argument("--plot", type=Path, metavar="FILE", help=help_text)
    add_json_option(parser)
    add_model_options(parser, default_dtype="float32")


def check_requirements(plot: Path | None) -> None:
    """Find errors before the model is loaded that would otherwise appear afterwards.

    Raises:
        InputError: a package is missing, or the plot cannot be written.
    """
    check_packages("scipy")
    if plot is not None:
        check_plot(plot)


def run(options: argparse.Namespace) -> int:
    """Compare the logits, print the result, and write the plot."""
    from onelogit.io.sample_pairs import bundled_pairs, read_pairs  # noqa: PLC0415  loads torch
    from onelogit.verification.parity import measure_parity  # noqa: PLC0415
    from onelogit.verification.report import parity_table, plot_parity  # noqa: PLC0415

    check_requirements(options.plot)
    pairs = bundled_pairs() if options.pairs is None else read_pairs(options.pairs)
    spec = model_spec(options, options.model)
    fetch(spec)
    parity = measure_parity(options.model, pairs, spec.load_options, against=options.against)
    if options.json:
        print_json(parity.to_json())
    else:
        console().print(parity_table(parity))
    if options.plot is not None:
        plot_parity(parity, options.plot)
    mention_demo(options.model)
    return 0 if parity.agrees else 1
