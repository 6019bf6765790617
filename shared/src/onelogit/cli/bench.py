"""`onelogit bench`: how fast a model or a server is, by number and length of documents, on the user's own texts."""

import argparse
import math
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rich.console import Console

from onelogit.cli.model_options import (
    Named,
    add_json_option,
    add_model_options,
    add_server_options,
    fetch,
    named,
    open_options,
)
from onelogit.cli.output import print_json
from onelogit.errors import InputError, check_packages
from onelogit.io.outputs import check_plot
from onelogit.io.text_files import STDIN, Texts, read_texts
from onelogit.options import OpenOptions, check_place
from onelogit.validation import checked_count

if TYPE_CHECKING:
    from onelogit.benchmarking.result import Result


SUMMARY = "latency and throughput by number and length of documents, on your texts and your machine"
PEERS = ("sentence-transformers",)
SAMPLE = "the sample that comes along (48 pairs; CC BY-SA and Apache-2.0, see PAIRS-LICENCE.md beside it)"
_MOST_TEXTS = 100_000  # of a large corpus, the first are enough


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("model", help="hub id or folder, or the URL of a server")
    parser.add_argument(
        "--candidates", metavar="N,N", default="1,10,100,1000", help="documents in a call; %(default)s where left out"
    )
    parser.add_argument("--lengths", metavar="N,N", help="tokens of a document; as the texts are where left out")
    parser.add_argument(
        "--texts", metavar="FILE|FOLDER", help="plain lines, JSONL, - for stdin, or BEIR; a small sample where left out"
    )
    parser.add_argument("--warm", action="store_true", help="the same documents in each call, with a new query")
    parser.add_argument(
        "--document-cache-bytes", type=int, metavar="N", help="keep documents between calls, for --warm"
    )
    parser.add_argument("--compare", choices=PEERS, help="run it beside, in turn, on a copy of the same weights")
    parser.add_argument(
        "--seconds", type=float, metavar="N", default=60, help="for all calls together; %(default)s where left out"
    )
    parser.add_argument(
        "--repeats", type=int, metavar="N", default=100, help="calls of a kind at most; %(default)s where left out"
    )
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write a picture: time of a call, and throughput")
    add_json_option(parser)
    add_server_options(parser)
    add_model_options(parser)


def run(options: argparse.Namespace) -> int:
    """Measure, print, draw."""
    candidates = numbers_of(options.candidates, "--candidates")
    lengths = [None] if options.lengths is None else numbers_of(options.lengths, "--lengths")
    place = named(options.model, options.url)
    _check(options, place)
    texts = _texts(options.texts)
    opening = _opening(options, place)
    from onelogit.benchmarking.benchmark import BenchmarkSpec, measure  # noqa: PLC0415  not for --help
    from onelogit.benchmarking.runner import Budget, Case  # noqa: PLC0415

    result = measure(
        BenchmarkSpec(
            model=place.opened_as,
            options=opening,
            cases=[Case(count, length) for length, count in product(lengths, candidates)],
            texts=texts.texts,
            texts_name=texts.name,
            limits=Budget(options.seconds, options.repeats),
            is_warm=options.warm,
            is_compared=options.compare is not None,
        )
    )
    _put_out(result, options)
    return 0


def numbers_of(text: str, option: str) -> list[int]:
    """The numbers of a list such as "1,10,100", ascending, each once.

    Raises:
        InputError: one is no whole number from 1 up.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and int(part) > 0 for part in parts):
        raise InputError(f"{option} must be whole numbers from 1 up, such as 1,10,100, not {text!r}")
    return sorted({int(part) for part in parts})


class _NamedTexts(NamedTuple):
    texts: Texts
    name: str


def _check(options: argparse.Namespace, place: Named) -> None:
    """Refuse before anything is loaded what would fail after it."""
    checked_count("--repeats", options.repeats)
    checked_count("--document-cache-bytes", options.document_cache_bytes, least=0)
    if not (options.seconds > 0 and math.isfinite(options.seconds)):
        raise InputError(f"--seconds must be a number above 0, not {options.seconds}")
    if options.compare is not None and place.url is not None:
        raise InputError("--compare runs both in this machine: name a model, not a server")
    if options.compare is not None:
        check_packages("sentence_transformers")
    if options.plot is not None:
        check_plot(options.plot)


def _texts(path: str | None) -> _NamedTexts:
    """The texts, with the sample's queries where there are none."""
    from onelogit.verification.sample_pairs import bundled_pairs  # noqa: PLC0415  not for --help

    sample = bundled_pairs()
    queries = list(dict.fromkeys(pair.query for pair in sample))
    if path is None:
        return _NamedTexts(Texts(list(dict.fromkeys(pair.document for pair in sample)), queries), SAMPLE)
    texts, name = read_texts(path, _MOST_TEXTS), "stdin" if path == STDIN else path
    if not texts.documents:
        raise InputError(f"{name} holds no documents")
    return _NamedTexts(texts if texts.queries else texts._replace(queries=queries), name)


def _opening(options: argparse.Namespace, place: Named) -> OpenOptions:
    opening = open_options(options, place)
    if options.document_cache_bytes is not None:
        opening["document_cache_bytes"] = options.document_cache_bytes
    check_place({**opening, "url": place.url})
    if place.url is None:
        fetch(place.opened_as, opening)
    return opening


def _put_out(result: "Result", options: argparse.Namespace) -> None:
    if options.json:
        print_json(result.to_json())
    else:
        _print(result)
    if options.plot is not None:
        from onelogit.benchmarking.report import plot_result  # noqa: PLC0415  for a picture alone

        plot_result(result, options.plot)


def _print(result: "Result") -> None:
    from onelogit.benchmarking.report import lines_below, tables_of, title_of  # noqa: PLC0415  not for --help
    from onelogit.benchmarking.result import notes_of  # noqa: PLC0415

    console = Console()
    tables = tables_of(result, console.width)
    if len(tables) > 1:
        console.print(title_of(result), style="bold", highlight=False, markup=False)
    for title, table in tables:
        console.print(title, style="bold", highlight=False, markup=False)
        console.print(table)
    for line in lines_below(result):
        console.print(line, style="dim", highlight=False, markup=False)
    for note in notes_of(result):
        console.print(note, style="yellow", highlight=False, markup=False)
