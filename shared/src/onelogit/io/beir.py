"""A folder in BEIR format -> its documents, its queries, and the file with its judgements."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from onelogit.errors import InputError
from onelogit.io.bad_lines import BadLines, checked_id
from onelogit.io.file_forms import read_lines
from onelogit.io.lines import TextLine
from onelogit.io.text_fields import QUERY_ID_NAMES, UnreadFields, document_id_of, document_of, first_of, text_of
from onelogit.io.text_files import find_beir_file
from onelogit.validation import with_whole_characters

Value = TypeVar("Value")

_JUDGEMENT_ENDINGS = (".tsv", ".tsv.gz", ".qrels", ".qrels.gz")


def read_corpus(folder: Path, bad_lines: BadLines, *, is_logging: bool = True) -> dict[str, str]:
    """The documents of corpus.jsonl by id; fields of them that are not read are logged.

    Args:
        folder: with `corpus.jsonl`, whose objects have an `_id` and a document as in `document_of`.
        bad_lines: collects malformed lines, and ids that occur twice.
        is_logging: whether to log the fields.

    Raises:
        InputError: the file is missing, or contains no document.
    """
    unread = UnreadFields()

    def document(_: str, fields: Mapping[str, Any]) -> str:
        unread.count(fields)
        return document_of(fields)

    documents = _by_id(folder, "corpus.jsonl", document_id_of, document, "documents", bad_lines)
    if is_logging:
        unread.report(folder / "corpus.jsonl")
    return dict(zip(documents, with_whole_characters([*documents.values()], is_logging=is_logging), strict=True))


def read_queries(
    folder: Path, bad_lines: BadLines, query_of: Callable[[str, Mapping[str, Any]], Value]
) -> dict[str, Value]:
    """The queries of queries.jsonl by id, each as `query_of(id, fields)`; errors are those of `read_corpus`."""
    return _by_id(folder, "queries.jsonl", _query_id_of, query_of, "queries", bad_lines)


def query_text_of(fields: Mapping[str, Any]) -> str:
    """The text of a query of queries.jsonl: its `text` or `query`.

    Raises:
        InputError: it has neither, or it is not a string or is blank.
    """
    name = "query" if fields.get("text") is None and fields.get("query") is not None else "text"
    return text_of(fields, name, is_blank_allowed=False)


def judgements_path(folder: Path, split: str | None) -> Path:
    """The file in `qrels/`, or in the folder itself, with the judgements of a split; by default "test", or the only.

    Raises:
        InputError: there is no such file, or a choice between several.
    """
    by_split = judgement_files(folder)
    splits = ", ".join(sorted(by_split))
    if not by_split:
        raise InputError(f"{folder} has no judgements; put query-id, corpus-id and score into qrels/test.tsv")
    if split is None and len(by_split) > 1 and "test" not in by_split:
        raise InputError(f"{folder} has judgements for {splits}; name one of them as --split")
    wanted = split or ("test" if "test" in by_split else next(iter(by_split)))
    if wanted not in by_split:
        raise InputError(f"{folder} has no judgements for {wanted!r}, only for {splits}")
    return by_split[wanted]


def judgement_files(folder: Path) -> dict[str, Path]:
    """The files with judgements by split."""
    files = [file for place in (folder / "qrels", folder) if place.is_dir() for file in sorted(place.iterdir())]
    return {
        file.name.partition(".")[0]: file
        for file in reversed(files)
        if file.is_file() and file.name.endswith(_JUDGEMENT_ENDINGS)
    }


def _query_id_of(fields: Mapping[str, Any]) -> Any:
    return first_of(fields, ("_id", *QUERY_ID_NAMES, "id"))


def _by_id(
    folder: Path,
    name: str,
    id_of: Callable[[Mapping[str, Any]], Any],
    read: Callable[[str, Mapping[str, Any]], Value],
    kind: str,
    bad_lines: BadLines,
) -> dict[str, Value]:
    path = find_beir_file(folder, name)
    if path is None:
        raise InputError(
            f"{folder} has no {name}; a folder in BEIR format has corpus.jsonl, queries.jsonl and qrels/*.tsv"
        )
    values: dict[str, Value] = {}

    def read_line(line: TextLine) -> None:
        fields = line.fields()
        id = checked_id(id_of(fields), '"_id"')
        if id in values:
            raise InputError(f"the id {id!r} occurs twice")
        values[id] = read(id, fields)

    bad_lines.read_each(kind, read_lines(path), read_line)
    if not values:
        raise InputError(f"{path} contains no {kind}")
    return values
