"""`onelogit rank`: a first look: a query and some documents in, the documents in order out."""

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console

from onelogit import DEMO_MODEL
from onelogit.cli.model_options import (
    add_json_option,
    add_model_options,
    add_server_options,
    fetch,
    named,
    open_options,
)
from onelogit.cli.output import mention_demo, print_json
from onelogit.cli.ranking_table import caption_of, ranking_table
from onelogit.errors import InputError
from onelogit.io.progress import is_shown, waiting
from onelogit.io.text_files import STDIN, read_documents
from onelogit.ranking import Ranked
from onelogit.registry import open_reranker
from onelogit.validation import check_text, check_top_n

if TYPE_CHECKING:
    from onelogit.registry import AnyReranker

SUMMARY = "put documents into order by their relevance to a query: a first look"
_BAR_FROM = 64  # documents that take a while


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("query", help="what is looked for")
    parser.add_argument(
        "document", nargs="*", default=[], help="texts to put into order; of stdin where none is named at all"
    )
    parser.add_argument(
        "--documents",
        action="append",
        default=[],
        metavar="FILE|FOLDER",
        help='more of them: plain lines, JSONL with "text" (and "title") or "document", - for stdin, or BEIR',
    )
    parser.add_argument("--model", help="hub id or folder, or the URL of a server; a demo model where left out")
    parser.add_argument("--top-n", type=int, metavar="N", help="show this many at most")
    add_json_option(parser)
    add_server_options(parser)
    add_model_options(parser)


def run(options: argparse.Namespace) -> int:
    """Read, rank, show. With --json, an object a line: rank (from 1), index (from 0, as given), logit, score, text."""
    check_text(options.query, "the query", is_blank_allowed=False)
    check_top_n(options.top_n, "--top-n")
    documents = _documents(options)
    reranker = _opened(options)
    is_long = is_shown() and len(documents) >= _BAR_FROM
    ranking = reranker.rank(options.query, documents, progress=is_long)
    if options.json:
        _print_lines(ranking[: options.top_n], documents)
    else:
        console = Console()
        console.print(ranking_table(options.query, ranking, documents, console, options.top_n))
        console.print(caption_of(reranker), style="dim", highlight=False, markup=False)
    mention_demo(reranker.name)
    return 0


def _documents(options: argparse.Namespace) -> list[str]:
    """Those of the arguments, then those of the files, in order.

    Raises:
        InputError: there are none, or a file cannot be read.
    """
    given = [*options.document]
    for index, document in enumerate(given):
        check_text(document, f"document {index}")
    files = options.documents
    if not given and not files:
        if sys.stdin is None or sys.stdin.isatty():
            raise InputError("there are no documents: give them behind the query, in --documents FILE, or on stdin")
        files = [STDIN]
    read = [text for file in files for text in read_documents(file)]
    if not given and not read:
        raise InputError(f"there are no documents in {', '.join('stdin' if file == STDIN else file for file in files)}")
    return [*given, *read]


def _opened(options: argparse.Namespace) -> "AnyReranker":
    model = DEMO_MODEL if options.model is None and options.url is None else options.model
    place = named(model, options.url)
    opening = open_options(options, place)
    if place.url is None:
        fetch(place.opened_as, opening)
    with waiting(f"loading {place.opened_as}"):
        return open_reranker(place.opened_as, **opening)


def _print_lines(ranking: Sequence[Ranked], documents: Sequence[str]) -> None:
    for rank, (index, logit, score) in enumerate(ranking, start=1):
        print_json({"rank": rank, "index": index, "logit": logit, "score": score, "text": documents[index]})
