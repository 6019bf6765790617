"""`onelogit rank`: a query and documents -> the documents in order of relevance."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from onelogit.cli.model_options import add_json_option, add_model_options, add_server_options, fetch, model_spec
from onelogit.cli.output import mention_demo, mention_quantization, print_json, ranking_caption, ranking_table, say
from onelogit.errors import InputError
from onelogit.io.file_forms import STDIN
from onelogit.io.progress import is_shown, waiting
from onelogit.io.tables import console
from onelogit.io.text_files import TextDocument, read_documents
from onelogit.options import DEMO_MODEL
from onelogit.registry import open_spec
from onelogit.validation import check_text, check_top_n, with_whole_characters

if TYPE_CHECKING:
    from onelogit.registry import AnyReranker

SUMMARY = "rank documents by their relevance to a query"
EXAMPLES = (
    'onelogit rank "Which fruit is yellow?" "Bananas are yellow." "Paris is in France."',
    'onelogit rank "Which fruit is yellow?" --documents texts.jsonl --model Qwen/Qwen3-Reranker-0.6B --top-n 5',
)
_PROGRESS_BAR_FROM = 64  # documents


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add = parser.add_argument
    add("query", help="the search query")
    add("document", nargs="*", default=[], help="texts to rank (default: read from stdin, unless --documents is given)")
    add(
        "--documents",
        action="append",
        default=[],
        metavar="FILE|FOLDER",
        help="more texts: plain lines, JSON or JSONL, .csv, .tsv, .parquet, a folder in BEIR format, or - for stdin",
    )
    add(
        "--text-column", metavar="NAME", help='column or field of the files with the texts (default: "text" or similar)'
    )
    add("--model", help="hub id, folder, or url of a server (default: the demo model)")
    add("--top-n", type=int, metavar="N", help="show at most this many documents (default: all)")
    add_json_option(parser)
    add_server_options(parser)
    add_model_options(parser)


def run(options: argparse.Namespace) -> int:
    """Rank the documents and print a table, or with --json one object per document.

    The objects have the keys rank (from 1), index (from 0, in the given order), logit, score and text; and id and
    title, as in the file, if the document has them. The text contains the title.
    """
    check_text(options.query, "the query", is_blank_allowed=False)
    check_top_n(options.top_n, "--top-n")
    read = _read_all(options)
    documents = with_whole_characters([document.text for document in read])  # arguments may be no UTF-8
    reranker = _open(options)
    has_progress = is_shown() and len(documents) >= _PROGRESS_BAR_FROM
    ranking = reranker.rank(options.query, documents, progress=has_progress)
    if options.json:
        for rank, (index, logit, score) in enumerate(ranking[: options.top_n], start=1):
            known = {name: value for name in ("id", "title") if (value := getattr(read[index], name)) is not None}
            print_json(
                {"rank": rank, "index": index, "logit": logit, "score": score, "text": documents[index], **known}
            )
    else:
        out = console()
        out.print(ranking_table(options.query, ranking, documents, out, options.top_n))
        out.print(ranking_caption(reranker, out), style="dim", markup=False)
    mention_demo(reranker.name)
    mention_quantization(reranker)
    return 0


def _read_all(options: argparse.Namespace) -> list[TextDocument]:
    """The documents in the arguments, followed by the documents in the files.

    Raises:
        InputError: there are none, or a file cannot be read.
    """
    for document in options.document:
        if _is_file_name(document):
            say(f"{document!r} is ranked as a text; to rank the texts in that file, pass --documents {document}")
    files = options.documents
    if not options.document and not files:
        if sys.stdin is None or sys.stdin.isatty():
            raise InputError("there are no documents; give them after the query, in --documents FILE, or on stdin")
        files = [STDIN]
    documents = [TextDocument(text) for text in options.document]
    documents += [document for file in files for document in read_documents(file, options.text_column)]
    if not documents:
        raise InputError(f"there are no documents in {', '.join('stdin' if file == STDIN else file for file in files)}")
    return documents


def _is_file_name(text: str) -> bool:
    """Whether a text is the name of an existing file, which was probably meant to be read."""
    try:
        return "." in text and Path(text).is_file()
    except OSError:  # too long for a name
        return False


def _open(options: argparse.Namespace) -> "AnyReranker":
    model = DEMO_MODEL if options.model is None and options.url is None else options.model
    spec = model_spec(options, model)
    found = fetch(spec) if spec.url is None else None
    with waiting(f"loading {spec.name}"):
        if found is None:
            return open_spec(spec)
        from onelogit.local.reranker import Reranker  # noqa: PLC0415  loads torch

        return Reranker.load(found)
