"""`onelogit rank`: a first look: a query and some documents in, the documents in order out."""

import argparse
import json
import sys
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from onelogit import DEMO_MODEL
from onelogit.commands.model_options import (
    add_model_options,
    add_server_options,
    fetch,
    load_options,
    named,
    open_options,
)
from onelogit.commands.ranking_table import caption_of, ranking_table
from onelogit.errors import InputError
from onelogit.inputs import check_text, check_top_n
from onelogit.open import open_reranker
from onelogit.progress import is_shown, waiting
from onelogit.scores import Ranked
from onelogit.text_files import documents_of, read_documents

if TYPE_CHECKING:
    from onelogit.open import AnyReranker

SUMMARY = "put documents into order by their relevance to a query: a first look"
DEMO_NOTE = (
    "onelogit: this is the demo model, for trying the machinery: its order means nothing. Name a real one, such as "
    "--model Qwen/Qwen3-Reranker-0.6B"
)
_STDIN = "-"
_BAR_FROM = 64  # documents that take a while


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("query", help="what is looked for")
    parser.add_argument("document", nargs="*", help="texts to put into order; of stdin where none is named at all")
    parser.add_argument(
        "--documents",
        action="append",
        default=[],
        metavar="FILE",
        help='more of them: one a line, or JSONL with "text" (and "title") or "document"; - for stdin',
    )
    parser.add_argument("--model", help="hub id, folder, or URL of a server; a demo model where left out")
    add_server_options(parser)
    parser.add_argument("--top-n", type=int, help="show this many at most")
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
    return 0


def _documents(options: argparse.Namespace) -> list[str]:
    """Those of the arguments, then those of the files, in order.

    Raises:
        InputError: there are none, or a file cannot be read.
    """
    named = [*options.document]
    for index, document in enumerate(named):
        check_text(document, f"document {index}")
    files = options.documents
    if not named and not files:
        if sys.stdin is None or sys.stdin.isatty():
            raise InputError("there are no documents: give them behind the query, in --documents FILE, or on stdin")
        files = [_STDIN]
    read = [text for file in files for text in (_of_stdin() if file == _STDIN else read_documents(file))]
    if not named and not read:
        raise InputError(
            f"there are no documents in {', '.join('stdin' if file == _STDIN else file for file in files)}"
        )
    return [*named, *read]


def _of_stdin() -> list[str]:
    return list(documents_of(sys.stdin.buffer, "stdin"))


def _opened(options: argparse.Namespace) -> "AnyReranker":
    model, url = named(options)
    if model is None and url is None:
        model = DEMO_MODEL
    if model is not None and Path(model).expanduser().absolute() == Path(DEMO_MODEL).absolute():
        print(DEMO_NOTE, file=sys.stderr)  # noqa: T201
    if url is None:
        fetch(str(model), load_options(options, str(model)))
    with waiting(f"loading {model or url}"):
        return open_reranker(str(model or url), **open_options(options, model, url))


def _print_lines(ranking: Sequence[Ranked], documents: Sequence[str]) -> None:
    for rank, (index, logit, score) in enumerate(ranking, start=1):
        line = {"rank": rank, "index": index, "logit": logit, "score": score, "text": documents[index]}
        print(_escaped(json.dumps(line, ensure_ascii=False)))  # noqa: T201


def _escaped(line: str) -> str:
    """The same JSON, in which no character acts on a terminal: those without a glyph are spelled in ASCII."""
    return "".join(
        json.dumps(character)[1:-1] if unicodedata.category(character) in ("Cc", "Cf", "Zl", "Zp") else character
        for character in line
    )
