"""A folder in BEIR format -> rows for `pairs_of`: each query with the documents to rank for it."""

import logging
import zlib
from pathlib import Path
from typing import NamedTuple

from onelogit.errors import InputError
from onelogit.io.bad_lines import BadLines
from onelogit.io.beir import judgement_files, judgements_path, query_text_of, read_corpus, read_queries
from onelogit.io.text_files import find_beir_file
from onelogit.io.trec import read_judgements, read_run

logger = logging.getLogger(__name__)

_MAX_PAIRS = 1_000_000  # of all queries with all documents


class Candidates(NamedTuple):
    """Where the documents of each query come from.

    Attributes:
        run: a run file in TREC format; None for the judged documents.
        split: of the judgements, as in `judgements_path`. Without a run and judgements, each query gets all documents.
    """

    run: Path | None = None
    split: str | None = None


def file_checksum(file: Path, checksum: int = 0) -> int:
    """The checksum of a file's content, after that of other content."""
    with file.open("rb") as stream:
        while block := stream.read(2**20):
            checksum = zlib.crc32(block, checksum)
    return checksum


class BeirRows:
    """The rows of a folder, in memory. If `is_logging`, what is ranked and what is not read is logged.

    Attributes:
        files: all files that were read.
        document_ids: by the id of each query that has documents to rank; best first if they are from a run.
        origin: of the documents, for messages.

    Raises:
        InputError: a file is missing or malformed, or all queries with all documents are too many.
    """

    def __init__(self, folder: Path, candidates: Candidates, *, is_logging: bool = False) -> None:
        bad_lines = BadLines(advice="; correct it")
        self._documents = read_corpus(folder, bad_lines, is_logging=is_logging)
        self._queries = read_queries(folder, bad_lines, lambda _, fields: query_text_of(fields))
        source: Path | None = None
        if candidates.run is not None:
            source = candidates.run
            self.document_ids = read_run(source, self._queries, self._documents, bad_lines)
            self.origin = f"the documents in {source.name}"
        elif candidates.split is not None or judgement_files(folder):
            source = judgements_path(folder, candidates.split)
            judged = read_judgements(source, self._queries, self._documents, bad_lines)
            self.document_ids = {id: [*labels] for id, labels in judged.items()}
            self.origin = f"the documents judged in {source.name}"
        else:
            _check_no_judgements(folder)
            self._check_pair_count(folder)
            self.document_ids = {id: [*self._documents] for id in self._queries}
            self.origin = f"all {len(self._documents):,} documents"
        found = [find_beir_file(folder, name) for name in ("corpus.jsonl", "queries.jsonl")]
        self.files = [file for file in (*found, source) if file is not None]
        if is_logging:
            self._log(folder)

    def _log(self, folder: Path) -> None:
        pairs = sum(map(len, self.document_ids.values()))
        count = f"{len(self.document_ids):,}"
        if len(self._queries) > len(self.document_ids):
            count = f"{count} of {len(self._queries):,}"
        message = "%s is read as a folder in BEIR format: %s for each of %s queries, %s pairs; --run FILE names others"
        logger.warning(message, folder, self.origin, count, f"{pairs:,}")

    def checksum(self) -> int:
        """A checksum of the contents of all files."""
        checksum = 0
        for file in self.files:
            checksum = file_checksum(file, checksum)
        return checksum

    def shard_sizes(self, slice_rows: int, max_bytes: int) -> list[int]:
        """The numbers of consecutive rows that are scored together: at most `slice_rows`, with some `max_bytes`."""
        sizes: list[int] = []
        size = room = 0
        for ids in self.document_ids.values():
            length = sum(len(self._documents[id]) for id in ids)
            if not sizes or size == slice_rows or length > room:
                sizes.append(0)
                size, room = 0, max_bytes
            sizes[-1] += 1
            size, room = size + 1, room - length
        return sizes

    def rows(self, start: int, count: int) -> list[object]:
        """Consecutive rows, in the form with a list of documents."""
        return [
            {
                "query_id": query_id,
                "query": self._queries[query_id],
                "documents": [{"document_id": id, "text": self._documents[id]} for id in ids],
            }
            for query_id, ids in [*self.document_ids.items()][start:][:count]
        ]

    def _check_pair_count(self, folder: Path) -> None:
        pairs = len(self._queries) * len(self._documents)
        if pairs > _MAX_PAIRS:
            raise InputError(
                f"{folder} has no judgements, and its {len(self._queries):,} queries with all {len(self._documents):,} "
                f"documents are {pairs:,} pairs, more than {_MAX_PAIRS:,}; pass --run FILE with the documents to rank"
            )


def _check_no_judgements(folder: Path) -> None:
    """Refuse a folder `qrels` whose files are not read: the documents to rank would be others."""
    qrels = folder / "qrels"
    names = sorted(file.name for file in qrels.iterdir() if file.name[0] != ".") if qrels.is_dir() else []
    if names:
        raise InputError(
            f"{qrels} has no file with judgements, which end in .tsv, only {names[0]!r}; rename or remove it, or pass "
            "--run FILE with the documents to rank"
        )
